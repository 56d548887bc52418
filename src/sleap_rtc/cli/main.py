"""``sleap-rtc``: a command is run, and what becomes of its errors.

A command's module is imported when the command is run or helped with::

    sleap-rtc --help          cli/table.py and cli/overview.py, without click
    sleap-rtc train --help    and cli/train.py
    sleap-rtc train …         and everything that trains

Exit codes::

    0  done        2  usage        4  conflict     6    not permitted
    1  failed      3  not found    5  network      130  interrupted or cancelled
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from sleap_rtc.cli.app import App
from sleap_rtc.cli.table import COMPLETE

if TYPE_CHECKING:
    import click

    from sleap_rtc.errors import SleapRtcError


HELP_WIDTH: Final = 100
"""Columns of the help at most: longer lines are hard to read."""

INTERRUPTED: Final = 130
"""Exit code of a command that was interrupted; as of `sleap_rtc.errors.Cancelled`."""

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
    try:
        code = run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # once more, while it was told what the first one ended
        code = INTERRUPTED
    if code == INTERRUPTED:
        # Python would wait for threads, and they for a server that may never answer.
        try:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
        finally:
            os._exit(code)
    sys.exit(code)


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
        from sleap_rtc.cli.overview import overview  # noqa: PLC0415 - only here

        return _printed(app, overview(min(app.out.width(), HELP_WIDTH)))
    try:
        import click  # noqa: PLC0415 - most of the time that --help would take

        from sleap_rtc.cli.commands import cli  # noqa: PLC0415 - it imports click
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
    try:
        app.out.error(error)
    except BrokenPipeError:
        _read_enough()
    return error.exit_code


def _from_click(error: click.ClickException) -> SleapRtcError:
    from sleap_rtc.errors import UsageError  # noqa: PLC0415 - only here

    hint = ""
    ctx = getattr(error, "ctx", None)
    if ctx is not None:
        hint = f"{ctx.command_path} --help shows what there is."
    return UsageError(message=error.format_message(), hint=hint)


def of_system(error: OSError) -> SleapRtcError:
    """What the system refused, as an error of ours; it names the file."""
    from sleap_rtc.errors import NotFound, NotPermitted, SleapRtcError  # noqa: PLC0415

    message = f"{os.fsdecode(error.filename)}: {error.strerror}."
    if isinstance(error, PermissionError):
        hint = "This user may not do that there: change the permissions, or name another place."
        return NotPermitted(message=message, hint=hint)
    kind = NotFound if isinstance(error, FileNotFoundError) else SleapRtcError
    return kind(message=message)


def _sentence(app: App, error: Exception) -> SleapRtcError:
    """What went wrong, as an error of ours; a bug leaves its traceback in the log."""
    from sleap_rtc.errors import SleapRtcError  # noqa: PLC0415 - only for a mistake

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
        return of_system(error)
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
