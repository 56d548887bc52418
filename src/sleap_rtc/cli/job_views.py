"""What ``jobs`` does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from sleap_rtc.cli.app import App
from sleap_rtc.cli.following import Followed, finish, follow, room_name, shown_error
from sleap_rtc.cli.job_documents import (
    CommandDocument,
    JobDocument,
    JobsDocument,
    JobShown,
    LogDocument,
    StageShown,
)
from sleap_rtc.cli.listing import day, when
from sleap_rtc.cli.text import Cell, Column, loss
from sleap_rtc.client.api import AsyncClient
from sleap_rtc.client.job_transfers import is_all_home
from sleap_rtc.client.outcome import failure
from sleap_rtc.client.submitted import SubmittedJob, short
from sleap_rtc.domain.ids import JobId
from sleap_rtc.domain.units import format_duration
from sleap_rtc.errors import DataError, SleapRtcError, UnknownJob
from sleap_rtc.jobs.events import Logged
from sleap_rtc.jobs.lifecycle import ALREADY, ENDED, SETTLED, JobView, StageView, replay
from sleap_rtc.jobs.spec import TrackSpec
from sleap_rtc.protocol.link import JobSummary

Action = Literal["stop", "cancel", "pause", "resume", "retry"]

ASK_S: Final = 10.0
"""Seconds that all workers together have to say how jobs stand."""

STATE_STYLES: Final = {
    "completed": "good",
    "failed": "bad",
    "cancelled": "warning",
    "interrupted": "warning",
    "unsent": "warning",
}


# ── the list ─────────────────────────────────────────────────────────────────


def list_jobs(app: App, *, worker: str | None, room: str | None, limit: int) -> None:
    """List this machine's jobs, or a worker's."""
    client = app.client()
    if worker is not None:
        entry = client.room(room)
        told = app.run(client.jobs_of(worker, room=entry.room))[:limit]
        shown = [_of_worker(one, worker, entry.name) for one in told]
    else:
        shown = _own(app, client, room, limit)
    app.out.show(JobsDocument(jobs=tuple(shown)), lambda: _table(app, shown))


def _own(app: App, client: AsyncClient, room: str | None, limit: int) -> list[JobShown]:
    wanted = None if room is None else client.room(room).room
    kept = [job for job in client.submitted.all() if wanted in (None, job.room)][:limit]
    open_ = [job for job in kept if job.state not in ENDED]
    told = app.run(_ask_workers(client, open_)) if open_ and not app.offline else {}
    if open_ and app.offline:
        app.out.warn("Offline: jobs that aren't done are shown as they were last seen.")
    shown = []
    for job in kept:
        summary = told.get(job.id)
        state = job.state if summary is None else str(summary.state)
        if state != job.state:
            _note_state(client, job, state)
        shown.append(_of_own(client, job, state, current=summary is not None))
    return shown


def _note_state(client: AsyncClient, job: SubmittedJob, state: str) -> None:
    """Keep what a worker says of a job, for whoever asks when it is away."""
    with contextlib.suppress(SleapRtcError):  # of another process, or of a disk that is full
        client.submitted.update(job.id, lambda old: msgspec.structs.replace(old, state=state))


async def _ask_workers(client: AsyncClient, jobs: Sequence[SubmittedJob]) -> dict[str, JobSummary]:
    """What the workers of these jobs say; those that can't be asked are left out."""

    async def ask(room: str, worker: str) -> Sequence[JobSummary]:
        with contextlib.suppress(SleapRtcError, TimeoutError):
            async with asyncio.timeout(ASK_S):
                return await client.jobs_of(worker, room=room)
        return ()

    places = sorted({(job.room, job.worker) for job in jobs})
    answers = await asyncio.gather(*(ask(room, worker) for room, worker in places))
    return {summary.id: summary for answer in answers for summary in answer}


