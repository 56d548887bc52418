r"""What a program writes, made fit to show: lines without escape sequences, of bounded length.

Progress bars redraw a line with ``\r``; each redrawing counts as a line.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Final

MAX_LINE: Final = 2_000
"""Characters of a line that are kept."""

# CSI sequences (colours, cursor), OSC sequences (titles, links) and two-character escapes.
_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_END: Final = re.compile(r"\r\n|\n|\r")


def clean(text: str) -> str:
    """A line without escape sequences and control characters, at most :data:`MAX_LINE` long."""
    plain = _CONTROL.sub("", _ESCAPES.sub("", text)).rstrip()
    return plain if len(plain) <= MAX_LINE else plain[: MAX_LINE - 1] + "…"


class Lines:
    """Cuts a stream of bytes into clean lines. Empty lines are left out.

    Memory is bounded: of a line without end only the beginning is kept.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""
        self._after_return = False

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines that ``data`` completes."""
        text = self._decoder.decode(data)
        if self._after_return and text.startswith("\n"):
            text = text[1:]
        if text:
            self._after_return = text.endswith("\r")
        *whole, last = _END.split(self._rest + text)
        # Escape sequences take room too, so more is held back than is shown in the end.
        self._rest = last[: 4 * MAX_LINE]
        for line in whole:
            shown = clean(line)
            if shown:
                yield shown

    def end(self) -> Iterator[str]:
        """The last line, if it had no end."""
        shown = clean(self._rest + self._decoder.decode(b"", final=True))
        self._rest = ""
        if shown:
            yield shown
