"""Following a job on the screen, and what is said and asked when it has ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

import msgspec

from sleap_rtc.cli.app import App
from sleap_rtc.cli.documents import ErrorShown
from sleap_rtc.cli.job_documents import (
    PredictionsShown,
    TrackDocument,
    TrainDocument,
    UsedModelShown,
)
from sleap_rtc.cli.model_documents import ModelShown, model_shown
from sleap_rtc.cli.screen import JobScreen
from sleap_rtc.cli.text import Cell, Column, loss
from sleap_rtc.client.api import AsyncClient
from sleap_rtc.client.following import Follower
from sleap_rtc.client.outcome import failure
from sleap_rtc.client.submitted import SubmittedJob, short
from sleap_rtc.client.tracking import deliver
from sleap_rtc.domain.aliases import check
from sleap_rtc.errors import (
    AliasTaken,
    InvalidName,
    SleapRtcError,
    UnknownModel,
    UnknownRoom,
)
from sleap_rtc.jobs.lifecycle import ENDED, SETTLED, JobView
from sleap_rtc.jobs.spec import TrackSpec
from sleap_rtc.library.entries import Entry

REDRAW_S: Final = 0.5
"""Seconds after which lines are drawn anew though nothing happened."""

Opening = Callable[[AsyncClient], AbstractAsyncContextManager[Follower]]


class Followed(msgspec.Struct, frozen=True):
    """A job as it was when it was last looked at."""

    job: SubmittedJob
    view: JobView


def follow(
    app: App, client: AsyncClient, opening: Opening, *, until_sent: bool = False
) -> Followed:
    """Follow a job until it is settled and everything is home.

    Args:
        app: The invocation.
        client: The API.
        opening: Opens the follower.
        until_sent: Whether to let go as soon as the worker has all it needs.

    Raises:
        SleapRtcError: It can't be followed.
    """
    followed: Followed = app.run(_follow(app, client, opening, until_sent))
    return followed


async def _follow(app: App, client: AsyncClient, opening: Opening, until_sent: bool) -> Followed:
    async with opening(client) as follower:
        job = follower.job
        kind = "track" if isinstance(job.spec.work, TrackSpec) else "train"
        screen = JobScreen(job.worker, "track" if kind == "track" else "train")
        app.goes_on = _goes_on(job, follower.view)
        updates = follower.updates()
        async with _redrawn(app, screen):
            async for update in updates:
                # What happened before this command began is told by the state it led to.
                past = not follower.caught_up
                for line in screen.take(update, follower.view):
                    if not past and not (line.redrawn and app.out.live.in_place):
                        app.out.live.keep(line.text, line.style)
                app.out.live.update(screen.lines(), plain="" if past else screen.plain())
                app.goes_on = _goes_on(follower.job, follower.view)
                if until_sent and _is_sent(follower.job, follower.view):
                    break
        return Followed(follower.job, follower.view)


@contextlib.asynccontextmanager
async def _redrawn(app: App, screen: JobScreen) -> AsyncIterator[None]:
    """Lines are drawn also while nothing happens, as after a log line took them away."""

    async def redraw() -> None:
        while True:
            app.out.live.update(screen.lines())
            await asyncio.sleep(REDRAW_S)

    drawing = asyncio.create_task(redraw())
    try:
        yield
    finally:
        drawing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await drawing
        app.out.live.clear()


def _is_sent(job: SubmittedJob, view: JobView) -> bool:
    if job.spec.waits_for_nobody:
        return view.state is not None
    return view.state in ("running", "paused", "finishing", *SETTLED)


def _goes_on(job: SubmittedJob, view: JobView) -> str:
    """What a person who types Ctrl-C now is told."""
    name = short(job.id)
    attach = f"sleap-rtc jobs attach {name}"
    if view.state is None:
        return f"The job may not have reached {job.worker}; send it with: {attach}"
    stored = job.spec.waits_for_nobody
    if view.state in ("queued", "assigned", "preparing") and not stored:
        return f"{job.worker} waits for the job's data; go on sending it with: {attach}"
    if view.state in SETTLED:
        return f"What is not home yet stays on {job.worker}; bring it with: {attach}"
    return (
        f"The job goes on on {job.worker}. Follow it: {attach}; "
        f"end it: sleap-rtc jobs cancel {name}"
    )


# ── the end ──────────────────────────────────────────────────────────────────


def finish(
    app: App, client: AsyncClient, followed: Followed, *, ask: bool, overwrite: bool = False
) -> None:
    """Show what became of a job, having asked what is still to be asked; ends with its exit code.

    Args:
        app: The invocation.
        client: The API.
        followed: The job.
        ask: Whether the person is asked about download and alias.
        overwrite: Whether predictions may take the place of others.
    """
    app.goes_on = "The job is done; nothing is lost."
    if isinstance(followed.job.spec.work, TrackSpec):
        _finish_tracking(app, client, followed, overwrite=overwrite)
    else:
        _finish_training(app, client, followed, ask=ask)


def _finish_training(app: App, client: AsyncClient, followed: Followed, *, ask: bool) -> None:
    view = followed.view
    if view.state == "completed" and ask:
        followed = _ask_for_download(app, client, followed)
        _ask_for_alias(app, client, followed)
    job = followed.job
    error = failure(job, view)
    models = _models(client, job)
    document = TrainDocument(
        job=job.id,
        state=view.state or "unsent",
        reason=view.reason,
        worker=job.worker,
        room=room_name(client, job.room),
        models=tuple(model_shown(entry) for entry in models),
        error=shown_error(error),
    )
    app.out.show(document, lambda: _print_models(app, models))
    if error is not None:
        app.fail(error)
    if view.state not in ENDED:
        app.out.say(f"The job is {view.state}. Follow it: sleap-rtc jobs attach {short(job.id)}")
    else:
        _say_next(app, job, [model_shown(entry) for entry in models])


def _ask_for_download(app: App, client: AsyncClient, followed: Followed) -> Followed:
    job = followed.job
    if job.download or not app.out.ask("Download the trained model?", default=True):
        return followed
    return follow(app, client, lambda c: c.attach(job.id, download=True))


def _ask_for_alias(app: App, client: AsyncClient, followed: Followed) -> None:
    models = [followed.job.models[key] for key in sorted(followed.job.models, key=int)]
    if followed.job.alias is not None or not models or len(models) > 2:
        return
    if not app.out.ask("Give it a friendly name?", default=False):
        return
    while name := app.out.prompt("Name (empty for none):"):
        try:
            client.library.set_alias(check(name), *models)
        except (InvalidName, AliasTaken) as error:
            app.out.warn(error.message)
        else:
            app.out.say(f"It is called {name}.")
            return


def _models(client: AsyncClient, job: SubmittedJob) -> list[Entry]:
    """The job's models as this library has them now, without those that were deleted since."""
    found = []
    for stage in sorted(job.models, key=int):
        with contextlib.suppress(UnknownModel):
            found.append(client.library.get(job.models[stage]))
    return found


