"""Kills: of the trainer, of the runner, of whoever follows; and what is there afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sleap_rtc.domain.values import decode
from sleap_rtc.engines.process import identify
from sleap_rtc.jobs.events import Logged, StageStarted
from sleap_rtc.jobs.lifecycle import JobView
from sleap_rtc.worker.runner.attempts import Ended, StageFolder
from sleap_rtc.worker.runner.client import attach
from sleap_rtc.worker.runner.plan import RunnerFile

pytestmark = pytest.mark.slow


def begun(epoch: int) -> Any:
    """The first step of an epoch: the checkpoint of the one before is on disk."""
    return lambda view: view.progress is not None and view.progress.epoch == epoch


def first_epochs(worker: Any, job: Any) -> list[int]:
    """Where each attempt began, as the engine said."""
    bodies = [event.body for event in worker.log(job)]
    return [body.first_epoch for body in bodies if isinstance(body, StageStarted)]


async def kill_runner(worker: Any, handle: Any) -> None:
    os.kill(handle.process.pid, signal.SIGKILL)
    await worker.gone(handle.process)


async def interrupted_by_a_killed_trainer(worker: Any, job: Any, after: int) -> JobView:
    handle = await worker.launch(job)
    worker.go(after)
    await worker.until(handle, begun(after))
    os.kill(worker.trainer(job).pid, signal.SIGKILL)
    view: JobView = await worker.to_end(handle)
    return view


async def test_a_killed_trainer_interrupts_the_job_and_another_goes_on(worker: Any) -> None:
    job = worker.train({"epochs": 5}, {"epochs": 1})
    view = await interrupted_by_a_killed_trainer(worker, job, 2)
    assert view.state == "interrupted"
    assert view.error is None
    record = worker.library.get(view.stage_view(0).record.id).record
    assert (record.status, record.interruption.epoch) == ("interrupted", 2)
    assert record.interruption.checkpoint == "last.ckpt"
    assert {file.path for file in record.files} == {"best.ckpt", "last.ckpt"}

    again = worker.train({"epochs": 5}, resume=record.id)
    handle = await worker.launch(again)
    worker.go(3)
    view = await worker.to_end(handle)
    assert view.state == "completed"
    assert first_epochs(worker, again)[-1] == 2
    assert [e.epoch for e in view.stage_view(0).losses] == [2, 3, 4]
    done = worker.library.get(record.id).record
    assert done.status == "completed"
    assert done.metrics.epochs == 5
    assert done.training.resumed_from == ("epoch 2",)
    assert done.training.job == again.root.name
    assert done.training.duration_s > record.training.duration_s > 0
    assert [file.path for file in done.files] == ["best.ckpt"]
    assert done.interruption is None


async def test_the_same_job_queued_again_goes_on(worker: Any) -> None:
    job = worker.train({"epochs": 1, "gate": None}, {"epochs": 4})
    handle = await worker.launch(job)
    worker.go(2)
    await worker.until(handle, lambda v: v.progress and (v.stage, v.progress.epoch) == (1, 2))
    os.kill(worker.trainer(job).pid, signal.SIGKILL)
    assert (await worker.to_end(handle)).state == "interrupted"
    worker.requeue(job)
    handle = await worker.launch(job)
    worker.go(2)
    view = await worker.to_end(handle)
    assert view.state == "completed"
    assert [e.epoch for e in view.stage_view(1).losses] == [0, 1, 2, 3]
    assert len(view.outputs) == 2
    assert [event.n for event in worker.log(job)] == list(range(1, view.number + 1))


async def test_a_second_attempt_that_dies_early_loses_nothing_of_the_first(worker: Any) -> None:
    job = worker.train({"epochs": 5})
    await interrupted_by_a_killed_trainer(worker, job, 2)
    worker.requeue(job)
    handle = await worker.launch(job)
    await worker.until(
        handle, lambda view: view.progress is not None, since=worker.view(job).number
    )
    os.kill(worker.trainer(job).pid, signal.SIGKILL)
    view = await worker.to_end(handle)
    assert view.stage_view(0).record.interruption.epoch == 2
    worker.requeue(job)
    handle = await worker.launch(job)
    worker.go(3)
    view = await worker.to_end(handle)
    assert view.state == "completed"
    assert view.stage_view(0).record.metrics.epochs == 5


@pytest.mark.parametrize("damage", ["changed", "gone"])
async def test_without_its_checkpoint_training_starts_again(worker: Any, damage: str) -> None:
    job = worker.train({"epochs": 3})
    view = await interrupted_by_a_killed_trainer(worker, job, 1)
    record = view.stage_view(0).record
    checkpoint = worker.library.models_dir / record.directory / "last.ckpt"
    if damage == "gone":
        checkpoint.unlink()
    else:
        checkpoint.write_bytes(b"x" * checkpoint.stat().st_size)
    again = worker.train({"epochs": 3}, resume=record.id)
    handle = await worker.launch(again)
    worker.go(3)
    view = await worker.to_end(handle)
    assert view.state == "completed"
    assert [e.epoch for e in view.stage_view(0).losses] == [0, 1, 2]
    said = [e.body.line for e in worker.log(again) if isinstance(e.body, Logged)]
    assert any("no usable checkpoint" in line for line in said)
    assert worker.library.get(record.id).record.training.resumed_from == ()


async def test_a_model_is_not_resumed_with_other_data(worker: Any) -> None:
    job = worker.train({"epochs": 3})
    view = await interrupted_by_a_killed_trainer(worker, job, 1)
    before = view.stage_view(0).record
    other = worker.train({"epochs": 3}, resume=before.id, dataset="cd" * 32)
    view = await worker.to_end(await worker.launch(other))
    assert (view.state, view.error.code) == ("failed", "conflict")
    assert worker.library.get(before.id).record == before


async def test_a_complete_model_is_not_resumed(worker: Any) -> None:
    job = worker.train({"epochs": 1, "gate": None})
    view = await worker.to_end(await worker.launch(job))
    model = view.stage_view(0).record.id
    again = worker.train({"epochs": 1, "gate": None}, resume=model)
    view = await worker.to_end(await worker.launch(again))
    assert (view.state, view.error.code) == ("failed", "illegal_transition")
    assert worker.library.get(model).record.status == "completed"


@pytest.mark.parametrize("deaf", [False, True])
async def test_a_killed_runner_is_recovered_and_goes_on(worker: Any, deaf: bool) -> None:
    job = worker.train({"epochs": 5, "deaf": deaf})
    handle = await worker.launch(job)
    worker.go(2)
    await worker.until(handle, begun(2))
    trainer = worker.trainer(job)
    socket = Path(decode(RunnerFile, job.runner.read_bytes(), what="runner").socket)
    os.kill(handle.process.pid, signal.SIGKILL)
    # Whoever follows sees the events end, and the job not settled.
    assert (await worker.to_end(handle)).state == "running"
    view = await worker.recover(job)
    assert identify(trainer.pid) != trainer
    assert view.state == "interrupted"
    assert view.stage_view(0).record.interruption.epoch == 2
    assert not socket.parent.exists()
    assert attach(job) is None
    assert await worker.recover(job) == view  # again: nothing

    worker.requeue(job)
    handle = await worker.launch(job)
    worker.go(3)
    view = await worker.to_end(handle)
    assert view.state == "completed"
    assert [e.epoch for e in view.stage_view(0).losses] == [0, 1, 2, 3, 4]


async def test_a_number_that_belongs_to_another_process_now_is_left_alone(worker: Any) -> None:
    job = worker.train({"epochs": 5})
    handle = await worker.launch(job)
    await worker.until(handle, lambda view: view.progress is not None)
    found = json.loads(job.trainer.read_text())
    await kill_runner(worker, handle)
    other = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
    found["process"]["pid"] = other.pid
    job.trainer.write_text(json.dumps(found))
    view = await worker.recover(job)
    assert other.returncode is None
    other.kill()
    assert await other.wait() == -signal.SIGKILL
    assert view.state == "interrupted"


async def test_a_trained_model_is_kept_though_its_runner_was_killed(worker: Any) -> None:
    job = worker.train({"epochs": 2}, {"epochs": 1})
    handle = await worker.launch(job)
    worker.go(1)
    await worker.until(handle, begun(1))
    await kill_runner(worker, handle)
    # As if it had been killed a moment later, between the engine's end and the library.
    folder = StageFolder(job.stage(0))
    attempt = folder.attempt()
    found = worker.engine.inspect(attempt.plan)
    folder.save_ended(
        Ended(
            outcome=msgspec.structs.replace(found, kind="succeeded", files=("best.ckpt",)),
            duration_s=3.0,
        )
    )
    view = await worker.recover(job)
    assert view.state == "interrupted"
    assert view.is_trained(0)
    worker.requeue(job)
    handle = await worker.launch(job)
    worker.go(1)
    view = await worker.to_end(handle)
    assert view.state == "completed"
    assert len([e for e in worker.log(job) if isinstance(e.body, StageStarted)]) == 2
    assert view.is_trained(1)


async def test_only_the_last_words_were_missing(worker: Any) -> None:
    job = worker.train({"epochs": 1, "gate": None})
    view = await worker.to_end(await worker.launch(job))
    assert view.state == "completed"
    lines = job.log.read_bytes().splitlines(keepends=True)
    job.log.write_bytes(b"".join(lines[:-1]) + lines[-1][:-5])
    view = await worker.recover(job)
    assert view.state == "completed"
    assert view.number == len(lines)


async def test_a_cancel_that_was_asked_for_is_kept(worker: Any) -> None:
    job = worker.train({"epochs": 5, "deaf": True})
    handle = await worker.launch(job)
    worker.go(1)
    await worker.until(handle, begun(1))
    await handle.command("r1", "cancel")
    await kill_runner(worker, handle)
    view = await worker.recover(job)
    assert view.state == "cancelled"
    assert view.stage_view(0).record.interruption.epoch == 1


async def test_a_job_that_no_runner_had_begun_stays_as_it_is(worker: Any) -> None:
    job = worker.train({})
    assert (await worker.recover(job)).state == "queued"
    assert len(worker.log(job)) == 1


async def test_a_killed_tracking_goes_on_with_the_next_video(worker: Any) -> None:
    job = worker.track("one", f"gate:{worker.gate_path}")
    handle = await worker.launch(job)
    await worker.until(handle, lambda view: view.stage == 1 and view.progress is not None)
    await kill_runner(worker, handle)
    assert (await worker.recover(job)).state == "interrupted"
    worker.requeue(job)
    worker.go()
    view = await worker.to_end(await worker.launch(job))
    assert view.state == "completed"
    stages = [e.body.stage for e in worker.log(job) if isinstance(e.body, StageStarted)]
    assert stages == [0, 1, 1]


FOLLOWER = """
import asyncio, sys
from pathlib import Path
from sleap_rtc.worker.job_directory import JobDirectory
from sleap_rtc.worker.runner.client import attach