def _of_own(client: AsyncClient, job: SubmittedJob, state: str, *, current: bool) -> JobShown:
    return JobShown(
        id=job.id,
        name=job.spec.name,
        kind="track" if isinstance(job.spec.work, TrackSpec) else "train",
        engine=job.spec.engine,
        state=state,  # type: ignore[arg-type] # a state that a later version knows is shown too
        current=current or state in ENDED,
        worker=job.worker,
        room=room_name(client, job.room),
        submitted_at=job.submitted_at,
        mine=True,
    )


def _of_worker(told: JobSummary, worker: str, room: str) -> JobShown:
    return JobShown(
        id=told.id,
        name=told.name,
        kind=told.kind,
        engine=told.engine,
        state=told.state,
        current=True,
        worker=worker,
        room=room,
        submitted_at=told.submitted_at,
        mine=told.mine,
    )


def _table(app: App, shown: list[JobShown]) -> None:
    if not shown:
        app.out.say("There is no job. sleap-rtc train and track --remote make some.")
        return
    if app.out.quiet:
        for one in shown:
            app.out.data(one.id)
        return
    columns = [
        Column("job", whole=True),
        Column("what"),
        Column("kind", whole=True),
        Column("engine"),
        Column("state"),
        Column("worker"),
        Column("when", whole=True),
    ]
    rows = [
        [
            Cell(short(one.id), "name"),
            one.name,
            one.kind,
            one.engine,
            _state_cell(one),
            one.worker,
            day(one.submitted_at),
        ]
        for one in shown
    ]
    app.out.table(columns, rows)


def _state_cell(job: JobShown) -> Cell:
    words = job.state if job.current else f"{job.state}, when last seen"
    return Cell(words, STATE_STYLES.get(job.state, ""))


# ── one job ──────────────────────────────────────────────────────────────────


def show_job(app: App, name: str, *, worker: str | None, room: str | None) -> None:
    """Show how far a job is."""
    client = app.client()
    job, view = app.run(_look(client, name, worker, room))
    kept = None
    with contextlib.suppress(UnknownJob, DataError):
        kept = client.submitted.get(job.id)
    error = None if kept is None else failure(kept, view)
    document = JobDocument(
        job=job,
        reason=view.reason,
        stages=tuple(_stage(stage) for stage in view.seen),
        eta_s=None if view.progress is None or view.state in SETTLED else view.progress.eta_s,
        home=() if kept is None else kept.home,
        error=shown_error(error),
    )
    app.out.show(document, lambda: _print(app, document, view))


async def _look(
    client: AsyncClient, name: str, worker: str | None, room: str | None
) -> tuple[JobShown, JobView]:
    async with client.watch(name, worker=worker, room=room) as watcher:
        told = watcher.told
        view = replay(await watcher.past())
        job = _of_worker(told.job, watcher.worker, room_name(client, told.spec.room))
        return job, view


def _print(app: App, document: JobDocument, view: JobView) -> None:
    job = document.job
    why = f": {document.reason}" if document.reason else ""
    left = "" if document.eta_s is None else format_duration(document.eta_s)
    app.out.fields(
        [
            ("Job", job.id),
            ("What", f"{job.kind} {job.name} with {job.engine}"),
            ("State", Cell(f"{job.state}{why}", STATE_STYLES.get(job.state, ""))),
            ("Pending", view.pending or ""),
            ("Worker", f"{job.worker}, in room {job.room}"),
            ("Submitted", when(job.submitted_at)),
            ("Time left", left),
            ("Home", ", ".join(document.home)),
        ]
    )
    if job.kind == "train" and document.stages:
        columns = [
            Column("run"),
            Column("epochs", right=True, whole=True),
            Column("train loss", right=True, whole=True),
            Column("val loss", right=True, whole=True),
            Column("best", right=True, whole=True),
            Column("model"),
        ]
        app.out.table(
            columns,
            [
                [
                    Cell(stage.name, "name"),
                    f"{stage.epochs_done}" + (f" of {stage.epochs}" if stage.epochs else ""),
                    loss(stage.train_loss),
                    loss(stage.val_loss),
                    loss(stage.best_val_loss),
                    stage.model or "",
                ]
                for stage in document.stages
            ],
        )
    if document.error is not None:
        app.out.say(document.error.message, "bad")
        app.out.say(document.error.hint)


