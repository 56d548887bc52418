"""``repair-model``: mending what is broken of models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sleap_rtc.cli import options
from sleap_rtc.cli.app import App
from sleap_rtc.cli.completing import MODEL, WORKER

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.argument("names", nargs=-1, metavar="NAME...", type=MODEL)
@click.option("--all", "everything", is_flag=True, help="Every model of the library.")
@click.option(
    "--path", type=options.ANY_PATH, help="Where its files are now: a folder, or the one file."
)
@click.option(
    "--from-worker",
    "worker",
    metavar="WORKER",
    type=WORKER,
    help="Bring what is missing from there.",
)
@options.room
@options.yes
@click.pass_obj
def repair_model(
    app: App,
    /,
    *,
    names: tuple[str, ...],
    everything: bool,
    path: Path | None,
    worker: str | None,
    room: str | None,
    yes: bool,
) -> None:
    """Mend models: their records, their aliases, their files.

    Files are found by their content, where they lie nearby or where --path says, or
    are brought from a worker that has them. What is in the way goes to the trash, and
    a file of yours that the model links to is never written to. In the end
    everything is read and compared once more. What can't be mended of one model
    doesn't keep the others.
    """
    if everything == bool(names):
        raise click.UsageError("Name the models to mend, or give --all.")
    from sleap_rtc.cli.repairing import repair  # noqa: PLC0415 - --help stays quick

    repair(app, names, path=path, worker=worker, room=room, yes=yes)
