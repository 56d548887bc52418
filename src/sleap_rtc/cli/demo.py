"""``sleap-rtc demo``: the main job on this machine, from the labels to the predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sleap_rtc.cli.app import App
from sleap_rtc.cli.options import FOLDER

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.option(
    "--engine",
    type=click.Choice(["sleap-nn", "tiny"]),
    default="sleap-nn",
    show_default=True,
    help="The trainer. tiny needs no large installation and takes a minute or two.",
)
@click.option(
    "--dir",
    "directory",
    type=FOLDER,
    default="demo",
    show_default=True,
    help="Where everything is kept; a second run goes on with it.",
)
@click.pass_obj
def demo(app: App, engine: str, directory: Path) -> None:
    """Train, bring home, and track: the whole way on one machine.

    A server, a worker and a client run as separate programs, joined by a real
    WebRTC connection, on a data set that is made for it.
    """
    from sleap_rtc.demo.launch import run  # noqa: PLC0415

    run(directory.absolute(), engine=engine, say=app.out.say)
