"""The only place that prints.

================  ==========  ===================  =======================================
what              goes to     ``--json``           ``--quiet``
================  ==========  ===================  =======================================
a result          stdout      one JSON document    its names alone, one a line
words, warnings   stderr      stderr               warnings alone
progress          stderr      stderr               none
a question        stderr      stderr               stderr
an error          stderr      stderr, and a        stderr
                              document on stdout
================  ==========  ===================  =======================================

Colours are for terminals alone, and never with ``NO_COLOR``. Progress is
redrawn in place on a terminal; elsewhere it is at most one plain line a second.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TextIO

from sleap_rtc.cli.text import Cell, Column, clean, cut, joined, lay_out, pad, point_at, width_of

if TYPE_CHECKING:
    import msgspec

    from sleap_rtc.errors import SleapRtcError

STYLES: Final[Mapping[str, str]] = {
    "": "",
    "heading": "1",
    "name": "1",
    "good": "32",
    "warning": "33",
    "bad": "31",
    "dim": "2",
}
MIN_WIDTH: Final = 40
MAX_WIDTH: Final = 200
REDRAW_S: Final = 0.1
PLAIN_S: Final = 1.0
"""Seconds between plain lines of progress."""


class Output:
    """Where a command's words go.

    Args:
        stdout: Results.
        stderr: Everything else.
        stdin: Answers.
        environment: Read for ``NO_COLOR``, ``TERM`` and ``COLUMNS``.
        clock: Seconds, of any clock that doesn't go back.
    """

    def __init__(
        self,
        *,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        stdin: TextIO | None = None,
        environment: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stdout = stdout or sys.stdout
        self.stderr = stderr or sys.stderr
        self.stdin = stdin or sys.stdin
        self.as_json = False
        self.quiet = False
        self._environment = os.environ if environment is None else environment
        self._clock = clock
        self._documented = False
        self._held: list[str] | None = None
        self.live = Live(self, clock)

    # ── what there is ────────────────────────────────────────────────────────

    @property
    def interactive(self) -> bool:
        """Whether there is a person who can be asked."""
        return _is_terminal(self.stdin) and _is_terminal(self.stderr)

    def width(self, stream: TextIO | None = None) -> int:
        """Columns to use: the terminal's, or ``COLUMNS``; plenty where there is neither."""
        given = self._environment.get("COLUMNS", "")
        if given.isascii() and given.isdigit() and int(given) > 0:
            columns = int(given)
        else:
            columns = _columns(stream or self.stdout) or MAX_WIDTH
        return min(max(columns, MIN_WIDTH), MAX_WIDTH)

    def coloured(self, stream: TextIO) -> bool:
        """Whether colours are used on a stream."""
        plain = self._environment.get("NO_COLOR") or self._environment.get("TERM") == "dumb"
        return not plain and _is_terminal(stream)

    def paint(self, text: str, style: str, stream: TextIO) -> str:
        """The text in a style, where colours are used."""
        code = STYLES[style]
        return f"\x1b[{code}m{text}\x1b[0m" if code and self.coloured(stream) else text

    # ── results ──────────────────────────────────────────────────────────────

    def show(self, document: msgspec.Struct, human: Callable[[], None]) -> None:
        """A command's result: the document with ``--json``, else what ``human`` prints."""
        self.live.clear()
        if not self.as_json:
            human()
        elif not self._documented:
            import msgspec  # noqa: PLC0415 - only here

            self._documented = True
            text = msgspec.json.format(msgspec.json.encode(document), indent=2)
            self._write(self.stdout, text.decode("utf-8") + "\n")

    def data(self, text: str) -> None:
        """One line of a result; nothing with ``--json``."""
        if not self.as_json:
            self._write(self.stdout, clean(text) + "\n")

    def raw(self, text: str) -> None:
        """Text of ours with lines of its own, to standard output: a help page, CSV."""
        self._write(self.stdout, text if text.endswith("\n") else text + "\n")

    def table(
        self, columns: Sequence[Column], rows: Sequence[Sequence[Cell | str]], *, name: int = 0
    ) -> None:
        """A table, as wide as there is room; column ``name`` alone with ``--quiet``."""
        cells = [[c if isinstance(c, Cell) else Cell(c) for c in row] for row in rows]
        if self.quiet:
            for row in cells:
                self.data(row[name].text)
            return
        for line in lay_out(columns, cells, self.width()):
            self._write(self.stdout, joined(line, self._paint_out) + "\n")

    def fields(self, pairs: Sequence[tuple[str, str | Cell]], *, indent: int = 0) -> None:
        """Names and values, one a line; a value that is empty is left out."""
        shown = [(n, v if isinstance(v, Cell) else Cell(v)) for n, v in pairs]
        shown = [(n, v) for n, v in shown if v.text]
        wide = max((width_of(n) for n, _ in shown), default=0)
        for title, value in shown:
            head = self._paint_out(pad(title, wide), "dim")
            body = self._paint_out(clean(value.text), value.style)
            self._write(self.stdout, f"{' ' * indent}{head}  {body}\n")

    def cells(self, cells: Sequence[Cell]) -> None:
        """One line of a result, in several styles."""
        shown = [Cell(clean(cell.text), cell.style) for cell in cells]
        self._write(self.stdout, joined(shown, self._paint_out) + "\n")

    def drawing(self, lines: Sequence[Sequence[Cell]], *, indent: int = 0) -> None:
        """Lines of a result whose cells stand without gaps: a picture."""
        for cells in lines:
            body = "".join(self._paint_out(clean(cell.text), cell.style) for cell in cells)
            self._write(self.stdout, f"{' ' * indent}{body.rstrip()}\n")

    @contextlib.contextmanager
    def paged(self) -> Iterator[None]:
        """Show the results that are printed inside in a pager, where they don't fit the terminal.

        The pager is ``PAGER``, else ``less``; an empty ``PAGER`` or ``cat`` is none.
        """
        command = self._pager()
        if self._held is not None or not command:
            yield
            return
        self._held = []
        try:
            yield
        finally:
            text, self._held = "".join(self._held), None
            tall = text.count("\n") >= self._height()
            if not (tall and _page(command, text, self._environment)):
                self._write(self.stdout, text)

    def _pager(self) -> list[str]:
        """What to page with, nothing where that can't be."""
        plain = self.as_json or self.quiet or self._environment.get("TERM") == "dumb"
        if plain or not (_is_terminal(self.stdout) and _is_terminal(self.stdin)):
            return []
        import shlex  # noqa: PLC0415 - only on a terminal

        try:
            command = shlex.split(self._environment.get("PAGER", "less"))
        except ValueError:
            return []
        return [] if command == ["cat"] else command

    def _height(self) -> int:
        given = self._environment.get("LINES", "")
        if given.isascii() and given.isdigit() and int(given) > 0:
            return int(given)
        try:
            return os.get_terminal_size(self.stdout.fileno()).lines
        except (OSError, ValueError):
            return 24

    def title(self, text: str) -> None:
        """A heading among the results."""
        self._write(self.stdout, self._paint_out(clean(text), "heading") + "\n")

    def _paint_out(self, text: str, style: str) -> str:
        return self.paint(text, style, self.stdout)

    # ── words ────────────────────────────────────────────────────────────────

    def say(self, text: str, style: str = "") -> None:
        """A word to the person, in a line of its own."""
        if not self.quiet:
            self._tell(self.paint(clean(text), style, self.stderr))

    def warn(self, text: str) -> None:
        """Something that the person should know."""
        self._tell(f"{self.paint('warning:', 'warning', self.stderr)} {clean(text)}")

    def error(self, error: SleapRtcError) -> None:
        """Why it didn't work, where in what was typed, and what to do."""
        self.failure(error.message, error.hint_text, marked=self._marked(error.details))
        if self.as_json:
            from sleap_rtc.cli.documents import ErrorDocument, ErrorShown  # noqa: PLC0415

            shown = ErrorShown(
                code=error.code,
                message=error.message,
                hint=error.hint_text,
                exit_code=error.exit_code,
            )
            self.show(ErrorDocument(error=shown), lambda: None)

    def _marked(self, details: Mapping[str, str]) -> Sequence[str]:
        """What was typed, with the mistake marked, where an error says where it is."""
        try:
            text, at, length = details["text"], int(details["at"]), int(details["length"])
        except (KeyError, ValueError):
            return ()
        room = self.width(self.stderr) - 2
        return point_at(text, min(max(at - 1, 0), len(text)), max(length, 1), room)

    def failure(self, message: str, hint: str = "", *, marked: Sequence[str] = ()) -> None:
        """An error's sentence; the lines below its first, a trainer's last words, are indented."""
        first, *rest = *(message.splitlines() or [""]), *marked
        self._tell(f"{self.paint('error:', 'bad', self.stderr)} {clean(first)}")
        for line in rest:
            self._tell(f"  {clean(line)}")
        if hint:
            self._tell(f"{self.paint('hint:', 'dim', self.stderr)} {clean(hint)}")

    def log(self) -> TextIO:
        """Where log lines go, so that they don't run into progress."""
        return _LogStream(self)  # type: ignore[return-value]

    def _tell(self, text: str) -> None:
        self.live.clear()
        self._write(self.stderr, text + "\n")

    # ── questions ────────────────────────────────────────────────────────────

    def ask(self, question: str, *, default: bool) -> bool:
        """A question with yes or no; an empty answer is the default.

        Raises:
            Cancelled: The input ended.
        """
        choices = "[Y/n]" if default else "[y/N]"
        while True:
            answer = self.prompt(f"{question} {choices}").casefold()
            if not answer:
                return default
            if answer in ("y", "yes", "n", "no"):
                return answer.startswith("y")

    def prompt(self, question: str, *, secret: bool = False) -> str:
        """A question with an answer in one line.

        Raises:
            Cancelled: The input ended.
        """
        self.live.clear()
        text = f"{clean(question)} "
        if secret:
            import getpass  # noqa: PLC0415 - only here

            return getpass.getpass(text, stream=self.stderr).strip()
        self._write(self.stderr, text)
        answer = self.stdin.readline()
        if not answer:
            from sleap_rtc.errors import Cancelled  # noqa: PLC0415 - only here

            self._write(self.stderr, "\n")
            raise Cancelled(what="The command")
        return answer.strip()

    # ── streams ──────────────────────────────────────────────────────────────

    def _write(self, stream: TextIO, text: str) -> None:
        if self._held is not None and stream is self.stdout:
            self._held.append(text)
            return
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "replace").decode(encoding))
        stream.flush()


