"""The life cycle of a job: one table of transitions, and the fold of its events.

The rules, which :data:`TRANSITIONS` holds as data (the picture in the docs is
drawn from it by :func:`picture`):

- A job is *queued*, then *assigned* to a worker, which is *preparing* its inputs,
  *running* its stages (*paused* now and then) and *finishing* it.
- It ends as *completed*, *failed* by its own fault, or *cancelled*. Nothing
  follows these three.
- *interrupted* says that something else ended it (a kill, a restart, a full
  disk): it can be *queued* again, and goes on from its checkpoint.
- A job whose inputs nobody offers doesn't keep others waiting: from *preparing*
  it is *queued* again, and what has arrived of them stays.

And the rules for commands, in :data:`COMMANDS`:

- ``pause`` and ``resume`` freeze and thaw what runs. A job that is paused before
  it runs is *held*: nothing more is fetched for it, others go on, and it is
  *queued* again when it is resumed.
- ``stop`` ends the stage that trains early and keeps its best checkpoint as the
  model. The stages after it are trained all the same: whoever stops a centroid
  model that is good enough still wants the second half of the pair.
- ``cancel`` ends the whole job. Models of earlier stages stay; the one in
  training is left ``interrupted``, with its checkpoint. While a job is
  *finishing* everything is trained already, so a cancel comes too late.

State is what the events say: :func:`fold` adds one event to a :class:`JobView`.
It reads no clock and does no I/O, so worker, server and client get the same
view from the same events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, Literal

from msgspec.structs import replace

from sleap_rtc.domain.models import Line, ModelRecord, Utc
from sleap_rtc.domain.values import Value
from sleap_rtc.errors import DataError, IllegalTransition
from sleap_rtc.jobs.events import (
    Command,
    CommandReceived,
    EpochEnded,
    ErrorTold,
    JobEvent,
    JobState,
    Logged,
    ModelChanged,
    OutputReady,
    Progress,
    StageStarted,
    StateChanged,
    Transferring,
)

MAX_STAGES: Final = 100
"""Stages of one job; a tracking job has one per video."""
MAX_EPOCHS: Final = 100_000
"""Epochs of one stage that a view keeps, the newest; memory has a bound whatever a peer says."""
MAX_COMMANDS: Final = 1_000
"""Commands that one job takes."""

TRANSITIONS: Final[Mapping[JobState | None, Mapping[JobState, str]]] = MappingProxyType(
    {
        None: {"queued": "submitted"},
        "queued": {
            "assigned": "a worker takes it",
            "paused": "pause",
            "failed": "it can't be done",
            "cancelled": "cancel",
        },
        "assigned": {
            "preparing": "inputs are fetched",
            "queued": "the worker gives it back",
            "paused": "pause",
            "failed": "it can't be done",
            "cancelled": "cancel",
            "interrupted": "the worker died",
        },
        "preparing": {
            "running": "the first stage starts",
            "finishing": "every stage was done before",
            "queued": "nobody offers its inputs",
            "paused": "pause",
            "failed": "bad inputs or configuration",
            "cancelled": "cancel",
            "interrupted": "the worker died",
        },
        "running": {
            "paused": "pause",
            "finishing": "the last stage ended well",
            "failed": "the engine failed",
            "cancelled": "cancel",
            "interrupted": "the engine or the worker died",
        },
        "paused": {
            "running": "resume",
            "queued": "resume, if it was held",
            "failed": "the engine failed",
            "cancelled": "cancel",
            "interrupted": "the engine or the worker died",
        },
        "finishing": {
            "completed": "outputs are ready",
            "failed": "outputs can't be made",
            "interrupted": "the worker died",
        },
        "interrupted": {"queued": "tried again", "cancelled": "given up"},
        "completed": {},
        "failed": {},
        "cancelled": {},
    }
)
"""State → the states that may follow → why; None is a job without events."""

COMMANDS: Final[Mapping[Command, frozenset[JobState]]] = MappingProxyType(
    {
        "pause": frozenset({"queued", "assigned", "preparing", "running"}),
        "resume": frozenset({"paused"}),
        "stop": frozenset({"running", "paused"}),
        "cancel": frozenset(
            {"queued", "assigned", "preparing", "running", "paused", "interrupted"}
        ),
    }
)
"""Command → the states in which it does something."""

ALREADY: Final[Mapping[Command, JobState]] = MappingProxyType(
    {"pause": "paused", "resume": "running", "cancel": "cancelled"}
)
"""Command → the state that it asks for; in that state there is nothing left to do."""

ENDED: Final[frozenset[JobState]] = frozenset(
    state for state, following in TRANSITIONS.items() if state is not None and not following
)
"""States that nothing follows."""
NOT_BEGUN: Final[frozenset[JobState]] = frozenset({"queued", "assigned", "preparing"})
"""States in which a job may still wait for its inputs."""
SETTLED: Final[frozenset[JobState]] = ENDED | {"interrupted"}
"""States in which nothing works on the job."""


class StageView(Value, frozen=True):
    """What is known of one stage.

    Attributes:
        stage: From 0.
        name: The run's or the video's name.
        epochs: Planned in all, None when unknown or when tracking.
        first_epoch: The first epoch of the present attempt, above 0 after a resume.
        losses: Whole epochs over all attempts, each epoch once, in order.
        record: The record of its model, as last told.
    """

    stage: int
    name: Line = ""
    epochs: int | None = None
    first_epoch: int = 0
    losses: tuple[EpochEnded, ...] = ()
    record: ModelRecord | None = None


class JobView(Value, frozen=True):
    """The state of a job: the fold of its events up to ``number``.

    Attributes:
        number: The last event's number, 0 for none.
        state: Where the job is; None before its first event.
        reason: The sentence that came with the state.
        held: Whether it is paused, and had not begun to run.
        created_at: Time of the first event.
        changed_at: Time of the last event.
        stage: The stage that runs or ran last, None before the first.
        stages: How many there are, 0 until it is told.
        seen: What is known of each stage, by number.
        progress: The last progress of the stage that runs.
        transfer: The last word on bytes that move.
        error: Why it failed.
        outputs: What there is to bring home.
        pending: ``stop`` or ``cancel`` that was received and hasn't taken effect yet.
        commands: Ids of the commands received.
    """

    number: int = 0
    state: JobState | None = None
    reason: str = ""
    held: bool = False
    created_at: Utc | None = None
    changed_at: Utc | None = None
    stage: int | None = None
    stages: int = 0
    seen: tuple[StageView, ...] = ()
    progress: Progress | None = None
    transfer: Transferring | None = None
    error: ErrorTold | None = None
    outputs: tuple[OutputReady, ...] = ()
    pending: Literal["stop", "cancel"] | None = None
    commands: tuple[str, ...] = ()

    def stage_view(self, stage: int) -> StageView:
        """What is known of a stage; of one not started, its number alone."""
        return next((seen for seen in self.seen if seen.stage == stage), StageView(stage=stage))

    def is_trained(self, stage: int) -> bool:
        """Whether a stage's model is complete and can be brought home."""
        record = self.stage_view(stage).record
        made = any(output.what == "model" and output.stage == stage for output in self.outputs)
        return made and record is not None and record.status == "completed"


