"""The commands over this machine's library: listing, showing, comparing, naming, deleting."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import click

from sleap_rtc.cli.app import App
from sleap_rtc.cli.completing import MODEL
from sleap_rtc.cli.options import yes

F = TypeVar("F", bound=Callable[..., object])

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
SORTS = ("date", "name", "type", "loss", "size", "rank")
MAX_LIMIT = 100_000

SEARCH_HELP = """
\b
Words are looked for in names, aliases, types, tags, notes, backbones and
configurations; the last one may be a beginning. Fields:
  fly "left eye"      words, and words side by side
  tag:flies,mice      one of these; also name, alias, type, status, source,
                      at, location, notes, family, config, id, parent
  loss<0.01           also epochs>=50, size>100MB, created>2026-01
  -tag:old -broken    none of these (after a word, or with --search)
Between quotation marks ' ' the shell leaves < and > alone.
"""

_FILTERS = (
    click.argument("words", nargs=-1, metavar="[SEARCH]..."),
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
    click.option("--search", default="", metavar="SEARCH", help="The same as SEARCH."),
    click.option(
        "--sort-by",
        type=click.Choice(SORTS),
        help="By date unless given; with words by rank: what fits best first.",
    ),
    click.option("--reverse", is_flag=True, help="The other way round."),
    click.option("--limit", type=click.IntRange(1, MAX_LIMIT), default=50, show_default=True),
    click.option("--format", "form", type=click.Choice(("table", "json", "csv")), default="table"),
)


def filters(function: F) -> F:
    """The options of a list of models, of whichever library.

    The function gets what was typed as ``search``, and always a ``sort_by``.
    """

    @functools.wraps(function)
    def with_search(
        *args: object,
        words: tuple[str, ...],
        search: str,
        sort_by: str | None,
        **others: object,
    ) -> object:
        search = " ".join(each for each in (*words, search) if each)
        if sort_by is None:
            from sleap_rtc.library.search.parser import parse  # noqa: PLC0415 - --help stays quick

            sort_by = "rank" if parse(search).has_words else "date"
        return function(*args, search=search, sort_by=sort_by, **others)

    decorated = with_search
    for option in reversed(_FILTERS):
        decorated = option(decorated)
    return decorated  # type: ignore[return-value]


@click.command(epilog=SEARCH_HELP)
@filters
@click.option("--deleted", is_flag=True, help="Those that restore-model can bring back.")
@click.pass_obj
def list_models(app: App, /, form: str, deleted: bool, **filters: object) -> None:
    """List the models of this machine's library."""
    app.out.as_json |= form == "json"
    if deleted:
        from sleap_rtc.cli.undeleting import list_deleted  # noqa: PLC0415 - --help stays quick

        asked = ("search", "statuses", "types", "sources", "tags", "at", "reverse")
        narrowed = any(filters[name] for name in asked) or filters["location"] != "any"
        if narrowed or form == "csv":
            why = "--deleted lists every deleted model: it takes no search, no filter and no CSV."
            raise click.UsageError(why)
        list_deleted(app)
        return
    from sleap_rtc.cli.listing import list_all  # noqa: PLC0415 - --help stays quick

    list_all(app, csv=form == "csv", **filters)


@click.command()
@click.argument("name", type=MODEL)
@click.option("--verify", is_flag=True, help="Read the files, and compare their content.")
@click.option(
    "--sha256", is_flag=True, help="Show the files' SHA-256; what isn't known is computed and kept."
)
@click.pass_obj
def model_info(app: App, name: str, verify: bool, sha256: bool) -> None:
    """Everything about one model.

    NAME is an id, 4 or more characters of one, an alias, or a path. The model's
    files are compared with what its record lists, its losses are drawn, and the
    commands that use it are printed, to be pasted.
    """
    from sleap_rtc.cli.describing import show_info  # noqa: PLC0415 - --help stays quick

    show_info(app, name, verify=verify, sha256=sha256)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME NAME...", type=MODEL)
@click.option("--all", "everything", is_flag=True, help="Also what is the same.")
@click.option("--format", "form", type=click.Choice(("table", "json", "csv")), default="table")
@click.pass_obj
def compare_models(app: App, names: tuple[str, ...], everything: bool, form: str) -> None:
    """Show models side by side, and which is best.

    Each NAME is an id, 4 or more characters of one, an alias, or a path; a pair's
    alias is both of its models. Their validation losses are drawn together.
    """
    from sleap_rtc.cli.comparing import compare  # noqa: PLC0415 - --help stays quick

    app.out.as_json |= form == "json"
    compare(app, names, everything=everything, csv=form == "csv")


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="MODEL [MODEL] ALIAS", type=MODEL)
@click.option("--force", is_flag=True, help="Take the alias from another model, without asking.")
@click.option("--remove", is_flag=True, help="Remove the alias, or the alias of MODEL.")
@yes
@click.pass_obj
def tag_model(app: App, names: tuple[str, ...], force: bool, remove: bool, yes: bool) -> None:
    """Give a model an alias, or take it away.

    Two models of a top-down pair, the centroid model first, can share one alias.
    When another model has the alias, you are asked; --force and --yes don't ask.
    """
    from sleap_rtc.cli import editing  # noqa: PLC0415 - --help stays quick

    if not remove:
        if len(names) < 2:
            raise click.UsageError("Missing argument 'ALIAS'.")
        editing.tag(app, names, take=force or yes)
    elif len(names) == 1:
        editing.untag(app, names[0])
    else:
        raise click.UsageError("--remove takes one alias, or one model.")


@click.command()
@click.pass_obj
def list_aliases(app: App) -> None:
    """List the aliases, and the models that they name."""
    from sleap_rtc.cli.editing import aliases  # noqa: PLC0415 - --help stays quick

    aliases(app)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", type=MODEL)
@click.option("--notes", metavar="TEXT", help="In place of its notes; '' removes them.")
@click.option("--tags", metavar="A,B", help="In place of its tags; '' removes them.")
@click.option("--add-tag", "add", multiple=True, metavar="TAG", help="Once more.")
@click.option("--remove-tag", "remove", multiple=True, metavar="TAG", help="No more.")
@click.pass_obj
def update_model(
    app: App,
    /,
    names: tuple[str, ...],
    *,
    notes: str | None,
    tags: str | None,
    add: tuple[str, ...],
    remove: tuple[str, ...],
) -> None:
    """Change the notes and tags of models.

    Each NAME is an id, 4 or more characters of one, an alias, or a path; a pair's
    alias is both of its models. What fails of one doesn't keep the others.
    """
    from sleap_rtc.cli.editing import update  # noqa: PLC0415 - --help stays quick

    update(app, names, notes=notes, tags=tags, add=add, remove=remove)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", type=MODEL)
@click.option("--files", is_flag=True, help="Move its files to the trash, for 30 days.")
@yes
@click.pass_obj
def delete_model(app: App, names: tuple[str, ...], files: bool, yes: bool) -> None:
    """Delete models; files stay unless --files is given.

    What it is, who uses it and how large it is are shown first. A record is kept
    for 30 days, and so are files in the trash: until then sleap-rtc restore-model
    brings a model back. Files of models that are imported by link are never touched.
    """
    from sleap_rtc.cli.editing import delete  # noqa: PLC0415 - --help stays quick

    delete(app, names, files=files, yes=yes)
