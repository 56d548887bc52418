"""What ``sync`` does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from sleap_rtc.auth.store import RoomEntry
from sleap_rtc.cli.app import App
from sleap_rtc.cli.care_documents import (
    SyncDocument,
    SyncedShown,
    SyncStepShown,
    UnreachedShown,
)
from sleap_rtc.cli.text import Cell, Column
from sleap_rtc.client.asking import open_library
from sleap_rtc.client.online import Online
from sleap_rtc.client.syncing import Synced, known_workers, sync_worker
from sleap_rtc.errors import SleapRtcError

STYLES: Final = {
    "updated": "",
    "added": "good",
    "missing": "warning",
    "deleted": "dim",
    "refused": "bad",
}


def sync_all(app: App, *, workers: Sequence[str], room: str | None) -> None:
    """Compare with workers.

    Args:
        app: The invocation.
        workers: Their names; by default those that are online, and those that are said to have
            a model and aren't.
        room: The room; by default the only one.

    Raises:
        SleapRtcError: None of them could be asked.
    """
    client = app.client()
    entry = client.room(room)
    document, errors = app.run(_sync(app, entry, workers))
    app.out.show(document, lambda: _print(app, document))
    final = errors[0] if errors and not document.workers else None
    for unreached in document.unreached:
        if final is not None and unreached.why == final.message:
            continue
        seen = unreached.last_seen
        when = f" A model was last seen there {seen.astimezone():%Y-%m-%d %H:%M}." if seen else ""
        app.out.warn(f"{unreached.worker} was not asked: {unreached.why}{when}")
    if final is not None:
        app.fail(final)
    if not document.workers and not document.unreached:
        app.out.say(f"No worker is online in {entry.name}.")


async def _sync(
    app: App, room: RoomEntry, workers: Sequence[str]
) -> tuple[SyncDocument, list[SleapRtcError]]:
    client = app.client()
    known = known_workers(client.library)
    done: list[SyncedShown] = []
    unreached: list[UnreachedShown] = []
    errors: list[SleapRtcError] = []
    async with client.online(room) as online:
        there = [presence.name for presence in online.workers(room.room)]
        for name in dict.fromkeys(workers or (*there, *sorted(known))):
            try:
                if not workers and name not in there:
                    unreached.append(_unreached(name, "it is not online.", known.get(name)))
                    continue
                app.goes_on = "What was compared so far is noted: the same command goes on."
                done.append(_shown(await _one(app, online, room, name)))
            except SleapRtcError as error:
                errors.append(error)
                unreached.append(_unreached(name, error.message, known.get(name)))
            finally:
                app.out.live.clear()
    found = SyncDocument(room=room.name, workers=tuple(done), unreached=tuple(unreached))
    return found, errors


async def _one(app: App, online: Online, room: RoomEntry, name: str) -> Synced:
    app.out.live.update([f"asking {name}"])
    async with open_library(online, room, name) as library:
        return await sync_worker(
            library,
            app.library(),
            now=datetime.now(UTC),
            on_progress=lambda n, of: app.out.live.update([f"comparing with {name}: {n} of {of}"]),
        )


def _unreached(name: str, why: str, seen: datetime | None) -> UnreachedShown:
    return UnreachedShown(worker=name, why=why, last_seen=seen)


def _shown(synced: Synced) -> SyncedShown:
    steps = tuple(
        SyncStepShown(
            change=step.kind,
            id=step.model,
            label=step.label,
            model_type=step.model_type,
            why=step.why,
        )
        for step in synced.steps
    )
    return SyncedShown(worker=synced.worker, same=synced.same, more=synced.more, steps=steps)


def _print(app: App, document: SyncDocument) -> None:
    rows: list[list[Cell | str]] = [
        [
            Cell(step.label, "name"),
            step.model_type,
            Cell(step.change, STYLES[step.change]),
            one.worker,
            step.why,
        ]
        for one in document.workers
        for step in one.steps
    ]
    columns = [Column("model", least=16), Column("type"), Column("change", whole=True)]
    if rows:
        app.out.table([*columns, Column("worker"), Column("what")], rows)
    for one in document.workers:
        counts = [
            f"{number} {kind}"
            for kind in STYLES
            if (number := sum(step.change == kind for step in one.steps))
        ]
        app.out.say(f"{one.worker}: {', '.join([*counts, f'{one.same} as they were'])}.")
        if one.more:
            app.out.warn(
                f"{one.worker} has {one.more:,} more models than were looked at, so none of them "
                "is called missing."
            )
