"""The commands behind the table, for click."""

from __future__ import annotations

import importlib
import os
from typing import NoReturn

import click

from sleap_rtc.cli.options import add_everywhere, everywhere
from sleap_rtc.cli.overview import OPTIONS
from sleap_rtc.cli.table import ABOUT, COMPLETE, EPILOG, ROWS, SECTIONS


class Commands(click.Group):
    """The commands, each imported when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command's name, in the order of the sections."""
        return [row.name for row in ROWS.values() if not row.hidden]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, imported."""
        row = ROWS.get(cmd_name)
        if row is None:
            return None
        module = importlib.import_module(f"sleap_rtc.cli.{row.module}")
        name = "train" if row.name == "client-train" else row.name
        command = getattr(module, name.replace("-", "_"))
        assert isinstance(command, click.Command)  # noqa: S101 - a row of the table is wrong
        if COMPLETE in os.environ:
            from sleap_rtc.cli.completing import add_proposals  # noqa: PLC0415 - only for the shell

            add_proposals(command)
        return add_everywhere(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is meant; a mistyped one is told what is near."""
        name = args[0]
        if name not in ROWS and not name.startswith("-"):
            import difflib  # noqa: PLC0415 - only for a mistake

            near = difflib.get_close_matches(name, self.list_commands(ctx), n=3, cutoff=0.5)
            meant = f" Did you mean {' or '.join(near)}?" if near else ""
            raise click.UsageError(f"There is no command {name[:80]!r}.{meant}", ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by section, from the table: nothing is imported."""
        for title, rows in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(row.name, row.help) for row in rows if not row.hidden])


@click.group(
    cls=Commands,
    help=ABOUT,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@everywhere(hidden=False)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    help=OPTIONS["--version"][1],
    callback=lambda ctx, _param, given: _version(ctx) if given else None,
)
def cli() -> None:
    """As the overview says."""


def _version(ctx: click.Context) -> NoReturn:
    from sleap_rtc import __version__  # noqa: PLC0415 - only here

    ctx.obj.out.raw(f"sleap-rtc {__version__}")
    ctx.exit()
