"""What the real trainer and its real PyTorch write is known, whole, and imported."""

from __future__ import annotations

import subprocess

import pytest

from sleap_rtc.domain.models import safety_of
from sleap_rtc.engines.base import TrainPlan
from sleap_rtc.engines.sleap_nn import environment
from sleap_rtc.engines.sleap_nn.engine import SleapNNEngine
from sleap_rtc.engines.sleap_nn.places import Places, default_places
from sleap_rtc.errors import DataError, EngineMissing
from sleap_rtc.library.inspection.formats import look
from sleap_rtc.media.synthetic import SyntheticSpec, make_dataset

pytestmark = [
    pytest.mark.slow,
    pytest.mark.engine,
    pytest.mark.timeout(900),  # the first of them may have to make the environment
]

CONFIG = """
data_config:
  data_pipeline_fw: torch_dataset_cache_img_memory
  preprocessing: {ensure_grayscale: true, scale: 0.5}
model_config:
  backbone_config:
    unet: {in_channels: 1, kernel_size: 3, filters: 4, filters_rate: 1.5, max_stride: 8,
           convs_per_block: 2, stacks: 1, stem_stride: null, middle_block: true,
           up_interpolate: true, output_stride: 2}
  head_configs:
    single_instance: {confmaps: {part_names: null, sigma: 2.5, output_stride: 2}}
trainer_config:
  train_data_loader: {batch_size: 4, shuffle: true, num_workers: 0}
  val_data_loader: {batch_size: 4, num_workers: 0}
  min_train_steps_per_epoch: 1
  train_steps_per_epoch: 4
  max_epochs: 2
  seed: 42
  optimizer: {lr: 0.003}
"""

SAVES = """
import sys, torch
model = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.Linear(4, 4).half())
optimizer = torch.optim.Adam(model.parameters())
for parameter in model.parameters():
    parameter.grad = torch.zeros_like(parameter)
optimizer.step()
content = {"epoch": 7, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}
folder = sys.argv[1]
torch.save(content, folder + "/new.pt")
torch.save(content, folder + "/old.pt", _use_new_zipfile_serialization=False)
torch.save(model, folder + "/module.pt")
torch.jit.script(torch.nn.Linear(2, 2)).save(folder + "/program.pt")
"""


@pytest.fixture(scope="session")
def places() -> Places:
    found = default_places()
    try:
        environment.find(found)
    except EngineMissing:
        environment.install(environment.plan_installation(found), print)
    return found


async def test_a_model_that_sleap_nn_trained_is_imported(places, take_one, tmp_path):
    spec = SyntheticSpec(size=(96, 96), animals=1, labelled=8, frames=4)
    data = make_dataset(tmp_path / "data", spec)
    plan = TrainPlan(
        labels=data.package,
        config=CONFIG,
        model_type="single_instance",
        directory=tmp_path / "attempt",
        run_name="flies",
        device="cpu",
    )
    plan.directory.mkdir()
    run = await SleapNNEngine(places).start_training(plan)
    async for _ in run.events():
        pass
    outcome = await run.outcome()
    assert outcome.best is not None, outcome.reason
    folder = tmp_path / "attempt" / "run" / "flies"
    imported = take_one(folder)
    record = imported.entry.record
    assert record.model_type == "single_instance"
    assert record.checkpoint == "best.ckpt"
    assert record.name == "flies"
    assert record.skeleton == ("head", "body", "tail")
    assert record.training.engine_version == environment.find(places).version
    assert record.training.hyperparameters["learning_rate"] == 0.003
    assert record.metrics.epochs == 2
    assert record.metrics.best_val_loss == outcome.metrics.best_val_loss
    assert safety_of(record).tier == "scanned"
    assert look(folder / "best.ckpt").format == "lightning"
    names = {file.path for file in record.files}
    assert "training_config.yaml" in names
    assert not any(name.endswith(".npz") for name in names)  # they are pickles


def test_what_pytorch_writes_is_known(places, tmp_path):
    python = environment.find(places).python
    subprocess.run([python, "-c", SAVES, tmp_path], check=True, timeout=300)
    found = {path.stem: look(path) for path in tmp_path.glob("*.pt")}
    assert {name: each.tier for name, each in found.items()} == {
        "new": "scanned",
        "old": "scanned",
        "module": "flagged",
        "program": "flagged",
    }
    assert found["new"].epoch == found["old"].epoch == 7
    assert "torch.nn" in found["module"].sentence
    assert "TorchScript" in found["program"].sentence
    for name in ("new", "old"):
        whole = (tmp_path / f"{name}.pt").read_bytes()
        cut = tmp_path / "cut"
        for length in range(0, len(whole), 97):
            cut.write_bytes(whole[:length])
            with pytest.raises(DataError):
                look(cut, name="cut.pt")
