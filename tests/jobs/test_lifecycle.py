"""The life cycle of a job: table, commands, fold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sleap_rtc.domain.ids import ModelId, PackageId
from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.domain.values import from_plain, to_plain
from sleap_rtc.errors import DataError, IllegalTransition
from sleap_rtc.jobs.events import (
    Body,
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
from sleap_rtc.jobs.lifecycle import (
    COMMANDS,
    ENDED,
    MAX_COMMANDS,
    MAX_STAGES,
    SETTLED,
    TRANSITIONS,
    JobView,
    decide,
    fold,
    picture,
    replay,
)

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STATES: tuple[JobState, ...] = get_args(JobState)
REF = PackageRef(id=PackageId("ab" * 32), size=1, files=1, listing=50)


def view_of(*bodies: Body, view: JobView | None = None) -> JobView:
    view = JobView() if view is None else view
    for body in bodies:
        view = fold(view, JobEvent(n=view.number + 1, at=AT, body=body))
    return view


def states(*names: JobState) -> list[StateChanged]:
    return [StateChanged(state=name) for name in names]


RUNNING = view_of(*states("queued", "assigned", "preparing", "running"))


def record(status: str = "training") -> ModelRecord:
    return ModelRecord(
        id=ModelId("3f2a9c01"),
        name="run",
        model_type="centroid",
        status=status,  # type: ignore[arg-type]
        source="worker-training",
        created_at=AT,
    )


def test_every_state_is_in_the_table_and_can_be_reached() -> None:
    assert set(TRANSITIONS) == {None, *STATES}
    assert {other for following in TRANSITIONS.values() for other in following} == set(STATES)
    assert {"completed", "failed", "cancelled"} == ENDED
    assert ENDED | {"interrupted"} == SETTLED


def test_every_state_that_works_can_end_in_any_way_but_finishing_is_too_late_to_cancel() -> None:
    for state in ("assigned", "preparing", "running", "paused"):
        assert {"failed", "cancelled", "interrupted"} <= set(TRANSITIONS[state])  # type: ignore[index]
    assert "cancelled" not in TRANSITIONS["finishing"]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("following", STATES)
def test_the_fold_follows_the_table(state: JobState, following: JobState) -> None:
    view = JobView(number=7, state=state)
    event = JobEvent(n=8, at=AT, body=StateChanged(state=following, reason="so it is"))
    if following in TRANSITIONS[state]:
        after = fold(view, event)
        assert (after.state, after.reason, after.number) == (following, "so it is", 8)
    else:
        with pytest.raises(IllegalTransition, match=f"becoming {following}"):
            fold(view, event)


def test_the_picture_has_every_arrow() -> None:
    text = picture()
    assert text.startswith("stateDiagram-v2\n    [*] --> queued: submitted\n")
    arrows = sum(len(following) for following in TRANSITIONS.values())
    assert text.count(" --> ") == arrows + len(ENDED)
    assert "    completed --> [*]\n" in text
    assert "    running --> paused: pause\n" in text


@pytest.mark.parametrize("n", [1, 3, 6])
def test_numbers_have_no_gaps(n: int) -> None:
    with pytest.raises(DataError, match=f"event {n} follows event 4"):
        fold(RUNNING, JobEvent(n=n, at=AT, body=Logged(line="")))


def test_times() -> None:
    later = AT + timedelta(seconds=5)
    view = fold(RUNNING, JobEvent(n=5, at=later, body=Logged(line="")))
    assert (view.created_at, view.changed_at) == (AT, later)


def test_a_training_job() -> None:
    first = StageStarted(stage=0, stages=2, name="a", epochs=2)
    view = view_of(
        first,
        Progress(stage=0, epoch=0, done=3),
        EpochEnded(stage=0, epoch=0, train_loss=1.0),
        EpochEnded(stage=0, epoch=1, train_loss=0.5),
        ModelChanged(stage=0, record=record("completed")),
        OutputReady(what="model", package=REF),
        StageStarted(stage=1, stages=2, name="b", epochs=5),
        EpochEnded(stage=1, epoch=0, train_loss=3.0),
        Transferring(what="outputs", done=1, total=2),
        view=RUNNING,
    )
    assert (view.stage, view.stages, view.progress) == (1, 2, None)
    assert [e.train_loss for e in view.stage_view(0).losses] == [1.0, 0.5]
    assert view.stage_view(0).record == record("completed")
    assert view.stage_view(1).epochs == 5
    assert [o.stage for o in view.outputs] == [0]
    assert view.transfer is not None
    assert from_plain(JobView, to_plain(view), what="view") == view


def test_a_resumed_stage_keeps_the_epochs_before() -> None:
    epochs = [EpochEnded(stage=0, epoch=e, train_loss=float(e)) for e in range(5)]
    view = view_of(
        StageStarted(stage=0, stages=1, name="a", epochs=9),
        *epochs,
        ErrorTold(code="x", message="y"),
        *states("interrupted", "queued", "assigned", "preparing", "running"),
        StageStarted(stage=0, stages=1, name="a", epochs=9, first_epoch=3),
        EpochEnded(stage=0, epoch=3, train_loss=33.0),
        view=RUNNING,
    )
    assert [e.train_loss for e in view.stage_view(0).losses] == [0.0, 1.0, 2.0, 33.0]
    assert view.error is None


def test_an_output_made_again_replaces_the_first() -> None:
    other = PackageRef(id=PackageId("cd" * 32), size=1, files=1, listing=50)
    outputs = [
        OutputReady(what="model", package=p, stage=s) for p, s in ((REF, 0), (REF, 1), (other, 0))
    ]
    assert {(o.stage, o.package.id) for o in view_of(*outputs, view=RUNNING).outputs} == {
        (1, REF.id),
        (0, other.id),
    }


@pytest.mark.parametrize(
    "body",
    [
        StageStarted(stage=1, stages=1, name=""),
        StageStarted(stage=0, stages=MAX_STAGES + 1, name=""),
        EpochEnded(stage=MAX_STAGES, epoch=0),
        ModelChanged(stage=10**9, record=record()),
    ],
)
def test_a_peers_stages_have_a_bound(body: Body) -> None:
    with pytest.raises(DataError):
        view_of(body, view=RUNNING)


def received(command: Command, request: str = "r1") -> CommandReceived:
    return CommandReceived(id=request, command=command)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("command", get_args(Command))
def test_commands_follow_their_table(state: JobState, command: Command) -> None:
    view = JobView(number=1, state=state)
    already = {"pause": "paused", "resume": "running", "cancel": "cancelled"}.get(command) == state
    if state in COMMANDS[command]:
        assert decide(view, received(command), tracks=False) == "do"
    elif already:
        assert decide(view, received(command), tracks=False) == "nothing"
    else:
        with pytest.raises(IllegalTransition, match=f"{command} is not possible"):
            decide(view, received(command), tracks=False)


def test_a_command_is_done_once() -> None:
    view = view_of(received("stop"), view=RUNNING)
    assert view.pending == "stop"
    assert decide(view, received("stop"), tracks=False) == "repeat"
    assert decide(view, received("stop", "r2"), tracks=False) == "nothing"
    # The same request stays the same, also when it makes no sense any more.
    done = view_of(*states("finishing", "completed"), view=view)
    assert done.pending is None
    assert decide(done, received("stop"), tracks=False) == "repeat"


def test_cancel_goes_before_everything() -> None:
    view = view_of(
        received("stop", "a"), received("cancel", "b"), received("stop", "c"), view=RUNNING
    )
    assert view.pending == "cancel"
    assert decide(view, received("cancel"), tracks=False) == "nothing"
    for command in ("pause", "stop"):
        with pytest.raises(IllegalTransition, match="being cancelled"):
            decide(view, received(command), tracks=False)  # type: ignore[arg-type]
    assert view_of(*states("cancelled"), view=view).pending is None


def test_cancelling_what_is_finishing_says_why_not() -> None:
    with pytest.raises(IllegalTransition) as error:
        decide(view_of(*states("finishing"), view=RUNNING), received("cancel"), tracks=False)
    assert "completed in a moment" in error.value.hint_text


def test_stop_is_for_one_stage() -> None:
    view = view_of(StageStarted(stage=0, stages=2, name="a"), received("stop"), view=RUNNING)
    again = view_of(StageStarted(stage=0, stages=2, name="a", epochs=4), view=view)
    assert again.pending == "stop"
    assert view_of(StageStarted(stage=1, stages=2, name="b"), view=again).pending is None
    assert view_of(*states("finishing"), view=again).pending is None


def test_tracking_is_not_stopped() -> None:
    with pytest.raises(IllegalTransition, match="tracking"):
        decide(RUNNING, received("stop"), tracks=True)
    assert decide(RUNNING, received("cancel"), tracks=True) == "do"


@pytest.mark.parametrize("before", [("queued",), ("queued", "assigned", "preparing")])
def test_a_job_that_is_paused_before_it_runs_is_held(before: tuple[JobState, ...]) -> None:
    held = view_of(*states(*before, "paused"))
    assert held.held
    with pytest.raises(IllegalTransition, match="stop is not possible"):
        decide(held, received("stop"), tracks=False)
    assert decide(held, received("cancel"), tracks=False) == "do"
    assert decide(held, received("resume"), tracks=False) == "do"
    again = view_of(*states("queued"), view=held)
    assert (again.state, again.held) == ("queued", False)
    assert not view_of(*states("paused"), view=RUNNING).held


def test_commands_have_a_bound() -> None:
    view = JobView(state="running", commands=tuple(str(i) for i in range(MAX_COMMANDS)))
    with pytest.raises(IllegalTransition, match="another command"):
        decide(view, received("pause", "new"), tracks=False)


class LifeCycle(RuleBasedStateMachine):
    """Whatever allowed things happen, the view stays consistent, and in one piece or two alike."""

    @initialize()
    def submit(self) -> None:
        self.view = JobView()
        self.log: list[JobEvent] = []
        self.add(StateChanged(state="queued"))

    def add(self, body: Body) -> None:
        event = JobEvent(n=len(self.log) + 1, at=AT, body=body)
        self.view = fold(self.view, event)
        self.log.append(event)

    @rule(data=st.data())
    def move(self, data: st.DataObject) -> None:
        state = data.draw(st.sampled_from(STATES))
        if state in TRANSITIONS[self.view.state]:
            self.add(StateChanged(state=state))
        else:
            with pytest.raises(IllegalTransition):
                self.add(StateChanged(state=state))

    @rule(command=st.sampled_from(get_args(Command)), request=st.sampled_from("abcdef"))
    def order(self, command: Command, request: str) -> None:
        known = self.view.commands
        try:
            verdict = decide(self.view, received(command, request), tracks=False)
        except IllegalTransition:
            assert request not in known
            return
        assert (verdict == "repeat") == (request in known)
        if verdict == "do":
            assert self.view.state in COMMANDS[command]
        if verdict != "repeat":
            self.add(received(command, request))

    @precondition(lambda self: self.view.state in ("running", "preparing"))
    @rule(stage=st.integers(0, 2), first=st.integers(0, 4))
    def stage(self, stage: int, first: int) -> None:
        self.add(StageStarted(stage=stage, stages=3, name="s", first_epoch=first))

    @rule(stage=st.integers(0, 2), epoch=st.integers(0, 6))
    def epoch(self, stage: int, epoch: int) -> None:
        self.add(EpochEnded(stage=stage, epoch=epoch))

    @invariant()
    def epochs_are_in_order(self) -> None:
        for seen in self.view.seen:
            epochs = [e.epoch for e in seen.losses]
            assert epochs == sorted(set(epochs))

    @invariant()
    def nothing_is_pending_when_nothing_works(self) -> None:
        if self.view.state in SETTLED:
            assert self.view.pending is None

    @invariant()
    def it_can_be_taken_up_anywhere(self) -> None:
        half = len(self.log) // 2
        assert replay(self.log[half:], replay(self.log[:half])) == self.view


LifeCycle.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestLifeCycle = LifeCycle.TestCase
