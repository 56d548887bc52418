"""The table of commands, exit codes, and what --help may cost."""

from __future__ import annotations

import errno
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from sleap_rtc import errors
from sleap_rtc.cli import main as main_
from sleap_rtc.cli.commands import cli
from sleap_rtc.cli.main import EXTRAS
from sleap_rtc.cli.table import ROWS, SECTIONS

# What no command needs to explain itself.
HEAVY = {
    "asyncio",
    "blake3",
    "cryptography",
    "h5py",
    "logging",
    "loguru",
    "msgspec",
    "multiprocessing",
    "numpy",
    "pathlib",
    "platformdirs",
    "psutil",
    "reactor_webrtc",
    "shutil",
    "sleap_io",
    "sqlite3",
    "ssl",
    "subprocess",
    "uvicorn",
    "websockets",
    "yaml",
    "zmq",
}


def every_command() -> Iterator[list[str]]:
    yield []
    with click.Context(cli) as ctx:
        for name in ROWS:
            command = cli.get_command(ctx, name)
            yield [name]
            if isinstance(command, click.Group):
                yield from ([name, below] for below in command.commands)


COMMANDS = list(every_command())


def unmeasured() -> dict[str, str]:
    """The environment without what measures coverage, which costs time and imports of its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COV")}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(cli, command, capsys):
    done = cli(*command, "--help")
    assert done.code == 0
    assert done.err == ""
    told = done.out or capsys.readouterr().out  # click prints by itself
    assert told.startswith(" ".join(["Usage: sleap-rtc", *command]))


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_the_table_says_what_the_command_says(row):
    with click.Context(cli) as ctx:
        command = cli.get_command(ctx, row.name)
    assert command is not None
    if not row.hidden:
        assert (command.help or "").partition("\n")[0] == row.help


def test_every_section_is_in_the_help(capsys):
    assert main_.run(["--help"]) == 0
    told = capsys.readouterr().out
    for title, rows in SECTIONS.items():
        assert f"\n{title}:\n" in told
        for row in rows:
            assert (f"  {row.name} " in told) is not row.hidden
    assert "130 interrupted" in " ".join(told.split())


@pytest.mark.parametrize(
    "command",
    [command for command in COMMANDS if command[:1] != ["demo"]],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(command):
    code = (
        "import sys\nfrom sleap_rtc.cli.main import run\n"
        "assert run([*sys.argv[1:], '--help']) == 0\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, *command],
        capture_output=True,
        text=True,
        check=True,
        env=unmeasured(),
    )
    assert HEAVY & set(done.stderr.split()) == set()


def test_a_mistyped_command_is_told_what_is_near(cli):
    done = cli("trian")
    assert done.code == 2
    assert "There is no command 'trian'. Did you mean train" in done.err
    assert cli("qqqqqq").err.startswith("error: There is no command 'qqqqqq'.\nhint: ")


def test_a_mistyped_option_is_told_what_is_near(cli):
    done = cli("room", "list", "--jsn")
    assert done.code == 2
    assert "'--json'" in done.err
    assert "hint: sleap-rtc room list --help" in done.err


def test_a_mistake_in_the_command_line_is_a_document_too(cli):
    done = cli("room", "list", "--jsn", "--json")
    assert done.code == 2
    assert done.document["error"]["code"] == "usage"


def test_nothing_at_all_shows_the_help(cli):
    done = cli()
    assert done.code == 2
    assert "Commands:" not in done.out
    assert "Set up:" in done.out


def test_the_version(cli):
    done = cli("--version")
    assert (done.code, done.out) == (0, f"sleap-rtc {errors.__name__ and _version()}\n")


def _version() -> str:
    return importlib.import_module("sleap_rtc").__version__


def fails_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr("sleap_rtc.client.api.AsyncClient.rooms", broken)


@pytest.mark.parametrize(
    "error",
    [
        errors.SleapRtcError(message="It failed."),
        errors.InvalidName(kind="alias", name="x", why="no"),
        errors.UnknownModel(name="x"),
        errors.AliasTaken(alias="x", owner="y"),
        errors.ServerUnreachable(url="x", why="no"),
        errors.NotPermitted(message="No."),
        errors.Cancelled(what="It"),
    ],
    ids=lambda error: error.code,
)
def test_exit_codes(cli, monkeypatch, error):
    fails_with(monkeypatch, error)
    done = cli("room", "list")
    assert done.code == error.exit_code
    assert done.err.startswith(f"error: {error.message}")
    shown = cli("room", "list", "--json").document["error"]
    assert shown == {
        "code": error.code,
        "message": error.message,
        "hint": error.hint_text,
        "exit_code": error.exit_code,
    }


def test_a_bug_is_a_sentence_and_its_traceback_is_in_the_log(cli, monkeypatch, own_home):
    fails_with(monkeypatch, ZeroDivisionError("by zero"))
    done = cli("room", "list")
    assert done.code == 1
    assert "Something is wrong inside sleap-rtc: ZeroDivisionError: by zero" in done.err
    assert "Traceback" not in done.err
    log = own_home / ".sleap-rtc" / "logs" / "client.log"
    assert str(log) in done.err
    assert "ZeroDivisionError" in log.read_text()


def test_a_bug_before_there_is_a_log(cli, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("sleap_rtc.config.load", broken)
    assert "--debug shows where" in cli("room", "list").err
    with pytest.raises(ZeroDivisionError):
        cli("room", "list", "--debug")


def test_a_missing_package_is_named_with_its_extra(cli, monkeypatch):
    fails_with(monkeypatch, ModuleNotFoundError("No module named 'zmq'", name="zmq.asyncio"))
    done = cli("room", "list")
    assert done.code == 1
    assert "needs the package zmq" in done.err
    assert "pip install 'sleap-rtc[worker]'" in done.err
    assert set(EXTRAS.values()) <= {"labels", "media", "peer", "server", "worker"}


@pytest.mark.parametrize(
    ("number", "code"), [(errno.EACCES, 6), (errno.ENOENT, 3), (errno.EIO, 1)], ids=str
)
def test_errors_of_the_system_name_the_file(cli, monkeypatch, number, code):
    fails_with(monkeypatch, OSError(number, os.strerror(number), "some/file"))
    done = cli("room", "list")
    assert done.code == code
    assert "error: some/file: " in done.err


def test_ctrl_c_says_what_goes_on(cli, monkeypatch):
    fails_with(monkeypatch, KeyboardInterrupt())
    done = cli("room", "list")
    assert done.code == 130
    assert done.err.strip() == "error: Interrupted. Nothing was changed."


def test_a_reader_that_has_read_enough_is_no_error(tmp_path):
    writer = subprocess.Popen(
        [sys.executable, "-m", "sleap_rtc", "train", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    writer.stdout.close()
    _, said = writer.communicate(timeout=60)
    assert b"Traceback" not in said
    assert b"Exception" not in said


def test_an_error_that_nobody_reads_is_no_other_error():
    writer = subprocess.Popen(
        [sys.executable, "-m", "sleap_rtc", "room", "list", "--jsn", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    writer.stdout.close()
    _, said = writer.communicate(timeout=60)
    assert writer.returncode == 2
    assert said.startswith("error: No such option")
    assert "Traceback" not in said


def test_json_anywhere(cli):
    for arguments in (("--json", "room", "list"), ("room", "--json", "list")):
        assert cli(*arguments).document == {"rooms": []}
    assert json.loads(cli("room", "list", "--json").out) == {"rooms": []}


def test_main_exits_with_the_code(capsys):
    with pytest.raises(SystemExit) as ended:
        main_.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("sleap-rtc ")


def test_whoever_interrupts_waits_for_no_thread():
    program = """
import threading
from sleap_rtc.cli import main

def interrupted(_):
    threading.Thread(target=threading.Event().wait).start()
    print("said")
    return main.INTERRUPTED

main.run = interrupted
main.main([])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (errors.Cancelled.exit_code, "said\n"), done.stderr


def test_whoever_interrupts_again_sees_no_traceback():
    program = """
import signal
from sleap_rtc.cli import main

def interrupted(_):
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.raise_signal(signal.SIGINT)

main.run = interrupted
main.main([])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (errors.Cancelled.exit_code, "")
