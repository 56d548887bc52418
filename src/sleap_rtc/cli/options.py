"""Options that several commands have, and those that every command has."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from sleap_rtc.cli.overview import OPTIONS

if TYPE_CHECKING:
    from sleap_rtc.cli.app import App

F = TypeVar("F", bound=Callable[..., Any])
LEVELS: Final = ("debug", "info", "warning", "error")
TRANSPORTS: Final = ("auto", "webrtc", "s3", "direct", "local")
MAX_SECRET: Final = 8_192
"""Characters of a code or a link that are read."""

# The texts of settings' flags are those of `sleap_rtc.config`, which is not imported here: it
# costs a third of the time that --help may take. A test compares them.


class PathType(click.Path):
    """A path; ``pathlib`` is imported when there is one, which --help hasn't got."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """Check it."""
        if not os.fspath(value):  # a variable of the shell that is not set; pathlib takes it for .
            self.fail("The path is empty.", param, ctx)
        from pathlib import Path  # noqa: PLC0415 - see above

        return Path(os.fsdecode(super().convert(value, param, ctx)))


FILE: Final = PathType(dir_okay=False)
FOLDER: Final = PathType(file_okay=False)
ANY_PATH: Final = PathType()


def _app(ctx: click.Context) -> App:
    app: App = ctx.obj
    return app


def _set_json(ctx: click.Context, _param: click.Parameter, given: bool) -> None:
    _app(ctx).out.as_json |= given


def _set_quiet(ctx: click.Context, _param: click.Parameter, given: bool) -> None:
    _app(ctx).out.quiet |= given


def _set_debug(ctx: click.Context, _param: click.Parameter, given: bool) -> None:
    _app(ctx).debug |= given


def _set_flag(ctx: click.Context, param: click.Parameter, given: object) -> None:
    if given is not None and param.name is not None:
        _app(ctx).flags[param.name] = given


def _set_benchmark(ctx: click.Context, _param: click.Parameter, given: bool) -> None:
    if given:
        from sleap_rtc.cli.latencies import tell  # noqa: PLC0415 - rare

        ctx.call_on_close(lambda: tell(_app(ctx)))


def _everywhere(*, hidden: bool) -> list[click.Option]:
    return [
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            callback=_set_json,
            help=OPTIONS["--json"][1],
        ),
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            callback=_set_quiet,
            help=OPTIONS["--quiet"][1],
        ),
        click.Option(
            ["--home"],
            type=FOLDER,
            expose_value=False,
            callback=_set_flag,
            hidden=hidden,
            help=OPTIONS["--home"][1],
        ),
        click.Option(
            ["--log-level"],
            type=click.Choice(LEVELS),
            expose_value=False,
            callback=_set_flag,
            hidden=hidden,
            help=OPTIONS["--log-level"][1],
        ),
        click.Option(
            ["--insecure"],
            is_flag=True,
            default=None,
            expose_value=False,
            callback=_set_flag,
            hidden=hidden,
            help=OPTIONS["--insecure"][1],
        ),
        click.Option(
            ["--offline"],
            is_flag=True,
            default=None,
            expose_value=False,
            callback=_set_flag,
            hidden=hidden,
            help=OPTIONS["--offline"][1],
        ),
        click.Option(
            ["--benchmark"],
            is_flag=True,
            expose_value=False,
            callback=_set_benchmark,
            hidden=hidden,
            help=OPTIONS["--benchmark"][1],
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            expose_value=False,
            callback=_set_debug,
            hidden=hidden,
            help=OPTIONS["--debug"][1],
        ),
    ]


def everywhere(*, hidden: bool) -> Callable[[F], F]:
    """The options that every command has; ``hidden`` leaves the rare ones out of the help."""

    def decorate(function: F) -> F:
        params = getattr(function, "__click_params__", [])
        # Click reads them from the last to the first.
        function.__click_params__ = [*params, *reversed(_everywhere(hidden=hidden))]  # type: ignore[attr-defined]
        return function

    return decorate


def add_everywhere(command: click.Command) -> click.Command:
    """Give a command, and the commands below it, the options that every command has."""
    known = {name for param in command.params for name in param.opts}
    command.params += [o for o in _everywhere(hidden=True) if not known & set(o.opts)]
    command.context_settings.setdefault("help_option_names", ["-h", "--help"])
    if isinstance(command, click.Group):
        for below in command.commands.values():
            add_everywhere(below)
    return command


limit_rate = click.option(
    "--limit-rate",
    metavar="RATE",
    expose_value=False,
    callback=_set_flag,
    help="Bytes per second of transfers, as 10MB.",
)
transport = click.option(
    "--transport",
    type=click.Choice(TRANSPORTS),
    metavar="WAY",
    expose_value=False,
    callback=_set_flag,
    help="Way that content takes first: auto, webrtc, s3, direct or local.",
)
explain = click.option(
    "--explain", is_flag=True, help="Say which ways content would take and why; send nothing."
)
room = click.option("--room", metavar="ROOM", help="Name or id of the room; needed if in several.")
worker = click.option(
    "--worker", metavar="WORKER", help="Name of the worker; needed if several are online."
)
yes = click.option("-y", "--yes", is_flag=True, help="Go on without asking.")


def read_secret(app: App, source: str) -> str:
    """A secret's text: from a file, or from standard input with ``-``.

    Raises:
        UsageError: It is empty.
    """
    text = app.out.stdin.read(MAX_SECRET) if source == "-" else _read_file(source)
    if not text.strip():
        from sleap_rtc.errors import UsageError  # noqa: PLC0415 - only for a mistake

        where = "Standard input" if source == "-" else source
        raise UsageError(
            message=f"{where} is empty: the link or the code is expected there.",
            hint="Copy the whole of it, from its first character to its last.",
        )
    return text.strip()


def _read_file(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - see PathType
        return file.read(MAX_SECRET)