def _stage(stage: StageView) -> StageShown:
    last = stage.losses[-1] if stage.losses else None
    known = [epoch.val_loss for epoch in stage.losses if epoch.val_loss is not None]
    return StageShown(
        name=stage.name,
        epochs=stage.epochs,
        epochs_done=stage.first_epoch if last is None else last.epoch + 1,
        train_loss=None if last is None else last.train_loss,
        val_loss=None if last is None else last.val_loss,
        best_val_loss=min(known, default=None),
        model=None if stage.record is None else stage.record.id,
    )


def attach_job(app: App, name: str, *, download: bool | None, overwrite: bool, yes: bool) -> None:
    """Follow a job again, and bring home what it has."""
    client = app.client()
    job = client.submitted.get(name)
    if download is None and is_all_home(job):
        app.out.say(f"Job {short(job.id)} is {job.state}, and all of it is home.")
        followed = Followed(job, JobView(state=job.state))  # type: ignore[arg-type] # in ENDED
    else:
        followed = follow(app, client, lambda c: c.attach(job.id, download=download))
    finish(app, client, followed, ask=app.out.interactive and not yes, overwrite=overwrite)


def print_log(app: App, name: str, *, follow: bool, worker: str | None, room: str | None) -> None:
    """Print what the trainer wrote.

    Args:
        app: The invocation.
        name: The job.
        follow: Whether to go on until the job is settled; not with ``--json``.
        worker: The worker that has it.
        room: The worker's room.
    """
    client = app.client()
    app.goes_on = "The job goes on."
    job, lines = app.run(_read_log(app, client, name, worker, room, follow=follow))
    app.out.show(LogDocument(job=job, lines=tuple(lines)), lambda: None)


async def _read_log(
    app: App, client: AsyncClient, name: str, worker: str | None, room: str | None, *, follow: bool
) -> tuple[JobId, list[str]]:
    async with client.watch(name, worker=worker, room=room) as watcher:
        job = watcher.told.job.id
        past = await watcher.past()
        lines = [event.body.line for event in past if isinstance(event.body, Logged)]
        for line in lines:
            app.out.data(line)
        if not follow or app.out.as_json:
            return job, lines
        view = replay(past)
        events = watcher.events()
        while view.state not in SETTLED:
            event = await anext(events)
            view = replay([event], view)
            if isinstance(event.body, Logged):
                app.out.data(event.body.line)
        return job, lines


# ── commands ─────────────────────────────────────────────────────────────────


def command_job(
    app: App, name: str, action: Action, *, worker: str | None, room: str | None
) -> None:
    """Command a job."""
    client = app.client()
    job = _full_id(app, client, name, worker, room)
    words = _done(action, short(job))
    if action == "retry":
        app.run(client.retry(job, worker=worker, room=room))
    else:
        before = app.run(client.command(job, action, worker=worker, room=room))
        if before == ALREADY.get(action):
            words = f"Job {short(job)} is {before} already; nothing was changed."
    app.out.show(CommandDocument(job=job, command=action), lambda: app.out.say(words))


def _full_id(
    app: App, client: AsyncClient, name: str, worker: str | None, room: str | None
) -> JobId:
    if worker is None:
        return client.submitted.get(name).id
    return app.run(client.find_job(name, worker=worker, room=room))


def _done(action: Action, name: str) -> str:
    follow_it = f"Follow it: sleap-rtc jobs attach {name}"
    return {
        "stop": f"Job {name} ends early and keeps its best checkpoint. {follow_it}",
        "cancel": f"Job {name} is being cancelled.",
        "pause": f"Job {name} is being paused. Go on: sleap-rtc jobs resume {name}",
        "resume": f"Job {name} goes on. {follow_it}",
        "retry": f"Job {name} is tried again. {follow_it}",
    }[action]
