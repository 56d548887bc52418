"""``list-models`` and ``model-info``: what is in this machine's library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from sleap_rtc.cli.app import App

F = TypeVar("F", bound=Callable[..., Any])

STATUSES = ("training", "completed", "interrupted", "failed", "imported", "missing")
SOURCES = (
    "worker-training",
    "worker-pull",
    "client-upload",
    "local-import",
    "room-pull",
    "hub",
    "wandb",
)
PLACES = ("any", "local", "worker", "room", "both")
SORTS = ("date", "name", "type", "loss", "size")


_FILTERS = (
    click.option("--status", "statuses", type=click.Choice(STATUSES), multiple=True),
    click.option(
        "--type", "types", multiple=True, metavar="TYPE", help="As centroid; may be repeated."
    ),
    click.option(
        "--location", type=click.Choice(PLACES), default="any", help="Where the files are."
    ),
    click.option("--at", metavar="NAME", help="Name of a worker or room that has them."),
    click.option("--tag", "tags", multiple=True, help="All of these tags."),
    click.option("--source", "sources", type=click.Choice(SOURCES), multiple=True),
    click.option(
        "--search", default="", metavar="WORDS", help="In name, alias, type, tags and notes."
    ),
    click.option("--sort-by", type=click.Choice(SORTS), default="date", show_default=True),
    click.option("--reverse", is_flag=True, help="The other way round."),
    click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True),
    click.option("--format", "form", type=click.Choice(("table", "json", "csv")), default="table"),
)


def filters(function: F) -> F:
    """The options of a list of models, of whichever library."""
    for option in reversed(_FILTERS):
        function = option(function)
    return function


@click.command()
@filters
@click.pass_obj
def list_models(app: App, /, form: str, **filters: object) -> None:
    """List the models of this machine's library."""
    from sleap_rtc.cli.listing import list_all  # noqa: PLC0415 - --help stays quick

    app.out.as_json |= form == "json"
    list_all(app, csv=form == "csv", **filters)


@click.command()
@click.argument("name")
@click.pass_obj
def model_info(app: App, name: str) -> None:
    """Everything about one model.

    NAME is an id, 4 or more characters of one, an alias, or a path. The model's
    files are read and compared with what its record lists, and the commands that
    use it are printed, to be pasted.
    """
    from sleap_rtc.cli.listing import show_info  # noqa: PLC0415 - --help stays quick

    show_info(app, name)