def _print_models(app: App, models: list[Entry]) -> None:
    columns = [
        Column("model", least=20),
        Column("id", whole=True),
        Column("type"),
        Column("val loss", right=True, whole=True),
        Column("epochs", right=True, whole=True),
        Column("folder"),
    ]
    rows: list[list[Cell | str]] = []
    for one in (model_shown(entry) for entry in models):
        epochs = "-" if one.epochs is None else str(one.epochs)
        place = one.path if one.local else Cell("not here", "warning")
        label = Cell(one.alias or one.name, "name")
        rows.append([label, one.id, one.model_type, loss(one.best_val_loss), epochs, place])
    if rows:
        app.out.table(columns, rows, name=1)


def _say_next(app: App, job: SubmittedJob, models: list[ModelShown]) -> None:
    if not models:
        return
    if not all(model.local for model in models):
        app.out.say(f"Bring it home: sleap-rtc jobs attach {short(job.id)} --download")
        return
    groups = {(model.alias or "").partition(":")[0] for model in models}
    if len(groups) == 1 and "" not in groups:
        names = f"--model {groups.pop()}"
    else:
        names = " ".join(f"--model {model.alias or model.id}" for model in models)
    app.out.say(f"Try it: sleap-rtc track {names} VIDEO.mp4")


def _finish_tracking(app: App, client: AsyncClient, followed: Followed, *, overwrite: bool) -> None:
    job, view = followed.job, followed.view
    work = job.spec.work
    assert isinstance(work, TrackSpec)  # noqa: S101 - the caller looked
    error = failure(job, view)
    placed = deliver(job, overwrite=overwrite) if error is None else {}
    predictions = tuple(
        PredictionsShown(video=job.files[video], predictions=str(path))
        for video, path in placed.items()
    )
    document = TrackDocument(
        models=tuple(_used(client, model.id, model.package) for model in work.models),
        predictions=predictions,
        job=job.id,
        worker=job.worker,
        state=view.state or "unsent",
        error=shown_error(error),
    )
    app.out.show(document, lambda: print_predictions(app, predictions))
    if error is not None:
        app.fail(error)


def print_predictions(app: App, predictions: tuple[PredictionsShown, ...]) -> None:
    """Where predictions are, one a line."""
    for one in predictions:
        app.out.data(one.predictions)


def _used(client: AsyncClient, model: str, package: str) -> UsedModelShown:
    try:
        entry = client.library.get(model)
    except UnknownModel:
        return UsedModelShown(id=model, alias=None, model_type="", package=package)
    return UsedModelShown(
        id=model, alias=entry.alias, model_type=entry.record.model_type, package=package
    )


def shown_error(error: SleapRtcError | None) -> ErrorShown | None:
    """An error as documents have it."""
    if error is None:
        return None
    return ErrorShown(
        code=error.code, message=error.message, hint=error.hint_text, exit_code=error.exit_code
    )


def room_name(client: AsyncClient, room: str) -> str:
    """What this device calls a room; its id, where it has left it."""
    try:
        return client.room(room).name
    except UnknownRoom:
        return room
