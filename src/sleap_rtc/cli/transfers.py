"""``transfers``: what is on its way from and to this machine, and what of it was cut."""

from __future__ import annotations

import click

from sleap_rtc.cli import options
from sleap_rtc.cli.app import App


@click.group(invoke_without_command=True)
@click.pass_context
def transfers(ctx: click.Context) -> None:
    """List what is on its way, and go on with what was cut.

    Without a command it is the same as transfers list: the pushes and pulls of this
    machine that aren't finished, what it stores for jobs, and data and results of its
    jobs that are still on their way. A finished transfer is remembered for 30 days,
    another one until it is done or cancelled.
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
@options.limit_rate
@options.transport
@click.pass_obj
def resume(app: App, names: tuple[str, ...]) -> None:
    """Go on with transfers that were cut; without an ID with all of them.

    By the way and from the workers that were named before. What a job brings is
    stored; the job is submitted by its own command, which has nothing left to send
    then. With the ID of a job's data it is the same as jobs attach.
    """
    from sleap_rtc.cli.transferring import resume_transfers  # noqa: PLC0415 - --help stays quick

    resume_transfers(app, names)


@transfers.command()
@click.argument("names", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All that aren't finished.")
@click.pass_obj
def cancel(app: App, /, *, names: tuple[str, ...], everything: bool) -> None:
    """Give transfers up, and remove what has arrived of them on this machine.

    What has arrived on a worker, it removes by itself after some days, and storage
    after one. A job's data is given up with the job: jobs cancel.
    """
    if not names and not everything:
        raise click.UsageError("Name a transfer, or add --all.")
    from sleap_rtc.cli.transferring import cancel_transfers  # noqa: PLC0415 - --help stays quick

    cancel_transfers(app, names)
