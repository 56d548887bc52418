"""``sync``: what is where."""

from __future__ import annotations

import click

from sleap_rtc.cli import options
from sleap_rtc.cli.app import App


@click.command()
@click.option(
    "--worker", "workers", metavar="WORKER", multiple=True, help="Only this one; may be repeated."
)
@options.room
@click.pass_obj
def sync(app: App, workers: tuple[str, ...], room: str | None) -> None:
    """Compare this library with what workers have.

    Says of every model where else it is, and takes in records of those that only a
    worker has; their files stay there. A model that a worker has lost is no longer
    said to be there. Nothing is moved, and nothing changes on a worker.
    """
    from sleap_rtc.cli.syncing import sync_all  # noqa: PLC0415 - --help stays quick

    sync_all(app, workers=workers, room=room)
