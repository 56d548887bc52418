"""Whole jobs with the engine ``tiny``, by the program that a worker starts."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from blake3 import blake3

from sleap_rtc.jobs.spec import ModelRef, TrackSpec, TrainSpec, TrainStage
from sleap_rtc.media.synthetic import SyntheticSpec, make_dataset
from sleap_rtc.worker.runner.client import PROGRAM

pytestmark = pytest.mark.slow

CONFIG = """
data_config:
  validation_fraction: 0.2
  preprocessing: {scale: 0.5}
model_config:
  backbone_config:
    unet: {filters: 4, max_stride: 16}
  head_configs:
    single_instance: {confmaps: {sigma: 2.0}}
trainer_config:
  train_data_loader: {batch_size: 4}
  train_steps_per_epoch: 5
  max_epochs: 30
  optimizer: {lr: 0.003}
"""


async def test_train_killed_resumed_and_tracked(worker: Any) -> None:
    made = make_dataset(
        worker.root / "made", SyntheticSpec(size=(96, 96), animals=1, labelled=10, frames=12)
    )
    labels = made.package.read_bytes()

    def train(resume: str | None = None) -> Any:
        stage = TrainStage(
            config="c.yaml",
            model_type="single_instance",
            run_name="one",
            resume=resume,  # type: ignore[arg-type]
        )
        work = TrainSpec(
            labels="l.pkg.slp",
            stages=(stage,),
            dataset_name="l.pkg.slp",
            dataset_hash=blake3(labels).hexdigest(),
        )
        files = {"l.pkg.slp": labels, "c.yaml": CONFIG.encode()}
        return worker.submit(work, files, engine="tiny")

    job = train()
    handle = await worker.launch(job, PROGRAM)
    await worker.until(handle, lambda view: len(view.stage_view(0).losses) >= 3)
    os.kill(worker.trainer(job).pid, signal.SIGKILL)
    view = await worker.to_end(handle)
    assert view.state == "interrupted", view.error
    record = view.stage_view(0).record
    assert record.interruption.epoch >= 2

    job = train(resume=record.id)
    handle = await worker.launch(job, PROGRAM)
    await worker.until(handle, lambda view: bool(view.stage_view(0).losses))
    await handle.command("r1", "stop")
    view = await worker.to_end(handle)
    assert view.state == "completed", view.error
    # A checkpoint may be on disk before the trainer could say so.
    assert view.stage_view(0).losses[0].epoch - record.interruption.epoch in (0, 1)
    done = worker.library.get(record.id).record
    assert done.status == "completed"
    assert done.training.engine == "tiny"
    assert done.metrics.epochs > record.interruption.epoch
    assert done.checkpoint == "best.npz"

    model = ModelRef(id=done.id, package=done.package)
    job = worker.submit(
        TrackSpec(models=(model,), videos=("v.mp4",), frames=(0, 9)),
        {"v.mp4": made.video.read_bytes()},
        models=(str(worker.library.models_dir / done.directory),),
        engine="tiny",
    )
    view = await worker.to_end(await worker.launch(job, PROGRAM))
    assert view.state == "completed", view.error
    assert (view.progress.done, view.progress.total) == (10, 10)
    found = (job.predictions / "v.mp4.predictions.slp").read_bytes()
    assert found.startswith(b"\x89HDF")
    assert done.package.encode() in found
