"""What ``train`` does: checks and hashes, says what will be sent, asks, sends, follows."""

from __future__ import annotations

from pathlib import Path

import msgspec

from sleap_rtc.cli import sending
from sleap_rtc.cli.app import App
from sleap_rtc.cli.following import finish, follow, room_name
from sleap_rtc.cli.screen import moved
from sleap_rtc.cli.text import count
from sleap_rtc.cli.workers import gpus, worker_shown
from sleap_rtc.client.api import AsyncClient
from sleap_rtc.client.composing import Composed
from sleap_rtc.client.routing import Planned
from sleap_rtc.domain import aliases
from sleap_rtc.domain.places import Presence
from sleap_rtc.domain.units import format_bytes
from sleap_rtc.engines.registry import DEFAULT
from sleap_rtc.errors import (
    AliasTaken,
    Cancelled,
    IllegalTransition,
    NotFound,
    Offline,
    UnknownModel,
    UsageError,
)
from sleap_rtc.library.entries import Entry, Group

MOST_NAMED = 2
"""Models that one alias can name: a top-down pair."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for; None where it leaves it open."""

    labels: Path
    configs: tuple[Path, ...]
    room: str | None = None
    worker: str | None = None
    alias: str | None = None
    engine: str = DEFAULT
    val_labels: Path | None = None
    run_name: str | None = None
    detach: bool = False
    explain: bool = False
    download: bool | None = None
    yes: bool = False


def train(app: App, wanted: Wanted) -> None:
    """Train on a worker.

    Raises:
        SleapRtcError: It can't be done, or it failed.
    """
    app.goes_on = "Nothing was sent."
    client = app.client()
    if app.offline:  # said before anything is read or hashed for it
        raise Offline(url=client.room(wanted.room).server)
    _check_alias(client, wanted)
    composed = _compose(app, client, wanted)
    if not wanted.yes and not wanted.explain and not app.out.interactive:
        raise UsageError(
            message="Nobody can be asked whether to send the data.", hint="Add --yes to send it."
        )
    presence = _choose(app, client, wanted)
    planned = sending.plan(
        app, client, composed, presence.name, leaves=wanted.detach, ask=wanted.explain
    )
    if wanted.explain:
        sending.explain(app, planned)
        return
    _tell(app, wanted, composed, presence, planned)
    if not wanted.yes and not app.out.ask("Send it and train?", default=True):
        raise Cancelled(what="The training", hint="Nothing was sent.")
    composed = sending.send(app, client, planned, composed)
    ask = app.out.interactive and not wanted.yes and not wanted.detach and wanted.download is None
    followed = follow(
        app,
        client,
        lambda c: c.submit(
            composed,
            worker=presence.name,
            alias=wanted.alias,
            download=not ask if wanted.download is None else wanted.download,
        ),
        until_sent=wanted.detach,
    )
    finish(app, client, followed, ask=app.out.interactive and not wanted.yes and not wanted.detach)


def resume(app: App, name: str, *, download: bool | None, yes: bool) -> None:
    """Go on with an interrupted training, where it ran before.

    Args:
        app: The invocation.
        name: The model.
        download: Whether the models come home; None leaves it as it was.
        yes: Whether nothing is asked.

    Raises:
        UnknownModel: There is no such model.
        NotFound: It wasn't trained by a job of this machine.
        IllegalTransition: It wasn't interrupted.
    """
    client = app.client()
    found = client.library.resolve(name)
    if isinstance(found, Group):
        # One job trained both; the one that is interrupted leads to it.
        halted = [e for e in found.entries if e.record.status == "interrupted"]
        found = halted[0] if halted else found.entries[0]
    if not isinstance(found, Entry):
        raise UnknownModel(name=name)
    job = found.record.training.job
    if job is None:
        raise NotFound(
            message=f"{found.label} wasn't trained by a job of this machine.",
            hint="sleap-rtc jobs shows the jobs that there are.",
        )
    if found.record.status == "completed":
        raise IllegalTransition(what=found.label, state="completed", event="going on")
    client.submitted.get(job)
    app.run(client.retry(job))
    app.out.say(f"Going on with {found.label}.")
    followed = follow(app, client, lambda c: c.attach(job, download=download))
    finish(app, client, followed, ask=app.out.interactive and not yes)


