"""What every engine must do, as tests.

For an engine of your own::

    class TestMine(EngineConformance):
        @pytest.fixture
        def engine(self) -> Engine: ...

        @pytest.fixture
        def work(self) -> EngineWork: ...

Real programs are started, stopped and killed; each test leaves none behind.
"""

# ruff: noqa: S101, D102, ASYNC110 - these are tests, which say what they do by their names
from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from sleap_rtc.engines.base import (
    Began,
    CheckpointWritten,
    Engine,
    EngineEvent,
    EpochDone,
    Outcome,
    Run,
    Said,
    Stepped,
    TrackPlan,
    TrainPlan,
)
from sleap_rtc.engines.process import identify
from sleap_rtc.errors import FilesMissing, InvalidConfig, SleapRtcError


class EngineWork(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is given to do.

    Attributes:
        labels: Labels that it can learn from.
        video: A video of the same animals.
        frames: How many frames of it to track.
        model_type: The head of the configurations; a model of it alone can track.
        config: Makes a configuration for a number of epochs.
    """

    labels: Path
    video: Path
    frames: int
    model_type: str
    config: Callable[[int], str]


Until = Callable[[EngineEvent], bool]
LONG = 1_000
"""Epochs that no test waits for."""


class EngineConformance:
    """Tests of one engine; subclasses give the fixtures ``engine`` and ``work``."""

    async def test_killed_twice_and_cancelled_it_goes_on_to_its_end_and_tracks(
        self, engine: Engine, work: EngineWork, tmp_path: Path
    ) -> None:
        # One story, since some engines take long to start.
        done = await _killed_after_a_pause(engine, work, tmp_path / "a")
        await _killed_at_its_start(engine, work, tmp_path / "b", after=tmp_path / "a", done=done)
        done = await _cancelled_in_a_pause(
            engine, work, tmp_path / "c", after=tmp_path / "b", done=done
        )
        await _to_its_end(engine, work, tmp_path / "d", after=tmp_path / "c", done=done)
        await _tracks(engine, work, tmp_path / "d", tmp_path / "predictions.slp")

    async def test_stopping_early_keeps_the_best(
        self, engine: Engine, work: EngineWork, tmp_path: Path
    ) -> None:
        async with _running(engine, _plan(work, tmp_path / "a", epochs=LONG)) as run:
            async for event in run.events():
                if isinstance(event, CheckpointWritten):
                    await run.stop()
                    await run.stop()
            outcome = await run.outcome()
        assert outcome.kind == "stopped", outcome
        assert outcome.epochs is not None
        assert 1 <= outcome.epochs < LONG
        _check_model(outcome, tmp_path / "a", epochs=outcome.epochs)

    async def test_a_bad_configuration_is_refused(
        self, engine: Engine, work: EngineWork, tmp_path: Path
    ) -> None:
        plan = _plan(work, tmp_path / "a", epochs=1)
        for config, why in (
            ("a: [", "line 1"),
            ("model_config: {head_configs: {}}", "exactly one head"),
            (work.config(1).replace("max_epochs: 1", "max_epochs: -3"), "max_epochs"),
        ):
            with pytest.raises(InvalidConfig, match=why):
                await engine.start_training(msgspec.structs.replace(plan, config=config))
        with pytest.raises(InvalidConfig, match="not other_type"):
            await engine.start_training(msgspec.structs.replace(plan, model_type="other_type"))

    async def test_bad_labels_are_said(
        self, engine: Engine, work: EngineWork, tmp_path: Path
    ) -> None:
        absent = msgspec.structs.replace(
            _plan(work, tmp_path / "a", epochs=1), labels=tmp_path / "absent.slp"
        )
        reason = await _failure(engine, absent)
        assert "absent.slp" in reason
        wrong = tmp_path / "wrong.slp"
        wrong.write_bytes(b"this is no label file")
        plan = msgspec.structs.replace(_plan(work, tmp_path / "b", epochs=1), labels=wrong)
        run = await engine.start_training(plan)
        outcome = await run.outcome()
        assert outcome.kind == "failed"
        assert "unknown error" not in outcome.reason.lower()
        assert len(outcome.reason) > 20
        assert outcome.log_tail

    async def test_a_model_without_files_is_refused(
        self, engine: Engine, work: EngineWork, tmp_path: Path
    ) -> None:
        plan = TrackPlan(models=(tmp_path,), video=work.video, output=tmp_path / "p.slp")
        with pytest.raises(FilesMissing, match="best"):
            await engine.start_tracking(plan)
        with pytest.raises(FilesMissing):
            await engine.start_training(_plan(work, tmp_path / "b", epochs=1, resume_from=tmp_path))


async def _killed_after_a_pause(engine: Engine, work: EngineWork, directory: Path) -> int:
    """Killed, it leaves a checkpoint to go on from: of so many epochs."""
    async with _running(engine, _plan(work, directory, epochs=LONG)) as run:
        seen = await _until(run, lambda e: isinstance(e, Stepped))
        run.pause()
        run.pause()
        await _frozen(run.pid)
        run.resume()
        seen += await _until(run, lambda e: isinstance(e, CheckpointWritten) and e.epochs >= 2)
        os.killpg(run.pid, signal.SIGKILL)
        seen += [event async for event in run.events()]
        outcome = await run.outcome()
    assert outcome.kind == "died", outcome
    assert "signal 9" in outcome.reason
    assert all(e.learning_rate is not None for e in seen if isinstance(e, EpochDone))
    done = outcome.epochs
    assert done is not None
    # It may have got a little further than it had said.
    assert done >= max(e.epochs for e in seen if isinstance(e, CheckpointWritten))
    assert outcome.last is not None
    left = engine.inspect(_plan(work, directory, epochs=LONG))
    assert (left.kind, left.epochs, left.last) == ("died", done, outcome.last)
    assert left.files == outcome.files
    return done


async def _killed_at_its_start(
    engine: Engine, work: EngineWork, directory: Path, *, after: Path, done: int
) -> None:
    """Killed before its first checkpoint, an attempt stands for the one before it too."""
    plan = _plan(work, directory, epochs=LONG, resume_from=after)
    async with _running(engine, plan) as run:
        await _until(run, lambda e: isinstance(e, Began))
        os.killpg(run.pid, signal.SIGKILL)
        outcome = await run.outcome()
    assert (outcome.kind, outcome.epochs) == ("died", done), outcome
    assert outcome.last is not None
    assert outcome.best is not None
    for name in (outcome.last.name, outcome.best.name):
        assert name in outcome.files


async def _cancelled_in_a_pause(
    engine: Engine, work: EngineWork, directory: Path, *, after: Path, done: int
) -> int:
    """Cancelled while it is paused, it keeps its checkpoint: of so many epochs."""
    plan = _plan(work, directory, epochs=LONG, resume_from=after)
    async with _running(engine, plan) as run:
        await _until(run, lambda e: isinstance(e, CheckpointWritten))
        run.pause()
        await run.cancel(grace_s=20)
        await run.cancel()
        outcome = await run.outcome()
        assert identify(run.pid) is None
    assert outcome.kind == "cancelled"
    assert outcome.epochs is not None
    assert outcome.epochs > done
    assert outcome.last is not None
    assert outcome.last.is_file()
    assert str(outcome.last.relative_to(directory)) in outcome.files
    return outcome.epochs


async def _to_its_end(
    engine: Engine, work: EngineWork, directory: Path, *, after: Path, done: int
) -> None:
    """It goes on from a checkpoint, reaches its goal, and knows of all epochs."""
    goal = done + 2
    run = await engine.start_training(_plan(work, directory, epochs=goal, resume_from=after))
    events = [event async for event in run.events()]
    outcome = await run.outcome()
    assert outcome.kind == "succeeded", outcome
    _check_epochs(events, first=done, epochs=goal)
    _check_model(outcome, directory, epochs=goal)
    assert outcome.metrics.best_val_loss is not None
    assert outcome.hyperparameters["max_epochs"] == goal
    log = (directory / "training_log.csv").read_text(encoding="utf-8").splitlines()
    assert [int(float(line.split(",")[0])) for line in log[1:]] == list(range(goal))


async def _tracks(engine: Engine, work: EngineWork, model: Path, output: Path) -> None:
    """A model tracks a video, and its predictions say which it was."""
    plan = TrackPlan(
        models=(model,),
        video=work.video,
        output=output,
        frames=(0, work.frames - 1),
        device="cpu",
        provenance={"model_id": "3f2a9c01"},
    )
    run = await engine.start_tracking(plan)
    steps = [event async for event in run.events() if isinstance(event, Stepped)]
    assert (await run.outcome()).kind == "succeeded"
    assert steps[-1].done == steps[-1].total == work.frames
    assert output.read_bytes()[:4] == b"\x89HDF"
    assert b"3f2a9c01" in output.read_bytes()
    assert [path.name for path in output.parent.glob(".part-*")] == []


def _plan(
    work: EngineWork, directory: Path, *, epochs: int, resume_from: Path | None = None
) -> TrainPlan:
    return TrainPlan(
        labels=work.labels,
        config=work.config(epochs),
        model_type=work.model_type,
        directory=directory,
        run_name=f"attempt-{directory.name}",
        resume_from=resume_from,
        device="cpu",
        threads=1,
    )


@contextlib.asynccontextmanager
async def _running(engine: Engine, plan: TrainPlan) -> AsyncIterator[Run]:
    run = await engine.start_training(plan)
    try:
        yield run
    finally:
        await run.cancel(grace_s=0)


async def _until(run: Run, wanted: Until) -> list[EngineEvent]:
    """The events up to the one that is wanted; what comes later can still be read."""
    seen: list[EngineEvent] = []
    async for event in run.events():
        seen.append(event)
        if wanted(event):
            return seen
    said = [event.line for event in seen if isinstance(event, Said)]
    raise AssertionError(f"it ended before that: {await run.outcome()} {said[-20:]}")


async def _frozen(pid: int) -> None:
    """Wait until the system says that a process is stopped; it takes a moment in a system call."""
    if not Path("/proc/self/stat").exists():
        return
    async with asyncio.timeout(10):
        while Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2][1] != "T":
            await asyncio.sleep(0.01)


async def _failure(engine: Engine, plan: TrainPlan) -> str:
    """Why a training fails, at once or later."""
    try:
        run = await engine.start_training(plan)
    except SleapRtcError as error:
        return error.message
    outcome = await run.outcome()
    assert outcome.kind == "failed", outcome
    return outcome.reason


def _check_epochs(events: list[EngineEvent], *, first: int, epochs: int) -> None:
    """One beginning, every epoch once and in order, a checkpoint after each."""
    began = [event for event in events if isinstance(event, Began)]
    assert [(b.epochs, b.first_epoch) for b in began] == [(epochs, first)]
    ended = [event for event in events if isinstance(event, EpochDone)]
    assert [event.epoch for event in ended] == list(range(first, epochs))
    assert all(event.train_loss is not None for event in ended)
    assert all(event.val_loss is not None for event in ended)
    written = [event.epochs for event in events if isinstance(event, CheckpointWritten)]
    assert written == list(range(first + 1, epochs + 1))
    order = [e for e in events if isinstance(e, EpochDone | CheckpointWritten)]
    assert all(isinstance(e, EpochDone) for e in order[::2])
    assert any(isinstance(event, Stepped) for event in events)


def _check_model(outcome: Outcome, directory: Path, *, epochs: int) -> None:
    assert outcome.epochs == epochs
    assert outcome.metrics.epochs == epochs
    assert outcome.best is not None
    assert outcome.best.parent == directory
    assert outcome.best.name in outcome.files
    for name in ("training_config.yaml", "training_log.csv"):
        assert name in outcome.files
    for name in outcome.files:
        assert (directory / name).is_file(), name