def check(state: JobState | None, following: JobState) -> None:
    """See that a state may follow another.

    Raises:
        IllegalTransition: It may not.
    """
    if following not in TRANSITIONS[state]:
        raise IllegalTransition(
            what="The job", state=state or "not submitted yet", event=f"becoming {following}"
        )


def fold(view: JobView, event: JobEvent) -> JobView:
    """Add the next event to a view.

    Raises:
        DataError: The event isn't the next one by its number, or names a stage beyond the bound.
        IllegalTransition: Its state can't follow the present one.
    """
    if event.n != view.number + 1:
        raise DataError(what="job log", why=f"event {event.n} follows event {view.number}")
    view = replace(
        view, number=event.n, created_at=view.created_at or event.at, changed_at=event.at
    )
    match event.body:
        case StateChanged() as changed:
            return _to_state(view, changed)
        case StageStarted() as started:
            return _start_stage(view, started)
        case EpochEnded() as epoch:
            return _with_stage(view, _add_epoch(view.stage_view(epoch.stage), epoch))
        case Progress() as progress:
            return replace(view, progress=progress)
        case ModelChanged() as model:
            stage = replace(view.stage_view(model.stage), record=model.record)
            return _with_stage(view, stage)
        case OutputReady() as output:
            others = (o for o in view.outputs if (o.what, o.stage) != (output.what, output.stage))
            return replace(view, outputs=(*others, output))
        case Transferring() as transfer:
            return replace(view, transfer=transfer)
        case ErrorTold() as error:
            return replace(view, error=error)
        case CommandReceived() as command:
            return _add_command(view, command)
        case Logged():
            return view


