from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sleap_rtc.engines.base import TrainPlan
from sleap_rtc.engines.process import Ending
from sleap_rtc.engines.tiny.checkpoint import LAST, About, save
from sleap_rtc.engines.tiny.engine import TinyEngine, _Training
from sleap_rtc.engines.tiny.network import new_weights
from sleap_rtc.media.synthetic import SyntheticSpec, make_dataset
from sleap_rtc.testing.engine_conformance import EngineConformance, EngineWork

CONFIG = """
data_config:
  validation_fraction: 0.2
  preprocessing: {{scale: 0.5}}
model_config:
  backbone_config:
    unet: {{filters: 4, max_stride: 16}}
  head_configs:
    single_instance: {{confmaps: {{sigma: 2.0}}}}
trainer_config:
  train_data_loader: {{batch_size: 4}}
  train_steps_per_epoch: 5
  max_epochs: {epochs}
  optimizer: {{lr: 0.003}}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> EngineWork:
    spec = SyntheticSpec(size=(96, 96), animals=1, labelled=10, frames=12)
    made = make_dataset(tmp_path_factory.mktemp("made"), spec)
    return EngineWork(
        labels=made.package,
        video=made.video,
        frames=10,
        model_type="single_instance",
        config=lambda epochs: CONFIG.format(epochs=epochs),
    )


def test_a_checkpoint_that_was_not_told_of_counts(data: EngineWork, tmp_path: Path) -> None:
    plan = TrainPlan(
        labels=data.labels,
        config=data.config(9),
        model_type=data.model_type,
        directory=tmp_path,
        run_name="flies",
    )
    about = About(
        model_type="single_instance",
        nodes=("a",),
        edges=(),
        maps=1,
        filters=4,
        factor=1,
        sigma=2.0,
        crop=0,
        epochs=3,
    )
    save(tmp_path / LAST, about, new_weights(4, 1, np.random.default_rng(1)))
    training = _Training(plan, TinyEngine().read_config(plan.config, where="it"))
    training.on_line('{"event": "checkpoint", "epochs": 2}', error=False)
    killed = Ending(returncode=-9, cancelled=False, stop_asked=False, log_tail=())
    outcome = training.conclude(killed)
    assert (outcome.kind, outcome.epochs, outcome.metrics.epochs) == ("died", 3, 3)
    (tmp_path / LAST).write_bytes(b"half")
    assert training.conclude(killed).epochs == 2


@pytest.mark.slow
class TestTiny(EngineConformance):
    @pytest.fixture
    def engine(self) -> TinyEngine:
        return TinyEngine()

    @pytest.fixture
    def work(self, data: EngineWork, tmp_path: Path) -> EngineWork:
        return data
