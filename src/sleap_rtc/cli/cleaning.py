"""What ``clean-models`` does: shows what isn't needed, kind by kind, asks, and removes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from sleap_rtc.cli.app import App
from sleap_rtc.cli.care_documents import CleanDocument, CleanedShown
from sleap_rtc.cli.progress import Progress
from sleap_rtc.cli.text import Cell, Column
from sleap_rtc.domain.units import format_bytes
from sleap_rtc.library import cleaning
from sleap_rtc.library.cleaning import Found, Kind, Removed

_TITLES: Final[dict[Kind, str]] = {
    "partial": "Transfers that were cut",
    "abandoned": "Models that were never finished",
    "trash": "Deleted more than 30 days ago",
    "records": "Records of models whose files are nowhere",
    "broken-links": "Models of which no file is where they link to (is a drive unplugged?)",
    "files": "Folders that no library knows; sleap-rtc import-model takes one in",
}
_SHOWN: Final = 20
"""Things of one kind that are shown one by one."""


def clean(app: App, *, dry_run: bool, kinds: Sequence[str], yes: bool) -> None:
    """Remove what the library doesn't need.

    Args:
        app: The invocation.
        dry_run: Whether to show it alone.
        kinds: Only these; none for all.
        yes: Whether to go on without asking.
    """
    client = app.client()
    live, now = app.out.live, datetime.now(UTC)
    found = cleaning.look(
        client.library,
        (client.settings.home / "incoming",),
        now=now,
        told=Progress(app.out, "looking at models", lambda number: f"{number:,}"),
    )
    found = [one for one in found if not kinds or one.kind in kinds]
    done: list[Removed] = []
    for kind in cleaning.KINDS:
        some = [one for one in found if one.kind == kind]
        if some:
            if not app.out.as_json:
                _show(app, kind, some)
            if not dry_run and _agreed(app, kind, some, named=kind in kinds, yes=yes):
                app.goes_on = "What was removed so far stays so: the same command shows the rest."
                done += cleaning.remove(
                    client.library,
                    some,
                    now=now,
                    on_each=lambda one: live.update([f"removing {one.path}"]),
                )
                live.clear()
    document = _document(found, done)
    app.out.show(document, lambda: None)
    _conclude(app, document, found, done, dry_run=dry_run)


def _show(app: App, kind: Kind, some: list[Found]) -> None:
    size = sum(one.size for one in some)
    freed = f", {format_bytes(size)}" if size else ""
    if not app.out.quiet:
        app.out.title(f"{_TITLES[kind]}: {len(some):,}{freed}")
    columns = [Column("what", least=24), Column("size", right=True, whole=True), Column("where")]
    app.out.table(
        columns,
        [
            [
                Cell(one.label or one.what, "name"),
                format_bytes(one.size) if one.size else "-",
                str(one.path),
            ]
            for one in some[:_SHOWN]
        ],
        name=2,
    )
    if len(some) > _SHOWN:
        app.out.say(f"{len(some) - _SHOWN:,} more.")
    if kind == "broken-links":
        app.out.say(
            "Were they moved? sleap-rtc repair-model NAME looks for one, import-model FOLDER "
            "--recursive for all in a folder."
        )


def _agreed(app: App, kind: Kind, some: list[Found], *, named: bool, yes: bool) -> bool:
    if yes:
        return named or kind not in cleaning.BY_NAME
    if not app.out.interactive:
        return False
    where = " They go to the trash for 30 days." if kind in ("files", "records") else ""
    what = "it" if len(some) == 1 else f"all {len(some):,}"
    question = f"Remove {what}?{where}"
    return app.out.ask(question, default=kind not in cleaning.BY_NAME)


def _document(found: list[Found], done: list[Removed]) -> CleanDocument:
    by_path = {(each.found.kind, each.found.path): each for each in done}
    shown = []
    for one in found:
        became = by_path.get((one.kind, one.path))
        removed = became is not None and not became.why
        shown.append(
            CleanedShown(
                kind=one.kind,
                path=str(one.path),
                size=one.size,
                what=one.what,
                removed=removed,
                trash=str(became.trash) if became is not None and became.trash else None,
                why=became.why if became is not None else "",
            )
        )
    freed = sum(one.size for one in shown if one.removed and one.trash is None)
    return CleanDocument(found=tuple(shown), freed=freed)


def _conclude(
    app: App, document: CleanDocument, found: list[Found], done: list[Removed], *, dry_run: bool
) -> None:
    for each in done:
        if each.why:
            app.out.warn(f"{each.found.path} stays: {each.why}")
    removed = [one for one in document.found if one.removed]
    if not found:
        app.out.say("Nothing to clean.")
    elif dry_run:
        size = format_bytes(sum(one.size for one in found))
        app.out.say(f"{len(found):,} found, {size}. Nothing was removed.")
    elif removed:
        trashed = sum(one.trash is not None for one in removed)
        kept = f"; {trashed:,} of them are in the trash for 30 days" if trashed else ""
        app.out.say(f"Removed {len(removed):,}, {format_bytes(document.freed)} freed{kept}.")
    elif not app.out.interactive:
        app.out.say("Nothing was removed: add --yes, and --kind for what is removed by name alone.")
    else:
        app.out.say("Nothing was removed.")