def replay(events: Iterable[JobEvent], view: JobView | None = None) -> JobView:
    """The view after all these events, from the start or from an earlier view.

    Raises:
        DataError: A gap in the numbers, or a stage beyond the bound.
        IllegalTransition: A state that can't follow the one before.
    """
    view = JobView() if view is None else view
    for event in events:
        view = fold(view, event)
    return view


def decide(
    view: JobView, command: CommandReceived, *, tracks: bool
) -> Literal["do", "nothing", "repeat"]:
    """What to make of a command.

    Args:
        view: The job as it stands.
        command: What somebody asks for.
        tracks: Whether the job tracks; ``stop`` is for training only.

    Returns:
        ``do`` it; ``nothing`` when the job is or soon will be as it asks, so that it is only
        noted; ``repeat`` when the same request was taken before.

    Raises:
        IllegalTransition: It makes no sense in this state.
    """
    if command.id in view.commands:
        return "repeat"
    name, state = command.command, view.state
    if len(view.commands) >= MAX_COMMANDS:
        raise _impossible(view, f"another command after {MAX_COMMANDS}")
    if state is not None and state == ALREADY.get(name):
        return "nothing"
    if state not in COMMANDS[name] or (view.held and name == "stop"):
        raise _impossible(view, name)
    if name == "stop" and tracks:
        raise IllegalTransition(
            what="The job",
            state="tracking",
            event="stop",
            hint="stop ends a training early; cancel ends any job.",
        )
    if view.pending == "cancel" and name != "cancel":
        raise IllegalTransition(what="The job", state="being cancelled", event=name)
    return "nothing" if view.pending == name else "do"


def picture() -> str:
    """The transition table as a Mermaid state diagram, for the docs."""
    lines = ["stateDiagram-v2"]
    for state, following in TRANSITIONS.items():
        lines += [f"    {state or '[*]'} --> {other}: {why}" for other, why in following.items()]
        if not following:
            lines.append(f"    {state} --> [*]")
    return "\n".join(lines) + "\n"


def _to_state(view: JobView, changed: StateChanged) -> JobView:
    check(view.state, changed.state)
    held = changed.state == "paused" and view.state in NOT_BEGUN
    view = replace(view, state=changed.state, reason=changed.reason, held=held)
    if changed.state in SETTLED:
        return replace(view, pending=None)
    if changed.state == "queued":  # a new attempt: what ended the last one is history
        return replace(view, error=None, progress=None, pending=None)
    if changed.state == "finishing" and view.pending == "stop":
        return replace(view, pending=None)
    return view


def _start_stage(view: JobView, started: StageStarted) -> JobView:
    if not started.stage < started.stages <= MAX_STAGES:
        raise DataError(what="job log", why=f"it starts stage {started.stage} of {started.stages}")
    known = view.stage_view(started.stage)
    stage = replace(
        known,
        name=started.name,
        epochs=started.epochs,
        first_epoch=started.first_epoch,
        losses=tuple(e for e in known.losses if e.epoch < started.first_epoch),
    )
    return replace(
        _with_stage(view, stage),
        stage=started.stage,
        stages=started.stages,
        progress=None,
        pending=None if view.pending == "stop" and view.stage != started.stage else view.pending,
    )


def _with_stage(view: JobView, stage: StageView) -> JobView:
    if stage.stage >= MAX_STAGES:
        raise DataError(what="job log", why=f"it names stage {stage.stage}")
    others = [seen for seen in view.seen if seen.stage != stage.stage]
    return replace(view, seen=tuple(sorted([*others, stage], key=lambda seen: seen.stage)))


def _add_epoch(stage: StageView, epoch: EpochEnded) -> StageView:
    """An epoch that is done again, after a resume, replaces what it said before."""
    losses = stage.losses
    if losses and losses[-1].epoch >= epoch.epoch:
        losses = tuple(e for e in losses if e.epoch < epoch.epoch)
    return replace(stage, losses=(*losses, epoch)[-MAX_EPOCHS:])


def _add_command(view: JobView, command: CommandReceived) -> JobView:
    view = replace(view, commands=(*view.commands, command.id)[-MAX_COMMANDS:])
    if command.command == "cancel" and view.state not in SETTLED:
        return replace(view, pending="cancel")
    if command.command == "stop" and view.pending is None and view.state not in SETTLED:
        return replace(view, pending="stop")
    return view


def _impossible(view: JobView, what: str) -> IllegalTransition:
    hint = ""
    if view.state == "finishing" and what == "cancel":
        hint = "All of it is trained; it will be completed in a moment."
    return IllegalTransition(
        what="The job", state=view.state or "not submitted yet", event=what, hint=hint
    )
