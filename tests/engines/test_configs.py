from __future__ import annotations

import pytest

from sleap_rtc.engines import configs
from sleap_rtc.errors import InvalidConfig


def test_a_configuration_is_summed_up() -> None:
    plain = {
        "model_config": {
            "backbone_config": {"unet": {"filters": 8}, "swint": None},
            "head_configs": {"centroid": {"confmaps": {"sigma": 2.5}}, "bottomup": None},
        },
        "trainer_config": {"max_epochs": 7, "optimizer": {"lr": 0.1}, "run_name": "r"},
    }
    summary = configs.summarize(plain, where="c")
    assert summary.model_type == "centroid"
    assert summary.backbone == {"unet": {"filters": 8}}
    assert (summary.run_name, summary.epochs) == ("r", 7)
    assert summary.hyperparameters == {"max_epochs": 7, "learning_rate": 0.1, "backbone": "unet"}


@pytest.mark.parametrize(
    ("heads", "why"),
    [
        (None, "it has none"),
        ({"centroid": None}, "it has none"),
        ({"centroid": {}, "bottomup": {}}, "it has bottomup, centroid"),
        (3, "must be a mapping"),
    ],
)
def test_there_must_be_one_head(heads: object, why: str) -> None:
    with pytest.raises(InvalidConfig, match=why):
        configs.summarize({"model_config": {"head_configs": heads}}, where="c")