def _check_alias(client: AsyncClient, wanted: Wanted) -> None:
    """See before anything is sent that the alias can be given at the end."""
    if wanted.alias is None:
        return
    aliases.check(wanted.alias)
    _check_number(len(wanted.configs))
    taken = client.library.get_alias(wanted.alias)
    if taken is not None:
        owner = " and ".join(taken.models)
        raise AliasTaken(alias=taken.name, owner=owner, hint="Choose another --alias.")


def _check_number(models: int) -> None:
    if models > MOST_NAMED:
        raise UsageError(message="One alias names one model, or the two of a top-down pair.")


def _compose(app: App, client: AsyncClient, wanted: Wanted) -> Composed:
    def hashing(done: int, total: int) -> None:
        app.out.live.update(
            [f"reading {moved(done, total)}"], plain=f"reading {moved(done, total)}"
        )

    composed = client.compose_training(
        wanted.labels,
        wanted.configs,
        engine=wanted.engine,
        room=wanted.room,
        val_labels=wanted.val_labels,
        run_name=wanted.run_name,
        progress=hashing,
    )
    app.out.live.clear()
    if wanted.alias is not None:
        _check_number(len(composed.configs))
    return composed


def _choose(app: App, client: AsyncClient, wanted: Wanted) -> Presence:
    """The worker that was named, or that the person chooses, or else the least busy one."""
    best = app.run(client.choose_worker(wanted.engine, worker=wanted.worker, room=wanted.room))
    if wanted.worker is not None or wanted.yes or wanted.explain:
        return best
    able = [
        presence
        for presence in app.run(client.workers(wanted.room))
        if presence.worker is not None and wanted.engine in presence.worker.engines
    ]
    if len(able) <= 1:
        return best
    for presence in able:
        app.out.say(f"  {_described(presence)}")
    names = {presence.name: presence for presence in able}
    while True:
        answer = app.out.prompt(f"Which worker? [{best.name}]") or best.name
        if answer in names:
            return names[answer]


def _described(presence: Presence) -> str:
    shown = worker_shown(presence.name, "", presence.device, presence.worker)
    what = gpus(shown.gpus) if shown.gpus else f"{shown.cpus} cpus"
    busy = count(shown.jobs, "job") if shown.jobs else "free"
    return f"{presence.name}: {what}, {busy}"


def _tell(
    app: App, wanted: Wanted, composed: Composed, presence: Presence, planned: Planned
) -> None:
    """What will be sent, how large it is, to whom, and how."""
    labels, package = composed.labels, composed.packed.package
    held = ""
    if labels is not None and labels.checked:
        held = (
            f": {count(labels.frames, 'labelled frame')}, {count(labels.instances, 'instance')}, "
            f"{count(len(labels.nodes), 'point')}"
        )
    app.out.say(f"Labels   {wanted.labels.name}{held}")
    models = ", then ".join(
        config.model_type + (f" ({count(config.epochs, 'epoch')})" if config.epochs else "")
        for config in composed.configs
    )
    app.out.say(f"Models   {models}, with {wanted.engine}")
    room = room_name(app.client(), composed.spec.room)
    app.out.say(f"To       {_described(presence)}, in room {room}")
    app.out.say(
        f"Sent     {count(len(package.files), 'file')}, {format_bytes(package.size)}, "
        f"{sending.words(planned.plan)}"
    )
    if wanted.engine == "tiny":
        app.out.say("Note     tiny is a small trainer for trying things out, not for science.")
