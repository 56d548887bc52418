"""``sleap-rtc``: the table of commands, and what becomes of their errors.

A command's module is imported when the command is run or helped with::

    sleap-rtc --help          this file and cli/overview.py, without click
    sleap-rtc train --help    and cli/train.py
    sleap-rtc train …         and everything that trains

Exit codes::

    0  done        2  usage        4  conflict     6    not permitted
    1  failed      3  not found    5  network      130  interrupted or cancelled
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from sleap_rtc.cli.app import App

if TYPE_CHECKING:
    import click

    from sleap_rtc.errors import SleapRtcError


class Row(NamedTuple):
    """A command: its name, its module's, and its line in the help.

    The module has an object of the command's name, with ``_`` for ``-``.
    """

    name: str
    module: str
    help: str
    hidden: bool = False


SECTIONS: Final[dict[str, tuple[Row, ...]]] = {
    "Set up": (
        Row("login", "login", "Sign in at a server."),
        Row("room", "room", "Make, share, join and list rooms, and see who is in them."),
        Row("engine", "engine", "List and install what trains and tracks."),
        Row("doctor", "doctor", "Check the set-up, and say how to mend it."),
        Row("completion", "completion", "Let bash, zsh or fish complete commands and names."),
        Row("demo", "demo", "Train, bring home, and track: the whole way on one machine."),
    ),
    "Train": (
        Row("train", "train", "Train on a worker, and bring the models home."),
        Row("client-train", "train", "The same as train.", hidden=True),
        Row("jobs", "jobs", "List, follow and command jobs."),
        Row("workers", "workers", "List the workers that are online."),
    ),
    "Models": (
        Row("list-models", "models", "List the models of this machine's library."),
        Row("model-info", "models", "Everything about one model."),
        Row("compare-models", "models", "Show models side by side, and which is best."),
        Row("tag-model", "models", "Give a model an alias, or take it away."),
        Row("list-aliases", "models", "List the aliases, and the models that they name."),
        Row("update-model", "models", "Change the notes and tags of models."),
        Row("delete-model", "models", "Delete models; files stay unless --files is given."),
        Row("restore-model", "restoring", "Bring deleted models back."),
        Row("import-model", "importing", "Import models into this machine's library."),
        Row("push-model", "moving", "Push models of this library to a worker."),
        Row("pull-model", "moving", "Pull models of a worker into this library."),
        Row("transfers", "transfers", "List what is on its way, and go on with what was cut."),
        Row("sync", "sync", "Compare this library with what workers have."),
        Row("repair-model", "repair", "Mend models: their records, their aliases, their files."),
        Row("clean-models", "clean", "Remove what the library doesn't need."),
        Row("export-registry", "registry", "Write every record and alias to a JSON file."),
        Row("import-registry", "registry", "Merge records and aliases from another library."),
        Row("backup", "registry", "Save the whole library to one archive."),
        Row("restore", "registry", "Bring back what backup saved."),
        Row("track", "track", "Run models over videos, here or on a worker."),
    ),
    "Machines": (
        Row("worker", "worker", "Make this machine a worker of a room, or ask another one."),
        Row("trust-model", "trusting", "Let a checkpoint that looks odd run on this machine."),
        Row("server", "server", "Run a server."),
        Row("server-code", "server", "Make a set-up code for one more device."),
        Row("server-init-storage", "storing", "Set up the buckets for rooms' files."),
    ),
}

ROWS: Final = {row.name: row for rows in SECTIONS.values() for row in rows}

ABOUT: Final = "Train SLEAP models on any machine you can reach, and keep every model."

EPILOG: Final = (
    "Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict, 5 network, "
    "6 not permitted, 130 interrupted or cancelled."
)

HELP_WIDTH: Final = 100
"""Columns of the help at most: longer lines are hard to read."""

COMPLETE: Final = "_SLEAP_RTC_COMPLETE"
"""Environment variable by which a shell asks what may come next."""

_HELP: Final = (["--help"], ["-h"])

EXTRAS: Final = {
    "h5py": "labels",
    "numpy": "media",
    "prometheus_client": "server",
    "psutil": "worker",
    "pynvml": "worker",
    "reactor_webrtc": "peer",
    "sleap_io": "media",
    "uvicorn": "server",
    "zmq": "worker",
}
"""Package that may be missing → the extra that brings it."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The program: run a command and exit with its code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str], app: App | None = None) -> int:
    """Run a command.

    Args:
        arguments: What follows the program's name.
        app: The invocation; by default one with this process's streams.

    Returns:
        The exit code.
    """
    app = app or App()
    if list(arguments) in _HELP and COMPLETE not in os.environ:
        from sleap_rtc.cli.overview import overview  # noqa: PLC0415 - it imports this

        return _printed(app, overview(min(app.out.width(), HELP_WIDTH)))
    try:
        import click  # noqa: PLC0415 - most of the time that --help would take

        from sleap_rtc.cli.commands import cli  # noqa: PLC0415 - it imports this
    except KeyboardInterrupt:
        return _interrupted(app)
    try:
        code: Any = cli.main(
            list(arguments),
            prog_name="sleap-rtc",
            standalone_mode=False,
            obj=app,
            terminal_width=min(app.out.width(), HELP_WIDTH),
        )
    except (KeyboardInterrupt, click.Abort):
        return _interrupted(app)
    except click.exceptions.NoArgsIsHelpError as error:
        app.out.raw(error.format_message())
        return error.exit_code
    except click.ClickException as error:
        return _report(app, _from_click(error), arguments)
    except BrokenPipeError:
        return _read_enough()
    except Exception as error:  # noqa: BLE001 - told here, as a sentence or as a bug, in one place
        return _report(app, _sentence(app, error), arguments)
    finally:
        app.close()
    return code if isinstance(code, int) else 0


