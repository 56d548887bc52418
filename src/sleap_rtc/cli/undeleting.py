"""What ``restore-model`` and ``list-models --deleted`` do."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from sleap_rtc.cli.app import App
from sleap_rtc.cli.care_documents import (
    DeletedModelsDocument,
    DeletedModelShown,
    RestoredModelsDocument,
    RestoredModelShown,
)
from sleap_rtc.cli.listing import day
from sleap_rtc.cli.several import Several
from sleap_rtc.cli.text import Cell, Column, count
from sleap_rtc.domain.units import format_bytes
from sleap_rtc.library import restoring
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.restoring import Deleted, Restored

_PLACES: Final = {"trash": "in the trash", "kept": "kept", "nowhere": "nowhere"}
_SHOWN: Final = 5


def list_deleted(app: App) -> None:
    """List the models that can be brought back."""
    found = restoring.deleted(app.library())
    now = datetime.now(UTC)
    document = DeletedModelsDocument(
        models=tuple(
            DeletedModelShown(
                id=one.record.id,
                aliases=tuple(alias for alias, _ in one.aliases),
                model_type=one.record.model_type,
                files=one.where,
                size=one.size,
                deleted_at=one.record.deleted_at,
                until=one.until,
            )
            for one in found
        )
    )

    def human() -> None:
        if not found:
            app.out.say("No model was deleted in the last 30 days.")
            return
        columns = [
            Column("model", least=16, last=True),
            Column("type"),
            Column("files", whole=True),
            Column("size", right=True, whole=True),
            Column("deleted", whole=True),
            Column("kept for", right=True, whole=True),
        ]
        with app.out.paged():
            app.out.table(columns, [_row(one, now) for one in found])

    app.out.show(document, human)
    if found and not app.out.as_json:
        size = sum(one.size for one in found if one.where == "trash")
        trash = f"{format_bytes(size)} in the trash; " if size else ""
        app.out.say(f"{trash}sleap-rtc restore-model NAME brings a model back.")


def _row(one: Deleted, now: datetime) -> list[Cell | str]:
    deleted, until = one.record.deleted_at, one.until
    # Rounded up: of what was deleted just now, all 30 days are left.
    left = None if until is None else max(-((now - until) // timedelta(days=1)), 0)
    return [
        Cell(one.aliases[0][0] if one.aliases else one.record.id, "name"),
        one.record.model_type,
        # Of a model that was imported by link, the links alone are in the trash.
        _PLACES["kept" if one.where == "trash" and not one.size else one.where],
        format_bytes(one.size) if one.size else "-",
        "-" if deleted is None else day(deleted),
        "-" if left is None else count(left, "day"),
    ]


def restore(app: App, names: Sequence[str]) -> None:
    """Bring deleted models back; one that can't be doesn't keep the others.

    Args:
        app: The invocation.
        names: Their ids, or what they were called; a pair's alias is both of its models.
    """
    client = app.client()
    library = client.library
    several = Several(app)
    chosen: dict[str, Deleted] = {}
    done: list[tuple[Deleted, Restored]] = []
    for name in dict.fromkeys(names):
        with several.one(name):
            for one in restoring.find(library, name):
                if one.directory not in chosen:
                    chosen[one.directory] = one
                    done.append((one, restoring.restore(library, one, client.cache)))
                    back = count(len(done), "model is", "models are")
                    app.goes_on = f"{back} back, without a name; the others aren't."
    several.check()
    _, refused = restoring.name_again(library, [(one, restored.entry) for one, restored in done])
    models = tuple(_shown(library.get(restored.entry.id), restored) for _, restored in done)
    document = RestoredModelsDocument(
        models=models, not_named=tuple(refused), failed=several.failed
    )

    def human() -> None:
        for model in models:
            if app.out.quiet:
                app.out.data(model.alias or model.id)
                continue
            name = f"{model.id} ({model.alias})" if model.alias else model.id
            files = f" with {format_bytes(model.size)}" if model.size and not model.lacking else ""
            app.out.data(f"{name} is back{files}")

    app.out.show(document, human)
    for sentence in refused:
        app.out.warn(f"A name was not given back. {sentence}")
    for model in models:
        if model.lacking:
            app.out.warn(
                f"{model.id} lacks {', '.join(model.lacking[:_SHOWN])}; "
                f"sleap-rtc repair-model {model.id} looks for what it lacks."
            )
    several.end()


def _shown(now: Entry, restored: Restored) -> RestoredModelShown:
    return RestoredModelShown(
        id=now.id,
        alias=now.alias,
        status=now.record.status,
        size=now.record.size,
        path=str(now.directory),
        lacking=restored.lacking,
    )
