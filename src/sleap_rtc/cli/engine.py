"""``engine``: what trains and tracks on this machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from sleap_rtc.cli import options
from sleap_rtc.cli.app import App

if TYPE_CHECKING:
    from pathlib import Path

    from sleap_rtc.cli.machine_documents import EngineShown


@click.group()
def engine() -> None:
    """List and install what trains and tracks.

    A worker needs one; a machine that only sends jobs needs none.
    """


@engine.command("list")
@click.pass_obj
def list_(app: App) -> None:
    """List the engines, and which of them are installed here."""
    from sleap_rtc.cli.machine_documents import (  # noqa: PLC0415 - --help stays quick
        EnginesDocument,
    )
    from sleap_rtc.cli.text import Cell, Column  # noqa: PLC0415
    from sleap_rtc.engines.registry import NAMES  # noqa: PLC0415

    app.settings()
    found = [find(name) for name in NAMES]

    def human() -> None:
        columns = [Column("engine", whole=True), Column("version"), Column("python")]
        rows = [
            [
                Cell(one.name, "name"),
                one.version or Cell("not installed", "dim"),
                one.python or "",
            ]
            for one in found
        ]
        app.out.table(columns, rows)

    app.out.show(EnginesDocument(engines=tuple(found)), human)


@engine.command()
@click.argument("name", default="sleap-nn")
@click.option(
    "--index-url", metavar="URL", help="Package index for pip, one with torch for this machine."
)
@click.option(
    "--python",
    type=options.FILE,
    help="The Python to make its environment with: 3.11, 3.12 or 3.13.",
)
@click.pass_obj
def install(app: App, name: str, index_url: str | None, python: Path | None) -> None:
    """Install an engine into an environment of its own, in the user's cache.

    Says how large it is first. One that was cut short is noticed, and made again.
    """
    from sleap_rtc.cli.machine_documents import EngineDocument  # noqa: PLC0415 - --help stays quick
    from sleap_rtc.engines.registry import engine as known  # noqa: PLC0415

    app.settings()
    if known(name).name == "sleap-nn":
        _install_sleap_nn(app, index_url, python)
    else:
        known(name).find()  # comes with this program's own packages; the error says how
    found = find(name)
    app.out.show(
        EngineDocument(engine=found),
        lambda: app.out.fields(
            [("Engine", f"{found.name} {found.version}"), ("Python", found.python or "")]
        ),
    )


def _install_sleap_nn(app: App, index_url: str | None, python: Path | None) -> None:
    from sleap_rtc.domain.units import format_bytes, format_duration  # noqa: PLC0415
    from sleap_rtc.engines.sleap_nn import environment  # noqa: PLC0415 - --help stays quick
    from sleap_rtc.engines.sleap_nn.places import default_places  # noqa: PLC0415
    from sleap_rtc.errors import Offline  # noqa: PLC0415

    places = default_places()
    if places.sleap_nn_python is not None:
        environment.find(places)
        app.out.say(f"An existing environment is named: {places.sleap_nn_python}")
        return
    plan = environment.plan_installation(places, python=python)
    if not environment.is_complete(plan.directory):
        if app.offline:
            raise Offline(url="The package index")
        device = "for this machine's GPU" if plan.device == "gpu" else "for processors"
        app.out.say(
            f"Installing sleap-nn {environment.VERSION} {device}: about {format_bytes(plan.size)} "
            f"in {plan.directory}, some minutes."
        )
    app.goes_on = "The same command makes it anew."
    began = time.monotonic()

    def tell(line: str) -> None:
        took = format_duration(time.monotonic() - began)
        app.out.live.update([f"{took}  {line}"], plain=line)

    environment.install(plan, tell, index_url=index_url)


def find(name: str) -> EngineShown:
    """An engine as it is on this machine."""
    from sleap_rtc.cli.machine_documents import EngineShown  # noqa: PLC0415 - --help stays quick
    from sleap_rtc.engines.registry import engine as known  # noqa: PLC0415
    from sleap_rtc.errors import EngineMissing  # noqa: PLC0415

    try:
        found = known(name).find()
    except EngineMissing:
        return EngineShown(name=name, version=None, python=None)
    return EngineShown(name=name, version=found.version, python=str(found.python))
