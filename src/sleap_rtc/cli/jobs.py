"""``jobs``: listing, following and commanding jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from sleap_rtc.cli import options
from sleap_rtc.cli.app import App

if TYPE_CHECKING:
    from sleap_rtc.cli.job_views import Action

_worker = click.option(
    "--worker", metavar="NAME", help="The worker that has it, for jobs of others."
)


@click.group(invoke_without_command=True)
@click.option("--worker", metavar="NAME", help="Everybody's jobs on this worker.")
@options.room
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
@click.pass_context
def jobs(ctx: click.Context, worker: str | None, room: str | None, limit: int) -> None:
    """List, follow and command jobs.

    Without a command below it lists those that this machine submitted, newest first.
    A job is named by its id, or by the last 4 or more characters of it.
    """
    if ctx.invoked_subcommand is None:
        from sleap_rtc.cli.job_views import list_jobs  # noqa: PLC0415 - --help stays quick

        list_jobs(ctx.obj, worker=worker, room=room, limit=limit)


@jobs.command()
@click.argument("job")
@_worker
@options.room
@click.pass_obj
def show(app: App, job: str, worker: str | None, room: str | None) -> None:
    """Show how far a job is, as its worker says."""
    from sleap_rtc.cli.job_views import show_job  # noqa: PLC0415 - --help stays quick

    show_job(app, job, worker=worker, room=room)


@jobs.command()
@click.argument("job")
@click.option(
    "--download/--no-download", default=None, help="Whether the models come home; as before."
)
@click.option("--overwrite", is_flag=True, help="Replace predictions that are there already.")
@options.limit_rate
@options.transport
@options.yes
@click.pass_obj
def attach(app: App, job: str, download: bool | None, overwrite: bool, yes: bool) -> None:
    """Follow a job of this machine again, and bring home what it has made."""
    from sleap_rtc.cli.job_views import attach_job  # noqa: PLC0415 - --help stays quick

    attach_job(app, job, download=download, overwrite=overwrite, yes=yes)


@jobs.command()
@click.argument("job")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is still to come.")
@_worker
@options.room
@click.pass_obj
def logs(app: App, job: str, follow: bool, worker: str | None, room: str | None) -> None:
    """Print what the trainer wrote."""
    from sleap_rtc.cli.job_views import print_log  # noqa: PLC0415 - --help stays quick

    print_log(app, job, follow=follow, worker=worker, room=room)


def _add(action: Action, text: str) -> None:
    def run(app: App, job: str, worker: str | None, room: str | None) -> None:
        from sleap_rtc.cli.job_views import command_job  # noqa: PLC0415 - --help stays quick

        command_job(app, job, action, worker=worker, room=room)

    decorate: list[Callable[[Callable[..., None]], Callable[..., None]]] = [
        click.pass_obj,
        options.room,
        _worker,
        click.argument("job"),
    ]
    function: Callable[..., None] = run
    for each in decorate:
        function = each(function)
    jobs.command(action, help=text)(function)


_add("stop", "End the stage that trains early; its best checkpoint becomes the model.")
_add("cancel", "End the whole job; what was trained before stays.")
_add("pause", "Freeze a job that runs; it keeps its memory.")
_add("resume", "Let a paused job go on.")
_add("retry", "Let an interrupted job go on from its checkpoint.")
