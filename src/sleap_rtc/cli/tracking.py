"""What ``track`` does."""

from __future__ import annotations

from pathlib import Path

import msgspec

from sleap_rtc.cli import sending
from sleap_rtc.cli.app import App
from sleap_rtc.cli.following import finish, follow, print_predictions
from sleap_rtc.cli.job_documents import PredictionsShown, TrackDocument, UsedModelShown
from sleap_rtc.cli.screen import BAR, moved
from sleap_rtc.cli.text import bar, count
from sleap_rtc.client.api import AsyncClient
from sleap_rtc.client.composing import Located, engine_of, one_engine
from sleap_rtc.client.tracking import Resolved, output_path, resolve_names
from sleap_rtc.domain.places import Presence
from sleap_rtc.domain.units import format_bytes, format_duration
from sleap_rtc.engines.base import Stepped
from sleap_rtc.errors import AlreadyExists, NotFound, Offline, UnknownModel, UsageError
from sleap_rtc.library.entries import Entry


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for."""

    videos: tuple[Path, ...]
    models: tuple[str, ...]
    output: Path | None = None
    frames: tuple[int, int] | None = None
    tracking: bool = False
    room: str | None = None
    worker: str | None = None
    explain: bool = False
    overwrite: bool = False
    trust: bool = False


def track_locally(app: App, wanted: Wanted) -> None:
    """Track on this machine.

    Raises:
        SleapRtcError: It can't be done, or the engine failed.
    """
    client = app.client()
    outputs = _outputs(wanted)
    models = client.resolve_models(wanted.models)
    _tell(app, models, "this machine")
    made: list[PredictionsShown] = []
    for video, output in zip(wanted.videos, outputs, strict=True):
        app.goes_on = "Nothing was written" + (f" for {video.name}." if made else ".")
        app.run(_track_one(app, client, models, video=video, output=output, wanted=wanted))
        app.out.say(f"{video.name} is tracked")
        made.append(PredictionsShown(video=str(video.absolute()), predictions=str(output)))
    predictions = tuple(made)
    document = TrackDocument(
        models=tuple(_used(entry) for entry in models.entries),
        predictions=predictions,
        job=None,
        worker=None,
        state="completed",
        error=None,
    )
    app.out.show(document, lambda: print_predictions(app, predictions))


async def _track_one(
    app: App, client: AsyncClient, models: Resolved, *, video: Path, output: Path, wanted: Wanted
) -> None:
    app.out.live.update([f"{video.name}: the engine starts"])
    async for event in client.track(
        models,
        video,
        output,
        frames=wanted.frames,
        tracking=wanted.tracking,
        overwrite=wanted.overwrite,
        trust=wanted.trust,
    ):
        if isinstance(event, Stepped):
            words = _words(event)
            share = event.done / event.total if event.total else 0.0
            line = f"{bar(share, BAR)}  {video.name}: {words}"
            app.out.live.update([line], plain=f"{video.name}: {words}")
    app.out.live.clear()


def _words(event: Stepped) -> str:
    of = "" if event.total is None else f" of {event.total}"
    parts = [f"frame {event.done}{of}"]
    if event.rate:
        parts.append(f"{event.rate:.1f} a second")
        if event.total is not None:
            parts.append(f"{format_duration((event.total - event.done) / event.rate)} left")
    return ", ".join(parts)


def track_remotely(app: App, wanted: Wanted) -> None:
    """Track on a worker, and bring the predictions here.

    Raises:
        UnknownModel: A model is neither here nor on the worker.
        SleapRtcError: It can't be done, or it failed.
    """
    app.goes_on = "Nothing was sent."
    client = app.client()
    if app.offline:  # said before anything is read or hashed for it
        raise Offline(url=client.room(wanted.room).server)
    outputs = _outputs(wanted)
    worker = wanted.worker or _choose(app, client, wanted)
    models = app.run(client.locate_models(wanted.models, worker, room=wanted.room))
    engine = one_engine(model.engine for model in models)
    app.run(client.choose_worker(engine, worker=worker, room=wanted.room))
    for model in models:
        _tell_located(app, model, worker)
    app.out.say(f"Runs on  {worker}, with {engine}")

    def hashing(done: int, total: int) -> None:
        app.out.live.update(
            [f"reading {moved(done, total)}"], plain=f"reading {moved(done, total)}"
        )

    composed = client.compose_tracking(
        wanted.videos,
        models,
        room=wanted.room,
        frames=wanted.frames,
        tracking=wanted.tracking,
        progress=hashing,
    )
    app.out.live.clear()
    planned = sending.plan(app, client, composed, worker, leaves=False, ask=wanted.explain)
    if wanted.explain:
        sending.explain(app, planned)
        return
    models_too = f" and {count(len(composed.models), 'model')}" if composed.models else ""
    app.out.say(
        f"Sent     {count(len(composed.files), 'video')}{models_too}, "
        f"{format_bytes(planned.given.size)}, {sending.words(planned.plan)}"
    )
    composed = sending.send(app, client, planned, composed)
    followed = follow(
        app,
        client,
        lambda c: c.submit(
            composed,
            worker=worker,
            output=client.settings.home / "predictions" / composed.spec.id,
            targets=dict(zip(composed.files, outputs, strict=True)),
        ),
    )
    finish(app, client, followed, ask=False, overwrite=wanted.overwrite)


def _choose(app: App, client: AsyncClient, wanted: Wanted) -> str:
    """The worker that is taken when none is named: one with the engine of the models here."""
    try:
        entries = resolve_names(client.library, wanted.models)
    except UnknownModel as error:
        hint = "If a worker has it, name the worker: --worker NAME."
        raise UnknownModel(name=error.details["name"], hint=hint) from None
    chosen: Presence = app.run(client.choose_worker(engine_of(entries), room=wanted.room))
    return chosen.name


def _tell_located(app: App, model: Located, worker: str) -> None:
    """Which model runs, and where its content is from."""
    offered = model.ref.offered
    where = (
        f"{worker} has it" if offered is None else f"{format_bytes(offered.size)} go to {worker}"
    )
    app.out.say(
        f"Model    {model.label}: {model.model_type}, id {model.ref.id}, "
        f"content {model.ref.package[:12]}; {where}"
    )
    if model.other is not None:
        content = (model.other.package or "unknown")[:12]
        app.out.warn(
            f"On {worker} that name is another model's: id {model.other.id}, content {content}. "
            "The one of this machine is used."
        )


def _outputs(wanted: Wanted) -> list[Path]:
    """Where each video's predictions go; looked at before anything is done.

    Raises:
        NotFound: A video isn't there.
        AlreadyExists: Predictions are there already.
        UsageError: Two videos' predictions would have one name.
    """
    for video in wanted.videos:
        if not video.is_file():
            raise NotFound(message=f"There is no video {video}.")
    many = len(wanted.videos) > 1
    outputs = [output_path(v, wanted.output, many=many).absolute() for v in wanted.videos]
    if len(set(outputs)) < len(outputs):
        raise UsageError(message="Two of the videos have one name: track them one by one.")
    for output in outputs:
        if output.exists() and not wanted.overwrite:
            raise AlreadyExists(what=str(output), hint="Add --overwrite, or another -o.")
    return outputs


def _tell(app: App, models: Resolved, where: str) -> None:
    """Which models a name stands for, so that one alias can't silently mean two."""
    for entry in models.entries:
        app.out.say(
            f"Model    {entry.label}: {entry.record.model_type}, id {entry.id}, "
            f"content {(entry.record.package or 'unknown')[:12]}"
        )
    app.out.say(f"Runs on  {where}, with {engine_of(models.entries)}")


def _used(entry: Entry) -> UsedModelShown:
    return UsedModelShown(
        id=entry.id,
        alias=entry.alias,
        model_type=entry.record.model_type,
        package=entry.record.package or "",
    )
