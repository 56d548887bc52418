"""``sleap-rtc demo``: the main job on this machine, from the labels to the predictions."""

from __future__ import annotations

from pathlib import Path

import click


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
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Where everything is kept; a second run goes on with it.",
)
def demo(engine: str, directory: Path) -> None:
    """Train, bring home, and track: the whole way on one machine.

    A server, a worker and a client run as separate programs, joined by a real
    WebRTC connection, on a data set that is made for it.
    """
    from sleap_rtc.demo.launch import run  # noqa: PLC0415

    run(directory.absolute(), engine=engine, say=lambda line: click.echo(line, err=True))
