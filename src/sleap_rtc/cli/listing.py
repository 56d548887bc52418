"""What ``list-models`` does, and the table that other lists of models share."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from sleap_rtc.cli.app import App
from sleap_rtc.cli.documents import Shown
from sleap_rtc.cli.model_documents import ModelsDocument, ModelShown, model_shown
from sleap_rtc.cli.text import Cell, Column, loss
from sleap_rtc.domain.models import Tier
from sleap_rtc.domain.units import format_bytes
from sleap_rtc.library.entries import MAX_LIMIT, Query
from sleap_rtc.library.layout import KNOWN_TYPES
from sleap_rtc.library.registry import Registry
from sleap_rtc.library.rows import Known

LAST_SEEN: Final = "Offline: which other machines have them is as it was last seen, and may be old."
NONE_HERE: Final = "No model here fits."
NONE_AT_ALL: Final = (
    "There are no models here yet. sleap-rtc train makes one, sleap-rtc import-model takes one in."
)
_NAMED: Final = 12
"""Values that a line names."""

STATUS_STYLES: Final = {
    "completed": "good",
    "imported": "good",
    "training": "",
    "interrupted": "warning",
    "missing": "warning",
    "failed": "bad",
}
SAFETY_STYLES: Final[dict[Tier, str]] = {
    "safe": "good",
    "scanned": "good",
    "unknown": "warning",
    "flagged": "bad",
}


def asked(filters: Mapping[str, Any]) -> dict[str, Any]:
    """What the options of a list ask for, by the fields of a query, of whichever library."""
    return {
        "statuses": filters["statuses"],
        "types": filters["types"],
        "sources": filters["sources"],
        "tags": filters["tags"],
        "where": filters["location"],
        "at": filters["at"],
        "text": filters["search"],
        "sort": filters["sort_by"],
        "reverse": filters["reverse"],
    }


def list_all(app: App, *, csv: bool, **filters: Any) -> None:
    """List models.

    Args:
        app: The invocation.
        csv: Whether as CSV.
        filters: As the command's options are called.
    """
    query = Query(**asked(filters))
    library = app.library()
    shown, more = _first(library, query, filters["limit"])
    document = ModelsDocument(models=shown, more=more)
    none = NONE_HERE if shown or library.list(Query(limit=1)).entries else NONE_AT_ALL
    show_models(app, document, shown, more=more, csv=csv, none=none)
    if app.offline and any(model.locations for model in shown):
        app.out.say(LAST_SEEN)
    if not shown and none == NONE_HERE:
        _say_what_there_is(app, library, query)


def _first(library: Registry, query: Query, limit: int) -> tuple[tuple[ModelShown, ...], int]:
    """The first models, and how many there are besides."""
    found: list[ModelShown] = []
    cursor = None
    while True:
        query = replace(query, limit=min(limit - len(found), MAX_LIMIT), cursor=cursor)
        page = library.list(query)
        found += map(model_shown, page.entries)  # a record is several times as large
        cursor = page.cursor
        if cursor is None:
            return tuple(found), 0
        if len(found) >= limit:
            # Of all: to count those after a cursor means to rank every one once more.
            return tuple(found), max(library.count(replace(query, cursor=None)) - len(found), 1)


def _say_what_there_is(app: App, library: Registry, query: Query) -> None:
    """Of a filter that nothing fits, say what would."""
    known: tuple[tuple[Known, str, Sequence[str]], ...] = (
        ("type", "type", query.types),
        ("tag", "tag", query.tags),
        ("place", "worker or room", () if query.at is None else (query.at,)),
    )
    for field, called, wanted in known:
        there = library.in_use(field, most=_NAMED + 1)
        also = KNOWN_TYPES if field == "type" else ()
        for value in wanted:
            found = library.in_use(field, value, most=1)
            if value.casefold() not in (*found, *also):
                more = ", …" if len(there) > _NAMED else ""
                names = ", ".join(there[:_NAMED]) + more or "none at all"
                app.out.say(f"No model here has the {called} {value!r}; there are: {names}.")


def show_models(
    app: App, document: Shown, models: Sequence[ModelShown], *, more: int, csv: bool, none: str
) -> None:
    """Show a list of models, of this library or another.

    Args:
        app: The invocation.
        document: For ``--json``.
        models: The models.
        more: How many there are besides.
        csv: Whether as CSV.
        none: What is said of an empty list.
    """
    if csv and not app.out.as_json:
        app.out.raw(_csv(models))
    else:
        app.out.show(document, lambda: _table(app, models, none))
    if more:
        app.out.say(f"{more:,} more; --limit N shows them, words and filters find some.")


def _table(app: App, models: Sequence[ModelShown], none: str) -> None:
    if not models:
        app.out.say(none)
        return
    # What could run something is seen on the narrowest terminal; the rest where there is room.
    flagged = any(model.safety == "flagged" for model in models)
    columns = [
        Column("model", least=16, last=True),
        Column("type", least=12),
        Column("status", least=6, spare=_alike(model.status for model in models)),
        Column("where", least=7, spare=_alike(where(model) for model in models)),
        Column("val loss", right=True, whole=True),
        Column("size", right=True, whole=True),
        Column("when", whole=True),
        Column("safety", whole=True, spare=not flagged),
    ]
    rows: list[list[Cell | str]] = [
        [
            Cell(model.alias or model.id, "name"),
            model.model_type,
            Cell(model.status, STATUS_STYLES[model.status]),
            where(model),
            loss(model.best_val_loss),
            format_bytes(model.size) if model.size else "-",
            day(model.created_at),
            Cell(model.safety, SAFETY_STYLES[model.safety]) if model.safety else "-",
        ]
        for model in models
    ]
    if not any(model.safety for model in models):  # of a worker's it isn't told
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    with app.out.paged():
        app.out.table(columns, rows)


def _alike(values: Iterable[str]) -> bool:
    """Whether all say the same, so that a narrow terminal needn't show them."""
    return len(set(values)) == 1


def _csv(shown: Sequence[ModelShown]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in msgspec.structs.fields(ModelShown)]
    writer.writerow(names)
    for one in shown:
        plain = msgspec.to_builtins(one)
        writer.writerow(
            [",".join(v) if isinstance(v, (list, tuple)) else v for v in (plain[n] for n in names)]
        )
    return text.getvalue()


def where(model: ModelShown) -> str:
    """Where a model's files are: ``local``, ``local + gpu-01``, ``room``, ``nowhere``."""
    there = [kind if kind == "room" else name for kind, name in places_of(model)]
    return " + ".join(dict.fromkeys((*(["local"] if model.local else []), *there))) or "nowhere"


def places_of(model: ModelShown) -> list[tuple[str, str]]:
    """The kinds and names of the other places that have a model."""
    return [(kind, name) for kind, _, name in (at.partition(":") for at in model.locations)]


def when(moment: datetime) -> str:
    """A time, by this machine's clock."""
    return f"{_here(moment):%Y-%m-%d %H:%M}"


def day(moment: datetime) -> str:
    """A day, or of today the time."""
    local = _here(moment)
    today = local.date() == datetime.now().astimezone().date()
    return f"today {local:%H:%M}" if today else f"{local:%Y-%m-%d}"


def _here(moment: datetime) -> datetime:
    """A time by this machine's clock; as it is at the ends of time, which others may write."""
    try:
        return moment.astimezone()
    except (OverflowError, ValueError):
        return moment
