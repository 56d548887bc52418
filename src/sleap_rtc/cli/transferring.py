"""What ``transfers`` does."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sleap_rtc.cli.app import App
from sleap_rtc.cli.listing import when
from sleap_rtc.cli.moving_documents import (
    MovesDocument,
    ResumedDocument,
    TransferDocument,
    TransfersDocument,
    TransferShown,
)
from sleap_rtc.cli.sending import storing
from sleap_rtc.cli.shipping import end, move_again, tell
from sleap_rtc.cli.text import Cell, Column
from sleap_rtc.client.job_transfers import JobTransfer, of_jobs
from sleap_rtc.client.pulling import arrived_of, drop_arrived
from sleap_rtc.client.shipping import Shipped, Wish
from sleap_rtc.client.submitted import meant, short
from sleap_rtc.client.transfers import Transfer
from sleap_rtc.domain.ids import RoomId
from sleap_rtc.domain.units import format_bytes
from sleap_rtc.errors import Conflict, NotFound, SleapRtcError, UnknownJob, UsageError
from sleap_rtc.library.cleaning import measure

STYLES: Final = {"going": "good", "done": "", "cut": "warning", "failed": "bad", "cancelled": "dim"}
FAILED: Final = "What failed is tried again by its ID: sleap-rtc transfers resume ID."
STORED: Final = (
    "What the job brings is stored. The same train or track command submits it, with nothing of "
    "that left to send."
)


def list_transfers(app: App, *, everything: bool) -> None:
    """List them.

    Args:
        app: The invocation.
        everything: Whether finished ones, too.
    """
    client = app.client()
    found = [each for each in client.transfers.all() if everything or not each.finished]
    shown = [_shown(app, each) for each in found]
    shown += [_shown_job(app, each) for each in of_jobs(client.submitted.all())]
    shown.sort(key=lambda one: one.id, reverse=True)
    document = TransfersDocument(transfers=tuple(shown))
    app.out.show(document, lambda: _print(app, document, everything=everything))


def show_transfer(app: App, name: str) -> None:
    """Show one.

    Raises:
        NotFound: There is none.
    """
    found = _find(app, name)
    now, last = "", ""
    if isinstance(found, JobTransfer):
        one = _shown_job(app, found)
        now = f"sleap-rtc jobs show {short(found.job.id)}"
    else:
        one = _shown(app, found)
        last = f"{when(one.changed_at)}, attempt {one.attempts}"
    model = f"{one.label}, {one.model_type}, id {one.model}" if one.model_type else one.label

    def human() -> None:
        app.out.fields(
            [
                ("Job" if now else "Transfer", one.id),
                ("What", model),
                ("Way", _way(one)),
                ("By", one.transport if one.transport != "auto" else ""),
                ("State", Cell(one.state, STYLES[one.state])),
                ("Why", one.why),
                ("Size", format_bytes(one.size) if one.size else ""),
                ("Done", format_bytes(one.done) if one.done else ""),
                ("Disk here", format_bytes(one.kept) if one.kept else ""),
                ("Begun", when(one.begun_at)),
                ("Last", last),
                ("There as", one.result or ""),
                ("Goes on", one.resume),
                ("Now", now),
            ]
        )

    app.out.show(TransferDocument(transfer=one), human)


def resume_transfers(app: App, names: Sequence[str]) -> None:
    """Go on with some, or with all that were cut.

    Raises:
        Conflict: One is finished, or another process is at it.
        UsageError: Several are named, and one is a job's.
        SleapRtcError: One can't go on; the others did.
    """
    client = app.client()
    found = [_find(app, name) for name in names]
    jobs = [each for each in found if isinstance(each, JobTransfer)]
    if jobs:
        _follow(app, jobs, alone=len(found) == 1)
        return
    chosen = [each for each in found if isinstance(each, Transfer)]
    if not names:
        chosen = [each for each in client.transfers.all() if each.state == "cut"]
    for transfer in chosen:
        if transfer.finished or transfer.state == "going":
            raise Conflict(message=f"The transfer {transfer.short} is {transfer.state}.")
    done: list[tuple[MovesDocument, Shipped]] = []
    stored: list[TransferShown] = []
    errors: list[SleapRtcError] = []
    for transfer in chosen:
        try:
            if transfer.direction == "store":
                stored.append(_store(app, transfer))
            else:
                done.append(_move(app, transfer))
        except SleapRtcError as error:
            errors.append(error)
    document = ResumedDocument(moves=tuple(moves for moves, _ in done), stored=tuple(stored))

    def human() -> None:
        for moves in document.moves:
            tell(app, moves)
        for one in document.stored:
            app.out.data(f"{one.label}: is stored, {format_bytes(one.size)}")

    app.out.show(document, human)
    if stored:
        app.out.say(STORED)
    if not names:
        _say_what_waits(app, nothing=not chosen)
    for other in errors[1:]:
        app.out.warn(other.message)
    if errors:
        app.fail(errors[0])
    every = [shipped for _, shipped in done]
    end(app, Shipped(failed=tuple(itertools.chain(*(shipped.failed for shipped in every)))))


def cancel_transfers(app: App, names: Sequence[str]) -> None:
    """Give some up, or all that aren't finished.

    Raises:
        Busy: A process is at one; nothing happens to it.
        Conflict: One is finished, or a job's.
    """
    from sleap_rtc.storage.upload import forget_uploads  # noqa: PLC0415 - HTTP, for few commands

    client = app.client()
    known = client.transfers
    chosen: list[Transfer] = []
    for each in [_find(app, name) for name in names]:
        if isinstance(each, JobTransfer):
            name = short(each.job.id)
            hint = f"sleap-rtc jobs cancel {name} ends the job; nothing is sent or fetched then."
            if each.direction == "fetch":
                hint = f"It stays on {each.job.worker} until sleap-rtc jobs attach {name} is given."
            raise Conflict(message=f"{name} is a job, which isn't given up here.", hint=hint)
        chosen.append(each)
    if not names:
        chosen = [each for each in known.all() if not each.finished and each.state != "going"]
    given_up = []
    for transfer in chosen:
        if transfer.finished:
            raise Conflict(message=f"The transfer {transfer.short} is {transfer.state}.")
        with known.claimed(transfer):
            if transfer.direction == "pull":
                drop_arrived(client.library, transfer)
            if transfer.direction == "store":
                files = map(Path, transfer.files.values())
                forget_uploads(client.settings.home / "uploads", files)
            given_up.append(known.cancel(transfer))
    document = TransfersDocument(transfers=tuple(_shown(app, each) for each in given_up))

    def human() -> None:
        for one in document.transfers:
            what = "storing" if one.direction == "store" else one.direction
            app.out.data(f"{one.id[-8:]}: the {what} of {one.label} is given up")

    app.out.show(document, human)
    if not chosen:
        app.out.say("Every transfer is finished.")


def _find(app: App, name: str) -> Transfer | JobTransfer:
    """What a person means: a transfer, or what is on its way for a job.

    Raises:
        NotFound: Neither.
        AmbiguousName: Several.
    """
    client = app.client()
    try:
        return client.transfers.get(name)
    except NotFound:
        jobs = {each.job.id: each for each in of_jobs(client.submitted.all())}
        with contextlib.suppress(UnknownJob):
            return jobs[meant(name, list(jobs))]
        raise


def _move(app: App, transfer: Transfer) -> tuple[MovesDocument, Shipped]:
    wish = Wish(names=(transfer.model,), if_exists=transfer.if_exists, trust=transfer.trust)
    return move_again(
        app,
        "push" if transfer.direction == "push" else "pull",
        wish,
        workers=(transfer.worker, *transfer.beside),
        room=transfer.room,
        transport=transfer.transport,
    )


def _store(app: App, transfer: Transfer) -> TransferShown:
    from sleap_rtc.client.part_storing import store_again  # noqa: PLC0415 - rare

    client = app.client()
    app.goes_on = "What was stored is kept: the same command goes on from there."
    try:
        store_again(client, transfer, on_progress=storing(app))
    finally:
        app.out.live.clear()
    return _shown(app, client.transfers.get(transfer.id))


def _follow(app: App, jobs: Sequence[JobTransfer], *, alone: bool) -> None:
    from sleap_rtc.cli.job_views import attach_job  # noqa: PLC0415 - only for a job

    job = jobs[0].job
    if not alone:
        raise UsageError(
            message=f"{short(job.id)} is a job: go on with it by itself.",
            hint=f"sleap-rtc jobs attach {short(job.id)}",
        )
    attach_job(app, job.id, download=None, overwrite=False, yes=False)


def _say_what_waits(app: App, *, nothing: bool) -> None:
    """Of jobs, say how they go on; else that there is nothing."""
    waiting = [each for each in of_jobs(app.client().submitted.all()) if each.waits_for_us]
    for each in waiting:
        name = short(each.job.id)
        app.out.say(f"Job {name} goes on by itself: sleap-rtc jobs attach {name}")
    if nothing and not waiting:
        app.out.say("No transfer was cut.")
    if any(each.state == "failed" for each in app.client().transfers.all()):
        app.out.say(FAILED)


def _shown(app: App, transfer: Transfer) -> TransferShown:
    client = app.client()
    kept = None
    if transfer.direction == "pull" and not transfer.finished:
        kept = arrived_of(client.library, transfer)
    goes_on = transfer.state in ("cut", "failed")
    return TransferShown(
        id=transfer.id,
        direction=transfer.direction,
        model=transfer.model,
        label=transfer.label,
        model_type=transfer.model_type,
        worker=transfer.worker,
        beside=transfer.beside,
        transport=transfer.transport,
        room=_room(app, transfer.room),
        state=transfer.state,
        size=transfer.size,
        done=transfer.done,
        kept=0 if kept is None else measure(kept).size,
        begun_at=transfer.begun_at,
        changed_at=transfer.changed_at,
        attempts=transfer.attempts,
        why=transfer.why,
        result=transfer.result,
        resume=f"sleap-rtc transfers resume {transfer.short}" if goes_on else "",
    )


def _shown_job(app: App, transfer: JobTransfer) -> TransferShown:
    job = transfer.job
    why = f"the job is {job.state}, as it was last seen"
    if transfer.direction == "fetch":
        why = "the job is completed, and not all that it made is here"
    return TransferShown(
        id=job.id,
        direction=transfer.direction,
        model="",
        label=job.spec.name or short(job.id),
        model_type="",
        worker=job.worker,
        beside=(),
        transport="auto",
        room=_room(app, job.room),
        state="cut" if transfer.waits_for_us else "going",
        size=transfer.size,
        done=0,
        kept=0,
        begun_at=job.submitted_at,
        changed_at=job.submitted_at,
        attempts=1,
        why=why,
        result=None,
        resume=f"sleap-rtc jobs attach {short(job.id)}",
    )


def _room(app: App, room: RoomId) -> str:
    """What this machine calls a room; its id, if it is in it no more."""
    names: dict[RoomId, str] = {entry.room: entry.name for entry in app.client().rooms()}
    return names.get(room, room)


def _way(one: TransferShown, *, room: bool = True) -> str:
    """Where one goes, or comes from; with the room, if that has to be said."""
    if one.direction == "store":
        return f"to the storage of {one.room}" if room else "to storage"
    way = "to" if one.direction in ("push", "send") else "from"
    where = f"{way} {' and '.join((one.worker, *one.beside))}"
    return f"{where} in {one.room}" if room else where


def _print(app: App, document: TransfersDocument, *, everything: bool) -> None:
    if not document.transfers:
        app.out.say("No transfer is remembered." if everything else "No transfer is unfinished.")
        return
    one_room = len({one.room for one in document.transfers}) == 1
    app.out.table(
        [
            Column("id", whole=True),
            Column("what", least=12),
            Column("way"),
            Column("state", whole=True),
            Column("size", right=True, whole=True),
            Column("last", whole=True),
            Column("why"),
        ],
        [
            [
                one.id[-8:],
                Cell(one.label, "name"),
                _way(one, room=not one_room),
                Cell(one.state, STYLES[one.state]),
                format_bytes(one.size) if one.size else "-",
                when(one.changed_at),
                one.why,
            ]
            for one in document.transfers
        ],
    )
    if any(one.state == "cut" and one.resume for one in document.transfers):
        app.out.say("sleap-rtc transfers resume goes on with what was cut.")
    if any(one.state == "failed" for one in document.transfers):
        app.out.say(FAILED)
