from __future__ import annotations

import contextlib
import io
import os
import pty
import subprocess
import sys
import termios

import msgspec
import pytest

from sleap_rtc.cli.output import MAX_WIDTH, Output
from sleap_rtc.cli.text import Cell, Column
from sleap_rtc.errors import Cancelled, InvalidSearch, UnknownModel


class Thing(msgspec.Struct):
    name: str


def test_a_result_goes_to_stdout_and_words_to_stderr(make_output):
    out = make_output()
    out.show(Thing("fly"), lambda: out.data("fly"))
    out.say("done")
    assert out.stdout.getvalue() == "fly\n"
    assert out.stderr.getvalue() == "done\n"


def test_json_is_alone_on_stdout(make_output):
    out = make_output()
    out.as_json = True
    out.data("not this")
    out.show(Thing("fly"), lambda: out.data("nor this"))
    out.show(Thing("twice"), lambda: None)
    out.say("words")
    assert msgspec.json.decode(out.stdout.getvalue()) == {"name": "fly"}
    assert out.stdout.getvalue() == '{\n  "name": "fly"\n}\n'


def test_an_error_is_a_sentence_and_a_hint(make_output):
    out = make_output()
    out.error(UnknownModel(name="fly"))
    said = out.stderr.getvalue()
    assert said.startswith("error: There is no model 'fly' here.\nhint: ")
    assert out.stdout.getvalue() == ""


def test_with_json_an_error_is_a_document_too(make_output):
    out = make_output()
    out.as_json = True
    out.error(UnknownModel(name="fly"))
    error = msgspec.json.decode(out.stdout.getvalue())["error"]
    assert (error["code"], error["exit_code"]) == ("unknown_model", 3)


def test_the_trainers_last_words_are_indented(make_output):
    out = make_output()
    out.failure("It failed:\nTraceback\n  \x1b[31mboom")
    assert out.stderr.getvalue() == "error: It failed:\n  Traceback\n    ?[31mboom\n"


def test_quiet_leaves_names_and_warnings(make_output):
    out = make_output()
    out.quiet = True
    out.say("chatter")
    out.warn("careful")
    out.live.keep("milestone")
    out.live.update(["drawn"], plain="drawn")
    out.table([Column("name"), Column("size")], [["a", "1"], [Cell("b", "good"), "2"]])
    assert out.stdout.getvalue() == "a\nb\n"
    assert out.stderr.getvalue() == "warning: careful\n"


@pytest.mark.parametrize(
    ("terminal", "environment", "coloured"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
    ],
)
def test_colours_are_for_terminals(make_output, terminal, environment, coloured):
    out = make_output(terminal=terminal, environment=environment)
    out.table([Column("name")], [[Cell("fly", "good")]])
    out.warn("careful")
    assert ("\x1b[32mfly\x1b[0m" in out.stdout.getvalue()) is coloured
    assert ("\x1b[" in out.stderr.getvalue()) is coloured


@pytest.mark.parametrize(
    ("columns", "width"), [("80", 80), ("10", 40), ("900", 200), ("", MAX_WIDTH), ("-5", MAX_WIDTH)]
)
def test_widths(make_output, columns, width):
    assert make_output(environment={"COLUMNS": columns}).width() == width


def test_names_of_peers_cannot_steer_the_terminal(make_output):
    out = make_output(terminal=True, environment={"NO_COLOR": "1"})
    out.table([Column("name")], [["a\x1b[2Jb"]])
    out.fields([("Name", "c\x07"), ("Empty", "")])
    out.title("d\x9b")
    out.cells([Cell("e\x1b")])
    out.say("f\x1b")
    assert "\x1b" not in out.stdout.getvalue() + out.stderr.getvalue()
    assert "Empty" not in out.stdout.getvalue()


def test_fields_are_aligned(make_output):
    out = make_output()
    out.fields([("A", "1"), ("Long", Cell("2", "good"))], indent=2)
    assert out.stdout.getvalue() == "  A     1\n  Long  2\n"


def test_questions(make_output):
    out = make_output(terminal=True, stdin="maybe\nY\n\n\nno\nname\n")
    assert out.interactive
    assert out.ask("Really?", default=False)
    assert out.ask("Really?", default=True)
    assert not out.ask("Really?", default=False)
    assert not out.ask("Really?", default=True)
    assert out.prompt("Who?") == "name"
    assert out.stdout.getvalue() == ""
    assert out.stderr.getvalue().startswith("Really? [y/N] Really? [y/N] ")
    with pytest.raises(Cancelled):
        out.prompt("Who?")


def test_nobody_is_asked_where_nobody_is(make_output):
    assert not make_output().interactive


def test_progress_is_redrawn_on_a_terminal(make_output, clock):
    out = make_output(terminal=True, environment={"COLUMNS": "40"}, clock=clock)
    out.live.update(["one", "x" * 99])
    out.live.update(["too soon"])
    first = out.stderr.getvalue()
    assert first.count("\n") == 2
    assert "too soon" not in first
    assert max(len(line) for line in first.splitlines()) < 40 + len("\x1b[2K")
    clock.now = 0.2
    out.live.update(["two"])
    assert out.stderr.getvalue().endswith("\x1b[2A\x1b[2Ktwo\n\x1b[J")
    out.live.keep("kept")
    assert out.stderr.getvalue().endswith("\x1b[1A\x1b[Jkept\n")
    out.live.clear()
    assert out.stderr.getvalue().endswith("kept\n")


