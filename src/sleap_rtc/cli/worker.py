"""``worker``: making this machine a worker of a room, and asking others what they have."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sleap_rtc.cli import options
from sleap_rtc.cli.app import App
from sleap_rtc.cli.completing import MODEL
from sleap_rtc.cli.models import filters
from sleap_rtc.cli.room import given_link
from sleap_rtc.cli.workers import hardware_pairs, worker_shown

if TYPE_CHECKING:
    from pathlib import Path

    from sleap_rtc.worker.daemon import WorkerReady

F = TypeVar("F", bound=Callable[..., Any])


def _being_one(function: F) -> F:
    """The options of a machine that becomes a worker."""
    for option in (
        options.limit_rate,
        options.transport,
        click.option(
            "--dir", "worker_dir", type=options.FOLDER, help="Where a worker keeps its files."
        ),
        click.option("--name", help="The worker's name in the room; by default this machine's."),
        click.option(
            "--room",
            metavar="ROOM",
            help="Name or id of the room; or an invite link, or - to read one from standard input.",
        ),
    ):
        function = option(function)
    return function


@click.group(invoke_without_command=True)
@_being_one
@click.pass_context
def worker(ctx: click.Context, room: str | None, name: str | None, worker_dir: Path | None) -> None:
    """Make this machine a worker of a room, or ask another one.

    Without a command it is the same as worker start: the first time it needs an
    invite with the role worker (sleap-rtc room invite --role worker), unless this
    user owns the room. It runs until Ctrl-C or SIGTERM and comes back by itself
    whenever the network does. A training that runs when it ends goes on, and is
    followed again when it is started again.
    """
    given = {"--room": room, "--name": name, "--dir": worker_dir}
    if ctx.invoked_subcommand is None:
        _work(ctx.obj, room, name, worker_dir)
        return
    early = [option for option, value in given.items() if value is not None]
    if early:
        raise click.UsageError(f"{early[0]} comes after {ctx.invoked_subcommand}.", ctx=ctx)


@worker.command()
@_being_one
@click.pass_obj
def start(app: App, room: str | None, name: str | None, worker_dir: Path | None) -> None:
    """Make this machine a worker of a room; the same as worker alone."""
    _work(app, room, name, worker_dir)


@worker.command("list-models")
@filters
@options.worker
@options.room
@click.pass_obj
def list_models(
    app: App, /, form: str, worker: str | None, room: str | None, **filters: object
) -> None:
    """List the models of a worker's library.

    With the same filters and the same table as list-models. A model whose content
    is here too is local as well.
    """
    from sleap_rtc.cli.asking import list_remote  # noqa: PLC0415 - --help stays quick

    app.out.as_json |= form == "json"
    list_remote(app, worker=worker, room=room, csv=form == "csv", **filters)


@worker.command("model-info")
@click.argument("name", type=MODEL)
@options.worker
@options.room
@click.pass_obj
def model_info(app: App, name: str, worker: str | None, room: str | None) -> None:
    """Everything about one model of a worker.

    NAME is an id, 4 or more characters of one, or an alias, as they are there.
    """
    from sleap_rtc.cli.asking import show_remote_info  # noqa: PLC0415 - --help stays quick

    show_remote_info(app, name, worker=worker, room=room)


def _work(app: App, room: str | None, name: str | None, worker_dir: Path | None) -> None:
    from sleap_rtc.cli.machine_documents import WorkerDocument  # noqa: PLC0415 - --help stays quick
    from sleap_rtc.worker.daemon import run_worker  # noqa: PLC0415

    settings = app.settings("worker", worker_dir=worker_dir)
    called = name or settings.name
    if room == "-":
        room = given_link(app, room)

    def ready(told: WorkerReady) -> None:
        shown = worker_shown(told.name, told.room.name, told.device, told.info)
        app.out.show(
            WorkerDocument(worker=shown),
            lambda: app.out.fields(
                [("Worker", f"{shown.name}, online in room {shown.room}"), *hardware_pairs(shown)]
            ),
        )
        if not shown.engines:
            app.out.warn("No engine is installed here, so no job can run: sleap-rtc engine install")
        app.out.say("Ctrl-C stops the worker; a training that runs goes on.")

    app.run(run_worker(settings, room=room, name=called, on_ready=ready))
    app.out.say("The worker has stopped. A training that runs goes on.")
