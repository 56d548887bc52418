"""``transfers``: what this machine pushed and pulled, and what of it isn't finished."""

from __future__ import annotations

import click

from sleap_rtc.cli.app import App


@click.group(invoke_without_command=True)
@click.pass_context
def transfers(ctx: click.Context) -> None:
    """Go on with pushes and pulls that were cut.

    Without a command it is the same as transfers list: the pushes and pulls of this
    machine that aren't finished. A finished one is remembered
    for 30 days, another one until it is done or cancelled.
    """
    if ctx.invoked_subcommand is None:
        _list(ctx.obj, everything=False)


@transfers.command("list")
@click.option("--all", "everything", is_flag=True, help="Finished ones, too.")
@click.pass_obj
def list_(app: App, /, *, everything: bool) -> None:
    """List the transfers that aren't finished."""
    _list(app, everything=everything)


def _list(app: App, *, everything: bool) -> None:
    from sleap_rtc.cli.transferring import list_transfers  # noqa: PLC0415 - --help stays quick

    list_transfers(app, everything=everything)


@transfers.command()
@click.argument("name", metavar="ID")
@click.pass_obj
def show(app: App, name: str) -> None:
    """Everything about one transfer; 4 or more digits of its id are enough."""
    from sleap_rtc.cli.transferring import show_transfer  # noqa: PLC0415 - --help stays quick

    show_transfer(app, name)


@transfers.command()
@click.argument("names", nargs=-1, metavar="[ID]...")
@click.pass_obj
def resume(app: App, names: tuple[str, ...]) -> None:
    """Go on with transfers that were cut; without an ID with all of them."""
    from sleap_rtc.cli.transferring import resume_transfers  # noqa: PLC0415 - --help stays quick

    resume_transfers(app, names)


@transfers.command()
@click.argument("names", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All that aren't finished.")
@click.pass_obj
def cancel(app: App, /, *, names: tuple[str, ...], everything: bool) -> None:
    """Give transfers up, and remove what has arrived of them on this machine.

    What has arrived on a worker, it removes by itself after some days.
    """
    if not names and not everything:
        raise click.UsageError("Name a transfer, or add --all.")
    from sleap_rtc.cli.transferring import cancel_transfers  # noqa: PLC0415 - --help stays quick

    cancel_transfers(app, names)
