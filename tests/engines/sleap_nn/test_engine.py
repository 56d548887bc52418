from __future__ import annotations

from pathlib import Path

import h5py
import pytest

from sleap_rtc.domain.models import safety_of
from sleap_rtc.engines.base import Engine, Installation, Said, TrackPlan
from sleap_rtc.engines.process import Ending
from sleap_rtc.engines.sleap_nn import environment
from sleap_rtc.engines.sleap_nn.engine import SleapNNEngine, _Tracking
from sleap_rtc.engines.sleap_nn.places import Places
from sleap_rtc.errors import FilesMissing
from sleap_rtc.library.importing.importer import Imported, Importer
from sleap_rtc.library.importing.wishes import Wishes
from sleap_rtc.library.inspection.formats import look
from sleap_rtc.library.registry import Registry
from sleap_rtc.media.synthetic import SyntheticSpec, make_dataset
from sleap_rtc.testing.engine_conformance import EngineConformance, EngineWork

CONFIG = """
data_config:
  data_pipeline_fw: torch_dataset_cache_img_memory
  validation_fraction: 0.2
  preprocessing: {{ensure_grayscale: true, scale: 0.5}}
model_config:
  backbone_config:
    unet:
      in_channels: 1
      kernel_size: 3
      filters: 4
      filters_rate: 1.5
      max_stride: 8
      convs_per_block: 2
      middle_block: true
      up_interpolate: true
      output_stride: 2
  head_configs:
    single_instance: {{confmaps: {{sigma: 2.5, output_stride: 2}}}}
trainer_config:
  train_data_loader: {{batch_size: 4, num_workers: 0}}
  min_train_steps_per_epoch: 1
  train_steps_per_epoch: 4
  max_epochs: {epochs}
  seed: 42
  optimizer: {{lr: 0.003}}
  early_stopping: {{stop_training_on_plateau: false}}
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> EngineWork:
    spec = SyntheticSpec(size=(96, 96), animals=1, labelled=10, frames=8)
    made = make_dataset(tmp_path_factory.mktemp("made"), spec)
    return EngineWork(
        labels=made.package,
        video=made.video,
        frames=6,
        model_type="single_instance",
        config=lambda epochs: CONFIG.format(epochs=epochs),
    )


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.timeout(900)  # the first of them may have to make the environment
class TestSleapNN(EngineConformance):
    @pytest.fixture
    def engine(self, places: Places) -> SleapNNEngine:
        return SleapNNEngine(places)

    @pytest.fixture(name="work")
    def _work(self, work: EngineWork) -> EngineWork:
        return work

    async def test_killed_twice_and_cancelled_it_goes_on_to_its_end_and_tracks(
        self, engine: Engine, work: EngineWork, tmp_path: Path
    ) -> None:
        await super().test_killed_twice_and_cancelled_it_goes_on_to_its_end_and_tracks(
            engine, work, tmp_path
        )
        _is_imported(tmp_path / "d" / "run" / "attempt-d", tmp_path / "models")


def _is_imported(folder: Path, library: Path) -> None:
    """What the trainer itself wrote is known, whole, when a person imports it."""
    with Registry(library, index_dir=library.parent / "index") as registry:
        (imported,) = Importer(registry, Wishes()).run([folder])
    assert isinstance(imported, Imported), imported
    record = imported.entry.record
    assert record.model_type == "single_instance"
    assert record.checkpoint == "best.ckpt"
    assert record.name == "attempt-d"
    assert record.skeleton == ("head", "body", "tail")
    assert record.training.engine_version == environment.VERSION
    assert record.training.hyperparameters["learning_rate"] == 0.003
    # The trainer's own log begins anew when it goes on from a checkpoint.
    assert record.metrics.epochs is not None
    assert record.metrics.best_val_loss is not None
    assert safety_of(record).tier == "scanned"
    assert look(folder / "best.ckpt").format == "lightning"
    names = {file.path for file in record.files}
    assert "training_config.yaml" in names
    assert not any(name.endswith(".npz") for name in names)  # they are pickles


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.timeout(900)
async def test_a_model_of_sleap_1_4_is_tracked_with(
    places: Places, work: EngineWork, old_model: Path, tmp_path: Path
) -> None:
    plan = TrackPlan(
        models=(old_model,),
        video=work.video,
        output=tmp_path / "out.slp",
        frames=(0, 1),
        device="cpu",
    )
    run = await SleapNNEngine(places).start_tracking(plan)
    said = [event.line async for event in run.events() if isinstance(event, Said)]
    outcome = await run.outcome()
    assert outcome.kind == "succeeded", outcome
    assert any("mapped 26/26" in line for line in said)
    with h5py.File(plan.output) as file:
        assert len(file["frames"]) == 2


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        (["Successfully mapped 26/26 PyTorch parameters from legacy weights"], "succeeded"),
        (["Successfully mapped 22/26 PyTorch parameters from legacy weights"], "failed"),
        (["No mappings could be created between legacy weights and PyTorch model."], "failed"),
        ([], "failed"),
    ],
)
def test_weights_that_were_not_taken_over_make_a_tracking_fail(
    tmp_path: Path, old_model: Path, lines: list[str], kind: str
) -> None:
    part = tmp_path / ".part-out.slp"
    part.touch()
    plan = TrackPlan(models=(old_model,), video=tmp_path / "v.mp4", output=tmp_path / "out.slp")
    tracking = _Tracking(plan, part, Installation(python=tmp_path, version="0"), {})
    for line in lines:
        tracking.on_line(f"2026-03-01 12:00:00 | {line}", error=True)
    tracking._is_written = True
    outcome = tracking.conclude(
        Ending(returncode=0, cancelled=False, stop_asked=False, log_tail=())
    )
    assert outcome.kind == kind
    assert ("UNets alone" in outcome.reason) == (kind == "failed")
    assert plan.output.exists() == (kind == "succeeded")


async def test_a_model_of_sleap_1_4_without_its_weights_is_refused(
    tmp_path: Path, old_model: Path
) -> None:
    (old_model / "best_model.h5").unlink()
    python = tmp_path / "python"
    engine = SleapNNEngine(Places(engines=tmp_path))
    engine.find = lambda: Installation(python=python, version="0")  # type: ignore[method-assign]
    video = tmp_path / "v.mp4"
    video.touch()
    plan = TrackPlan(models=(old_model,), video=video, output=tmp_path / "out.slp")
    with pytest.raises(FilesMissing, match=r"best_model\.h5"):
        await engine.start_tracking(plan)


async def test_writing_provenance_gets_no_more_of_the_environment_than_the_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nenv > {tmp_path}/seen\n")
    python.chmod(0o755)
    part = tmp_path / ".part-out.slp"
    part.touch()
    plan = TrackPlan(models=(), video=tmp_path / "video.mp4", output=tmp_path / "out.slp")
    environment = SleapNNEngine(Places(engines=tmp_path / "engines"))._environment(1)
    tracking = _Tracking(plan, part, Installation(python=python, version="0"), environment)
    tracking.on_line('{"n_processed": 1, "n_total": 1}', error=False)
    await tracking.drain()
    seen = (tmp_path / "seen").read_text()
    assert f"HOME={tmp_path / 'engines'}" in seen
    assert "AWS_SECRET" not in seen
