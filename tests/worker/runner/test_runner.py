"""The runner as real processes: a whole job, commands, and what ends it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from sleap_rtc.domain.values import decode
from sleap_rtc.engines.process import identify
from sleap_rtc.errors import Busy, IllegalTransition, LinkLost
from sleap_rtc.jobs.events import (
    CommandReceived,
    EpochEnded,
    Logged,
    ModelChanged,
    OutputReady,
    Progress,
    StageStarted,
    StateChanged,
)
from sleap_rtc.jobs.lifecycle import JobView
from sleap_rtc.worker.runner.client import attach
from sleap_rtc.worker.runner.plan import RunnerFile

pytestmark = pytest.mark.slow


def training(view: JobView) -> bool:
    """The first stage does its first steps."""
    return view.progress is not None


def begun(epoch: int) -> Any:
    """The first step of an epoch: the checkpoint of the one before is on disk."""
    return lambda view: view.progress is not None and view.progress.epoch == epoch


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def test_a_job_of_two_models(worker: Any) -> None:
    job = worker.train({"epochs": 2}, {"epochs": 3, "gate": None})
    handle = await worker.launch(job)
    socket = decode(RunnerFile, job.runner.read_bytes(), what="runner").socket
    assert len(socket) < 104
    assert stat.S_IMODE(Path(socket).parent.stat().st_mode) == 0o700
    worker.go(2)
    view = await worker.to_end(handle)
    await worker.gone(handle.process)

    assert view.state == "completed"
    assert view == worker.view(job)
    bodies = [event.body for event in worker.log(job)]
    states = [body.state for body in bodies if isinstance(body, StateChanged)]
    assert states == [
        *("queued", "assigned", "preparing", "running", "finishing", "completed"),
    ]
    for stage, (name, count) in enumerate([("centroid", 2), ("centered_instance", 3)]):
        seen = view.stage_view(stage)
        assert [e.epoch for e in seen.losses] == list(range(count))
        assert [e.train_loss for e in seen.losses] == [1 / (e + 1) for e in range(count)]
        assert all(e.duration_s is not None and e.duration_s >= 0 for e in seen.losses)
        assert seen.losses[-1].eta_s == 0.0
        record = worker.library.get(seen.record.id).record
        assert record == seen.record
        assert record.model_type == name
        assert record.status == "completed"
        assert [file.path for file in record.files] == ["best.ckpt"]
        assert record.checkpoint == "best.ckpt"
        assert record.metrics.epochs == count
        assert record.training.job == job.root.name
        assert record.training.engine_version == "1.2.3"
        assert record.training.worker == "gpu-01"
        assert record.training.hyperparameters == {"max_epochs": count}
        assert record.training.duration_s > 0
        assert (worker.library.models_dir / record.directory / "best.ckpt").is_file()
        (output,) = [o for o in view.outputs if o.stage == stage]
        assert output.package.id == record.package
    # Nothing is left that the library has, nor anything of the process.
    assert not any((job.root / "stages").iterdir())
    assert not list((worker.library.models_dir / ".incoming").iterdir())
    assert not job.runner.exists()
    assert not job.trainer.exists()
    assert not Path(socket).parent.exists()
    assert attach(job) is None
    with pytest.raises(LinkLost):
        await handle.command("late", "cancel")


async def test_events_are_limited_and_epochs_are_not(worker: Any) -> None:
    job = worker.train({"epochs": 30, "gate": None, "steps": 300, "lines": 3000})
    view = await worker.to_end(await worker.launch(job))
    assert len(view.stage_view(0).losses) == 30
    log = worker.log(job)
    times = [event.at for event in log if isinstance(event.body, Progress)]
    assert all((b - a).total_seconds() > 0.2 for a, b in itertools.pairwise(times))
    lines = [event.body.line for event in log if isinstance(event.body, Logged)]
    assert lines[:3] == ["line 0", "line 1", "line 2"]
    assert len(lines) < 1000


async def test_stop_ends_a_stage_and_the_next_is_trained(worker: Any) -> None:
    job = worker.train({"epochs": 50}, {"epochs": 1, "gate": None})
    handle = await worker.launch(job)
    worker.go(2)
    await worker.until(handle, begun(2))
    await handle.command("r1", "stop", by="ann")
    view = await worker.to_end(handle)
    assert view.state == "completed"
    assert [len(view.stage_view(stage).losses) for stage in (0, 1)] == [2, 1]
    assert view.stage_view(0).record.metrics.epochs == 2
    assert [view.stage_view(stage).record.status for stage in (0, 1)] == ["completed"] * 2


async def test_the_same_request_is_done_once(worker: Any) -> None:
    job = worker.train({"epochs": 5})
    handle = await worker.launch(job)
    await worker.until(handle, training)
    for _ in range(3):
        await handle.command("r1", "pause", by="ann")
    await handle.command("r2", "resume")
    await handle.command("r1", "pause")  # a late repeat doesn't pause it again
    worker.go(5)
    view = await worker.to_end(handle)
    assert view.state == "completed"
    taken = [e.body for e in worker.log(job) if isinstance(e.body, CommandReceived)]
    assert [(c.id, c.command, c.by) for c in taken] == [
        ("r1", "pause", "ann"),
        ("r2", "resume", ""),
    ]


async def test_pause_freezes_the_trainer(worker: Any) -> None:
    job = worker.train({"epochs": 2})
    handle = await worker.launch(job)
    await worker.until(handle, training)
    pid = worker.trainer(job).pid
    await handle.command("r1", "pause")
    assert worker.view(job).state == "paused"
    assert state_of(pid) == "T"
    await handle.command("r2", "resume")
    assert state_of(pid) != "T"
    worker.go(2)
    assert (await worker.to_end(handle)).state == "completed"


async def test_a_paused_job_can_be_stopped(worker: Any) -> None:
    job = worker.train({"epochs": 50})
    handle = await worker.launch(job)
    worker.go()
    await worker.until(handle, begun(1))
    await handle.command("r1", "pause")
    await handle.command("r2", "stop")
    view = await worker.to_end(handle)
    assert view.state == "completed"
    assert view.stage_view(0).record.metrics.epochs == 1


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("deaf", [False, True])
async def test_cancel_keeps_the_checkpoint(worker: Any, paused: bool, deaf: bool) -> None:
    job = worker.train({"epochs": 50, "deaf": deaf}, {"epochs": 1})
    handle = await worker.launch(job)
    worker.go(2)
    await worker.until(handle, begun(2))
    trainer = worker.trainer(job)
    if paused:
        await handle.command("r1", "pause")
    await handle.command("r2", "cancel", by="ann")
    view = await worker.to_end(handle)
    assert view.state == "cancelled"
    assert identify(trainer.pid) != trainer
    record = worker.library.get(view.stage_view(0).record.id).record
    assert record.status == "interrupted"
    assert record.interruption.epoch == 2
    assert (worker.library.models_dir / record.directory / record.interruption.checkpoint).is_file()
    assert view.stages == 2
    assert view.stage_view(1).record is None
    with pytest.raises(LinkLost):
        await handle.command("r3", "cancel")


async def started(worker: Any, **config: Any) -> Any:
    """A job whose stage is announced, and whose engine waits to be let go."""
    job = worker.train({"hold": str(worker.gate_path), **config})
    handle = await worker.launch(job)
    await worker.until(handle, lambda view: view.stage == 0)
    return job, handle


async def test_pausing_before_the_trainer_is_there(worker: Any) -> None:
    job, handle = await started(worker, epochs=2)
    await handle.command("r1", "pause")
    assert worker.view(job).state == "paused"
    worker.go()
    async with asyncio.timeout(60):
        while not job.trainer.exists() or state_of(worker.trainer(job).pid) != "T":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await handle.command("r2", "resume")
    worker.go(2)
    assert (await worker.to_end(handle)).state == "completed"


async def test_stopping_before_the_trainer_is_there(worker: Any) -> None:
    _, handle = await started(worker, epochs=50)
    await handle.command("r1", "stop")
    worker.go(1)
    view = await worker.to_end(handle)
    assert (view.state, view.error.code) == ("failed", "training_failed")
    assert "before its first epoch was whole" in view.error.message
    assert view.stage_view(0).losses == ()


async def test_cancelling_before_the_trainer_is_there(worker: Any) -> None:
    _, handle = await started(worker, epochs=50)
    await handle.command("r1", "cancel")
    worker.go()
    view = await worker.to_end(handle)
    assert view.state == "cancelled"
    assert view.stage_view(0).record.status == "interrupted"
    assert view.stage_view(0).record.interruption.epoch == 0


async def test_leaving_before_the_trainer_is_there(worker: Any) -> None:
    _, handle = await started(worker, epochs=50)
    os.kill(handle.process.pid, signal.SIGTERM)
    worker.go()
    view = await worker.to_end(handle)
    assert view.state == "interrupted"
    assert "shut down" in view.reason


async def test_a_fault_in_an_engine_fails_the_job(worker: Any) -> None:
    job = worker.train({"crash": True})
    view = await worker.to_end(await worker.launch(job))
    assert (view.state, view.error.code) == ("failed", "error")
    assert "ZeroDivisionError: a fault of the engine's author" in view.error.message
    assert "Traceback" in job.runner_log.read_text()


async def test_cancel_before_the_first_stage(worker: Any) -> None:
    job = worker.train({"epochs": 5})
    handle = await worker.launch(job)
    await handle.command("r1", "cancel")
    view = await worker.to_end(handle)
    assert view.state == "cancelled"
    assert view.stage_view(0).losses == ()


async def test_cancel_of_the_second_model_keeps_the_first(worker: Any) -> None:
    job = worker.train({"epochs": 1, "gate": None}, {"epochs": 50})
    handle = await worker.launch(job)
    await worker.until(handle, lambda view: view.stage == 1 and view.progress is not None)
    await handle.command("r1", "cancel")
    view = await worker.to_end(handle)
    assert view.state == "cancelled"
    assert view.is_trained(0)
    assert view.stage_view(1).record.interruption.epoch == 0


async def test_commands_that_make_no_sense_are_refused_and_not_logged(worker: Any) -> None:
    job = worker.train({"epochs": 3, "deaf": True}, grace_s=60)
    handle = await worker.launch(job)
    await worker.until(handle, training)
    await handle.command("r0", "pause")
    await handle.command("r1", "pause")
    await handle.command("r2", "cancel")
    with pytest.raises(
        IllegalTransition, match=r"being cancelled; resume is not possible"
    ) as error:
        await handle.command("r3", "resume")
    assert error.value.exit_code == 4
    os.kill(worker.trainer(job).pid, signal.SIGKILL)  # it would take its minute
    view = await worker.to_end(handle)
    assert view.state == "cancelled"
    assert view.commands == ("r0", "r1", "r2")


async def test_a_failing_trainer_fails_the_job_with_its_last_lines(worker: Any) -> None:
    job = worker.train({"epochs": 5, "fail_at": 2, "gate": None}, {"epochs": 1})
    view = await worker.to_end(await worker.launch(job))
    assert view.state == "failed"
    assert view.error.code == "training_failed"
    assert "the made-up network exploded" in view.error.message
    assert any("Traceback" in line for line in view.error.log_tail)
    record = worker.library.get(view.stage_view(0).record.id).record
    assert record.status == "failed"
    assert "exploded" in record.failure
    assert view.stage_view(1).record is None


@pytest.mark.parametrize(
    ("stages", "code", "words"),
    [
        (
            ({}, {"refused": {"trainer_config.ckpt_dir": "paths are set here"}}),
            "invalid_config",
            "ckpt_dir",
        ),
        (({"asked": "centered_instance"},), "invalid_config", "declares a centroid"),
        (({"raw": b"{"},), "invalid_config", "not JSON"),
        (({"raw": b"\xff\xfe"},), "invalid_config", "not UTF-8"),
    ],
)
async def test_bad_configurations_fail_before_anything_is_trained(
    worker: Any, stages: tuple[dict[str, Any], ...], code: str, words: str
) -> None:
    job = worker.train(*stages)
    view = await worker.to_end(await worker.launch(job))
    assert (view.state, view.error.code) == ("failed", code)
    assert words in view.error.message
    assert view.seen == ()
    assert worker.library.list().entries == ()


async def test_a_file_that_is_not_in_the_package(worker: Any) -> None:
    view = await worker.to_end(await worker.launch(worker.train({}, labels="other.slp")))
    assert (view.state, view.error.code) == ("failed", "not_found")
    outside = worker.train({}, labels="../../../etc/passwd")
    view = await worker.to_end(await worker.launch(outside))
    assert (view.state, view.error.code) == ("failed", "unsafe_path")


async def test_an_engine_that_is_missing(worker: Any) -> None:
    view = await worker.to_end(await worker.launch(worker.train({"missing": True})))
    assert (view.state, view.error.code) == ("failed", "engine_missing")
    assert view.error.hint == "Run there: sleap-rtc engine install stepwise"
    assert view.stage_view(0).record.status == "failed"


async def test_one_runner_for_one_job(worker: Any) -> None:
    job = worker.train({"epochs": 1})
    handle = await worker.launch(job)
    with pytest.raises(Busy, match=job.root.name):
        await worker.launch(job)
    with pytest.raises(Busy):
        await worker.recover(job)
    with pytest.raises(Busy):
        worker.store.remove(job.root.name)
    worker.go()
    assert (await worker.to_end(handle)).state == "completed"
    worker.store.remove(job.root.name)
    assert worker.store.ids() == []


async def test_a_settled_job_is_not_run_again(worker: Any) -> None:
    job = worker.train({"gate": None})
    await worker.to_end(await worker.launch(job))
    with pytest.raises(IllegalTransition, match="completed; starting it"):
        await worker.launch(job)


async def test_a_job_without_a_readable_plan_does_not_start(worker: Any) -> None:
    job = worker.train({})
    job.plan.write_text("{}")
    with pytest.raises(Exception, match=r"plan\.json"):
        await worker.launch(job)
    assert worker.view(job).state == "queued"


async def test_a_job_directory_with_a_long_path(tmp_path: Path, worker: Any) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    job = worker.train({"gate": None})
    moved = type(job)(root=deep / job.root.name)
    job.root.rename(moved.root)
    assert (await worker.to_end(await worker.launch(moved))).state == "completed"


async def test_the_runner_told_to_end_keeps_the_checkpoint(worker: Any) -> None:
    job = worker.train({"epochs": 50})
    handle = await worker.launch(job)
    worker.go(3)
    await worker.until(handle, begun(3))
    os.kill(handle.process.pid, signal.SIGTERM)
    view = await worker.to_end(handle)
    assert view.state == "interrupted"
    assert "shut down" in view.reason
    assert view.stage_view(0).record.interruption.epoch == 3


async def test_many_follow_and_a_bad_one_does_no_harm(worker: Any) -> None:
    job = worker.train({"epochs": 4})
    handle = await worker.launch(job)
    reader, writer = await asyncio.open_unix_connection(handle.socket)
    writer.write(b"x" * 200_000)
    with contextlib.suppress(ConnectionError):  # it hangs up, politely or not
        assert await reader.read() == b""
    writer.close()
    followers = [asyncio.create_task(worker.to_end(handle)) for _ in range(5)]
    await worker.until(handle, training)
    worker.go(4)
    views = await asyncio.gather(*followers)
    assert all(view == worker.view(job) for view in views)


async def test_since(worker: Any) -> None:
    job = worker.train({"epochs": 1})
    handle = await worker.launch(job)
    half = await worker.until(handle, training)
    worker.go()
    whole = await worker.until(handle, lambda view: False, since=half.number)
    assert whole == worker.view(job)
    assert whole.number > half.number
    kinds = {type(event.body) for event in worker.log(job)}
    assert {StageStarted, EpochEnded, ModelChanged, OutputReady} <= kinds


async def test_tracking(worker: Any) -> None:
    job = worker.track("one", "two")
    view = await worker.to_end(await worker.launch(job))
    assert view.state == "completed"
    assert [seen.name for seen in view.seen] == ["clips/v0.mp4", "clips/v1.mp4"]
    assert (view.progress.done, view.progress.total, view.progress.eta_s) == (4, 4, 0.0)
    (output,) = view.outputs
    assert output.what == "predictions"
    assert output.package.files == 2
    assert output.about == {
        "models": [{"id": m.id, "package": m.package} for m in job.read_spec().work.models],
        "engine": "stepwise",
    }
    assert (job.predictions / "clips/v0.mp4.predictions.slp").is_file()
    found = job.predictions / "clips/v1.mp4.predictions.slp"
    assert found.read_text() == "predictions of two"


async def test_tracking_fails_with_the_video_named(worker: Any) -> None:
    view = await worker.to_end(await worker.launch(worker.track("one", "bad")))
    assert view.state == "failed"
    assert "clips/v1.mp4" in view.error.message
    assert "no frame can be read" in view.error.message


@pytest.mark.parametrize("ending", [".slp", ".SLP", ".h5", ".nwb", ""])
async def test_what_could_name_other_files_is_no_video(worker: Any, ending: str) -> None:
    view = await worker.to_end(await worker.launch(worker.track("one", ending=ending)))
    assert view.state == "failed"
    assert f"clips/v0{ending} is not taken as a video" in view.reason


async def test_tracking_is_cancelled(worker: Any) -> None:
    job = worker.track("one", f"gate:{worker.gate_path}")
    handle = await worker.launch(job)
    await worker.until(handle, lambda view: view.stage == 1 and view.progress is not None)
    with pytest.raises(IllegalTransition, match="tracking"):
        await handle.command("r0", "stop")
    await handle.command("r1", "cancel")
    assert (await worker.to_end(handle)).state == "cancelled"
    assert not job.predictions.exists()