def _printed(app: App, text: str) -> int:
    try:
        app.out.raw(text)
    except BrokenPipeError:
        return _read_enough()
    return 0


def _read_enough() -> int:
    """Whoever read the output has read enough; Python would complain about it once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 1


def _interrupted(app: App) -> int:
    from sleap_rtc.errors import Cancelled  # noqa: PLC0415 - only here

    app.out.failure(f"Interrupted. {app.goes_on}")
    return Cancelled.exit_code


def _report(app: App, error: SleapRtcError, arguments: Sequence[str]) -> int:
    # A mistake in the command line may be found before --json is.
    app.out.as_json = app.out.as_json or "--json" in arguments
    app.out.error(error)
    return error.exit_code


def _from_click(error: click.ClickException) -> SleapRtcError:
    from sleap_rtc.errors import UsageError  # noqa: PLC0415 - only here

    hint = ""
    ctx = getattr(error, "ctx", None)
    if ctx is not None:
        hint = f"{ctx.command_path} --help shows what there is."
    return UsageError(message=error.format_message(), hint=hint)


def _sentence(app: App, error: Exception) -> SleapRtcError:
    """What went wrong, as an error of ours; a bug leaves its traceback in the log."""
    from sleap_rtc.errors import NotFound, NotPermitted, SleapRtcError  # noqa: PLC0415

    if isinstance(error, SleapRtcError):
        return error
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package in EXTRAS:
            return SleapRtcError(
                message=f"This needs the package {package}, which isn't installed.",
                hint=f"pip install 'sleap-rtc[{EXTRAS[package]}]'",
            )
    if isinstance(error, OSError) and error.filename is not None:
        message = f"{os.fsdecode(error.filename)}: {error.strerror}."
        if isinstance(error, PermissionError):
            hint = "This user may not do that there: change the permissions, or name another place."
            return NotPermitted(message=message, hint=hint)
        kind = NotFound if isinstance(error, FileNotFoundError) else SleapRtcError
        return kind(message=message)
    if app.logs is not None:
        from loguru import logger  # noqa: PLC0415 - only for a bug

        logger.opt(exception=error).warning("a bug")
        hint = f"The traceback is in {app.logs}."
    elif app.debug:
        raise error
    else:
        hint = "The same command with --debug shows where."
    return SleapRtcError(
        message=f"Something is wrong inside sleap-rtc: {type(error).__name__}: {error}", hint=hint
    )