def test_progress_is_a_line_a_second_elsewhere(make_output, clock):
    out = make_output(clock=clock)
    for now, plain in ((0.0, "a"), (0.5, "b"), (1.1, "c"), (2.5, "c"), (3.0, "")):
        clock.now = now
        out.live.update(["drawn"], plain=plain)
    assert out.stderr.getvalue() == "a\nc\n"


def test_a_log_line_takes_progress_away_first(make_output, clock):
    out = make_output(terminal=True, clock=clock)
    out.live.update(["drawn"])
    log = out.log()
    log.write("a log line\n")
    log.flush()
    assert out.stderr.getvalue().endswith("\x1b[1A\x1b[Ja log line\n")


def test_a_terminal_without_the_letters_gets_others():
    raw = io.BytesIO()
    out = Output(stdout=io.TextIOWrapper(raw, encoding="ascii"), stderr=io.StringIO())
    out.data("é…")
    out.raw("plain")
    assert raw.getvalue() == b"??\nplain\n"


def test_a_closed_stream_is_no_terminal():
    closed = io.StringIO()
    closed.close()
    assert not Output(stdin=closed, stderr=io.StringIO()).interactive


def test_a_secret_is_asked_for_without_showing_it(make_output, monkeypatch):
    asked = []
    monkeypatch.setattr("getpass.getpass", lambda text, stream: asked.append(text) or " s3cret ")
    out = make_output(terminal=True)
    assert out.prompt("Code:", secret=True) == "s3cret"
    assert asked == ["Code: "]


# ── a mistake in what was typed ──────────────────────────────────────────────


def test_a_mistake_is_pointed_at(make_output):
    out = make_output()
    out.error(InvalidSearch(why="No", at=5, length=3, text="fly typ:x", hint="There is: type."))
    assert out.stderr.getvalue().splitlines() == [
        "error: No (character 5 of the search).",
        "  fly typ:x",
        "      ^^^",
        "hint: There is: type.",
    ]


@pytest.mark.parametrize("details", [{"at": "x"}, {"at": "-3"}, {"at": "99", "length": "0"}])
def test_what_a_peer_says_of_a_mistake_breaks_nothing(make_output, details):
    out = make_output()
    out.error(InvalidSearch(why="No", text="fly\x1b[2J", **({"length": "1"} | details)))
    assert "\x1b" not in out.stderr.getvalue()


# ── pages ────────────────────────────────────────────────────────────────────

LONG = "".join(f"line {number}\n" for number in range(30))


def in_a_terminal(make: str, **environment: str) -> str:
    """What a program shows in a terminal of 80 columns and 24 lines."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    code = f"from sleap_rtc.cli.output import Output\nout = Output()\n{make}"
    kept = {k: v for k, v in os.environ.items() if k not in ("PAGER", "LESS", "LINES", "COLUMNS")}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=kept | {"TERM": "xterm"} | environment,
    )
    os.close(follower)
    seen = b""
    with contextlib.suppress(OSError):  # Linux says so when the other end is closed
        while piece := os.read(leader, 4_096):
            seen += piece
    os.close(leader)
    assert process.wait(60) == 0
    return seen.decode().replace("\r\n", "\n")


PRINT = "with out.paged():\n    for n in range({}): out.data(f'line {{n}}')"


@pytest.mark.parametrize(
    ("lines", "pager", "paged"),
    [(30, "tr a-z A-Z", True), (10, "tr a-z A-Z", False), (30, "cat", False), (30, "", False)],
)
def test_long_results_go_through_the_pager(lines, pager, paged):
    seen = in_a_terminal(PRINT.format(lines), PAGER=pager)
    assert seen == "".join(f"{'LINE' if paged else 'line'} {n}\n" for n in range(lines))


@pytest.mark.parametrize("pager", ["no-such-pager", "'unclosed"])
def test_without_a_pager_results_are_printed(pager):
    assert in_a_terminal(PRINT.format(30), PAGER=pager) == LONG


def test_a_terminal_that_can_t_page_is_left_alone():
    assert in_a_terminal(PRINT.format(30), PAGER="tr a-z A-Z", TERM="dumb") == LONG
    quiet = f"out.quiet = True\n{PRINT.format(30)}"
    assert in_a_terminal(quiet, PAGER="tr a-z A-Z") == LONG


def test_what_was_printed_before_an_error_is_shown():
    code = (
        "try:\n  with out.paged():\n    out.data('one')\n    1 / 0\nexcept ZeroDivisionError: pass"
    )
    assert in_a_terminal(code, PAGER="tr a-z A-Z") == "one\n"


def test_off_a_terminal_nothing_is_paged(make_output):
    out = make_output(environment={"PAGER": "tr a-z A-Z", "LINES": "2"})
    with out.paged():
        for number in range(30):
            out.data(f"line {number}")
    assert out.stdout.getvalue() == LONG


def test_drawings_keep_their_blanks(make_output):
    out = make_output(terminal=True)
    out.drawing([[Cell(" a ", "dim"), Cell("b  ", "good")], [Cell("c")]], indent=2)
    assert out.stdout.getvalue() == "  \x1b[2m a \x1b[0m\x1b[32mb  \x1b[0m\n  c\n"
