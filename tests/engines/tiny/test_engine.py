from __future__ import annotations

from pathlib import Path

import pytest

from sleap_rtc.engines.tiny.engine import TinyEngine
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


@pytest.mark.slow
class TestTiny(EngineConformance):
    @pytest.fixture
    def engine(self) -> TinyEngine:
        return TinyEngine()

    @pytest.fixture
    def work(self, data: EngineWork, tmp_path: Path) -> EngineWork:
        return data
