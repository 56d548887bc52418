"""``worker``: making this machine a worker of a room."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sleap_rtc.cli import options
from sleap_rtc.cli.app import App
from sleap_rtc.cli.room import given_link
from sleap_rtc.cli.workers import hardware_pairs, worker_shown

if TYPE_CHECKING:
    from pathlib import Path

    from sleap_rtc.worker.daemon import WorkerReady


@click.command()
@click.option(
    "--room",
    metavar="ROOM",
    help="Name or id of the room; or an invite link, or - to read one from standard input.",
)
@click.option("--name", help="The worker's name in the room; by default this machine's.")
@click.option(
    "--dir",
    "worker_dir",
    type=options.FOLDER,
    help="Where a worker keeps its files.",
)
@options.limit_rate
@click.pass_obj
def worker(app: App, room: str | None, name: str | None, worker_dir: Path | None) -> None:
    """Make this machine a worker of a room.

    The first time it needs an invite with the role worker (sleap-rtc room invite
    --role worker), unless this user owns the room. It runs until Ctrl-C or SIGTERM
    and comes back by itself whenever the network does. A training that runs when it
    ends goes on, and is followed again when it is started again.
    """
    from sleap_rtc.cli.documents import WorkerDocument  # noqa: PLC0415 - --help stays quick
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
