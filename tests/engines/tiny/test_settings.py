from __future__ import annotations

from typing import Any

import pytest

from sleap_rtc.engines import configs
from sleap_rtc.engines.tiny import settings
from sleap_rtc.errors import InvalidConfig


def _config(**trainer: Any) -> str:
    plain = {
        "data_config": {"preprocessing": {"scale": 0.25}, "train_labels_path": ["/etc/passwd"]},
        "model_config": {
            "backbone_config": {"unet": {"filters": 64, "max_stride": 16}},
            "head_configs": {"centroid": {"confmaps": {"sigma": 3, "anchor_part": "body"}}},
        },
        "trainer_config": {"max_epochs": 3, "run_name": "r", **trainer},
    }
    return configs.dump_config(plain)


def test_what_it_honours_is_taken_and_the_rest_named() -> None:
    read = settings.read(_config(optimizer={"lr": 0.01, "amsgrad": True}), where="c")
    assert read.settings == settings.Settings(
        model_type="centroid",
        run_name="r",
        max_epochs=3,
        learning_rate=0.01,
        scale=0.25,
        sigma=3,
        anchor_part="body",
        filters=32,
    )
    assert read.settings.factor == 4
    assert read.ignored == (
        "data_config.train_labels_path",
        "model_config.backbone_config.unet.max_stride",
        "trainer_config.optimizer.amsgrad",
    )


def test_defaults_hold_where_nothing_is_said() -> None:
    text = "model_config: {head_configs: {single_instance: {confmaps: null}}}"
    assert settings.read(text, where="c").settings == settings.Settings(
        model_type="single_instance"
    )


@pytest.mark.parametrize(
    ("stopping", "patience"),
    [
        ({"stop_training_on_plateau": True}, 10),
        ({"stop_training_on_plateau": True, "patience": 4}, 4),
        ({"stop_training_on_plateau": False, "patience": 4}, None),
        ({"patience": 4}, None),
    ],
)
def test_when_it_ends_early(stopping: dict[str, object], patience: int | None) -> None:
    read = settings.read(_config(early_stopping=stopping), where="c")
    assert read.settings.patience == patience


def test_the_summary_says_what_is_really_used() -> None:
    summary = settings.summarize(_config(), where="c")
    assert (summary.model_type, summary.epochs, summary.refused) == ("centroid", 3, {})
    assert summary.backbone == {"unet": {"filters": 64, "max_stride": 16}}
    assert summary.hyperparameters["filters"] == 32
    assert summary.hyperparameters["backbone"] == "tiny"


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(InvalidConfig, match=r"trainer_config\.max_epochs: it must be a whole"):
        settings.read(_config(max_epochs=0), where="c")
    with pytest.raises(InvalidConfig, match="not bottomup"):
        settings.read("model_config: {head_configs: {bottomup: {}}}", where="c")