async def follow():
    async for event in attach(JobDirectory(root=Path(sys.argv[1]))).events():
        print(event.n, flush=True)

asyncio.run(follow())
"""


async def test_a_killed_daemon_comes_back_and_misses_nothing(worker: Any) -> None:
    job = worker.train({"epochs": 4})
    handle = await worker.launch(job)
    daemon = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FOLLOWER, str(job.root), stdout=asyncio.subprocess.PIPE
    )
    assert daemon.stdout is not None
    worker.go(1)
    known = 0
    while known < worker.view(job).number or not begun(1)(worker.view(job)):
        known = int(await daemon.stdout.readline())
    daemon.kill()
    await daemon.wait()
    worker.go(3)
    again = attach(job)
    assert again == handle
    events = [event.n async for event in again.events(known)]
    view = worker.view(job)
    assert view.state == "completed"
    assert events == list(range(known + 1, view.number + 1))


async def test_the_runner_outlives_the_process_that_launched_it(worker: Any) -> None:
    job = worker.train({"epochs": 2})
    program = (
        "import asyncio, os, signal, sys\n"
        "from pathlib import Path\n"
        "from sleap_rtc.worker.job_directory import JobDirectory\n"
        "from sleap_rtc.worker.runner.client import launch\n"
        "async def go():\n"
        "    await launch(JobDirectory(root=Path(sys.argv[1])), program=sys.argv[2:])\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(go())\n"
    )
    stepwise = str(Path(__file__).with_name("stepwise.py"))
    arguments = [str(job.root), sys.executable, stepwise]
    daemon = await asyncio.create_subprocess_exec(sys.executable, "-c", program, *arguments)
    assert await daemon.wait() == -signal.SIGKILL
    handle = attach(job)
    assert handle is not None
    assert os.getsid(handle.process.pid) != os.getsid(0)
    worker.go(2)
    assert (await worker.to_end(handle)).state == "completed"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
async def test_a_full_disk_loses_progress_and_not_the_end(small_disk: Any, worker: Any) -> None:
    disk = small_disk(600)
    job = worker.train({"epochs": 4})
    small = type(job)(root=disk / job.root.name)
    shutil.copytree(job.root, small.root)
    handle = await worker.launch(small)
    worker.go(1)
    await worker.until(handle, begun(1))
    filler = disk / "filler"
    fill(filler)
    os.kill(worker.trainer(small).pid, signal.SIGKILL)
    view = await worker.to_end(handle)
    assert view.state == "interrupted"
    assert view.stage_view(0).record.interruption.epoch == 1
    filler.unlink()
    worker.requeue(small)
    handle = await worker.launch(small)
    worker.go(3)
    assert (await worker.to_end(handle)).state == "completed"
    await worker.gone(handle.process)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
async def test_a_library_on_a_full_disk_gets_the_model_later(small_disk: Any, worker: Any) -> None:
    disk = small_disk(600)
    job = worker.train({"epochs": 2})
    plan = json.loads(job.plan.read_text()) | {"library": str(disk / "models")}
    job.plan.write_text(json.dumps(plan))
    handle = await worker.launch(job)
    worker.go(1)
    await worker.until(handle, begun(1))
    fill(disk / "filler")
    worker.go(1)
    view = await worker.to_end(handle)
    assert (view.state, view.error.code) == ("interrupted", "out_of_space")
    assert view.outputs == ()
    (disk / "filler").unlink()
    worker.requeue(job)
    view = await worker.to_end(await worker.launch(job))
    assert view.state == "completed"
    assert view.is_trained(0)
    # The second attempt only brought in what the first had trained.
    assert len([e for e in worker.log(job) if isinstance(e.body, StageStarted)]) == 1


def fill(path: Path) -> None:
    """Use up what is left of a disk."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))