class Live:
    """Progress: lines that are redrawn in place, or plain lines where that can't be.

    Args:
        output: Where it belongs.
        clock: Seconds, of any clock that doesn't go back.
    """

    def __init__(self, output: Output, clock: Callable[[], float]) -> None:
        self._output = output
        self._clock = clock
        self._drawn = 0
        self._then = float("-inf")
        self._last = ""

    @property
    def in_place(self) -> bool:
        """Whether lines are redrawn in place."""
        dumb = self._output._environment.get("TERM") == "dumb"
        return _is_terminal(self._output.stderr) and not dumb

    def update(self, lines: Sequence[str], *, plain: str = "") -> None:
        """Show how far it is.

        Args:
            lines: For a terminal; drawn at most ten times a second.
            plain: For everything else; at most one a second, and none twice.
        """
        if self._output.quiet:
            return
        now = self._clock()
        if self.in_place:
            if now - self._then >= REDRAW_S:
                self._then = now
                self._draw(lines)
        elif plain and plain != self._last and now - self._then >= PLAIN_S:
            self._then, self._last = now, plain
            self._write(clean(plain) + "\n")

    def keep(self, line: str, style: str = "") -> None:
        """A line that stays: a milestone."""
        if not self._output.quiet:
            self.clear()
            self._write(self._output.paint(clean(line), style, self._output.stderr) + "\n")

    def clear(self) -> None:
        """Take away what is drawn; the next update draws anew."""
        if self._drawn:
            self._write(f"\x1b[{self._drawn}A\x1b[J")
            self._drawn = 0
            self._then = float("-inf")

    def _draw(self, lines: Sequence[str]) -> None:
        # One column stays free: in the last one some terminals wrap at once.
        room = self._output.width(self._output.stderr) - 1
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        body = "".join(f"\x1b[2K{cut(clean(line), room)}\n" for line in lines)
        self._write(f"{up}{body}\x1b[J")
        self._drawn = len(lines)

    def _write(self, text: str) -> None:
        self._output._write(self._output.stderr, text)


class _LogStream:
    """Takes log lines: progress is taken away first."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def write(self, text: str) -> int:
        self._output.live.clear()
        self._output._write(self._output.stderr, text)
        return len(text)

    def flush(self) -> None:
        self._output.stderr.flush()


def _page(command: Sequence[str], text: str, environment: Mapping[str, str]) -> bool:
    """Show text in a pager; False if there is no such program."""
    import subprocess  # noqa: PLC0415 - only on a terminal, and only for a long result

    # less leaves short text where it is, shows colours, and leaves the screen as it was.
    env = {"LESS": "FRX", "LV": "-c"} | dict(environment)
    try:
        pager = subprocess.Popen(list(command), stdin=subprocess.PIPE, env=env)
    except OSError:
        return False
    data: bytes | None = text.encode("utf-8", "replace")
    while True:
        try:
            pager.communicate(data)
        except KeyboardInterrupt:  # the pager got it too, and decides what it means
            data = None
        else:
            return True


def _columns(stream: TextIO) -> int:
    """Columns of the terminal that a stream leads to, 0 where it leads to none."""
    try:
        return os.get_terminal_size(stream.fileno()).columns if _is_terminal(stream) else 0
    except (OSError, ValueError):
        return 0


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # there is none, or it was closed
        return False
