"""What ``tiny`` takes from a training configuration of the SLEAP family.

Every setting it honours is below, with its type, range and default; everything
else in a configuration is ignored, and it says so. Nothing in a configuration
can name a file: those come from the worker alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from sleap_rtc.engines import configs, rules
from sleap_rtc.engines.base import ConfigSummary
from sleap_rtc.errors import InvalidConfig

MODEL_TYPES: Final = ("centroid", "centered_instance", "single_instance")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How to train.

    Attributes:
        model_type: One of :data:`MODEL_TYPES`.
        run_name: The run's name.
        max_epochs: Epochs in all.
        batch_size: Samples per step.
        learning_rate: Of Adam.
        steps: Steps per epoch; None follows from the number of samples.
        min_steps: The least steps per epoch where ``steps`` is None.
        seed: Of weights, order, split and augmentation.
        validation_fraction: Share of frames to validate on.
        augment: Whether samples are turned by quarters and crops shifted.
        scale: Of the image before it is looked at; the nearest of 1, 1/2, 1/3 … is used.
        crop_size: Side of a crop in pixels, None: from the labels.
        sigma: Width of a bump in scaled pixels.
        anchor_part: The point that stands for an animal, None: the mean of all.
        filters: Width of the network.
        patience: Epochs without improvement after which it ends, None: never.
        min_delta: What counts as improvement.
    """

    model_type: str
    run_name: str = ""
    max_epochs: int = 20
    batch_size: int = 4
    learning_rate: float = 0.003
    steps: int | None = None
    min_steps: int = 20
    seed: int = 42
    validation_fraction: float = 0.1
    augment: bool = True
    scale: float = 0.5
    crop_size: int | None = None
    sigma: float = 2.5
    anchor_part: str | None = None
    filters: int = 8
    patience: int | None = None
    min_delta: float = 1e-8

    @property
    def factor(self) -> int:
        """Image pixels per input pixel."""
        return max(1, round(1 / self.scale))


_WHOLE: Final = rules.Number(1, 100_000, integer=True)
_TRAINER: Final = "trainer_config"
_HEAD: Final = ("model_config", "head_configs", "<head>", "confmaps")

_HONOURED: Final[dict[tuple[str, ...], tuple[str, rules.Rule]]] = {
    (_TRAINER, "max_epochs"): ("max_epochs", _WHOLE),
    (_TRAINER, "train_data_loader", "batch_size"): (
        "batch_size",
        rules.Number(1, 256, integer=True),
    ),
    (_TRAINER, "optimizer", "lr"): ("learning_rate", rules.Number(1e-8, 1)),
    (_TRAINER, "train_steps_per_epoch"): ("steps", _WHOLE),
    (_TRAINER, "min_train_steps_per_epoch"): ("min_steps", _WHOLE),
    (_TRAINER, "seed"): ("seed", rules.Number(0, 2**31 - 1, integer=True)),
    (_TRAINER, "early_stopping", "patience"): ("patience", rules.Number(0, 100_000, integer=True)),
    (_TRAINER, "early_stopping", "min_delta"): ("min_delta", rules.Number(0, 1e6)),
    ("data_config", "validation_fraction"): ("validation_fraction", rules.Number(0, 0.9)),
    ("data_config", "use_augmentations_train"): ("augment", rules.Flag()),
    ("data_config", "preprocessing", "scale"): ("scale", rules.Number(0.05, 1)),
    ("data_config", "preprocessing", "crop_size"): (
        "crop_size",
        rules.Number(16, 1_024, integer=True),
    ),
    (*_HEAD, "sigma"): ("sigma", rules.Number(0.5, 50)),
    (*_HEAD, "anchor_part"): ("anchor_part", rules.Name()),
    ("model_config", "backbone_config", "unet", "filters"): (
        "filters",
        rules.Number(1, 1_024, integer=True),
    ),
}
_MAX_FILTERS: Final = 32
_PLATEAU: Final = (_TRAINER, "early_stopping", "stop_training_on_plateau")


class Read(msgspec.Struct, frozen=True):
    """Settings, and the keys that were ignored though they say something."""

    settings: Settings
    ignored: tuple[str, ...]


def read(text: str, *, where: str) -> Read:
    """Read a configuration.

    Raises:
        InvalidConfig: Not a configuration, another kind of model, or a value out of range.
    """
    plain = configs.load_config(text, where=where)
    model_type = configs.summarize(plain, where=where).model_type
    if model_type not in MODEL_TYPES:
        why = f"the engine tiny trains {', '.join(MODEL_TYPES)}, not {model_type}"
        raise InvalidConfig(where=where, why=why, hint="Use the engine sleap-nn for it.")
    found: dict[str, Any] = {"model_type": model_type}
    honoured = set()
    for path, (field, rule) in _HONOURED.items():
        actual = tuple(model_type if key == "<head>" else key for key in path)
        honoured.add(actual)
        value = configs.at(plain, actual)
        if value is None:
            continue
        schema: Mapping[str, Any] = {"x": rule}
        checked = rules.check({"x": value}, schema)
        if checked.refused:
            raise InvalidConfig(where=where, why=f"{'.'.join(actual)}: {checked.refused['x']}")
        found[field] = checked.allowed["x"]
    if configs.at(plain, _PLATEAU) is not True:
        found.pop("patience", None)
    elif "patience" not in found:
        found["patience"] = 10
    if "filters" in found:
        found["filters"] = min(found["filters"], _MAX_FILTERS)
    name = configs.at(plain, (_TRAINER, "run_name"))
    settings = Settings(**found, run_name=name if isinstance(name, str) else "")
    known = honoured | {_PLATEAU, (_TRAINER, "run_name")}
    ignored = tuple(
        ".".join(path)
        for path, value in configs.leaves(plain)
        if path not in known and value not in (None, "", [], {}) and value is not False
    )
    return Read(settings=settings, ignored=ignored)


def summarize(text: str, *, where: str) -> ConfigSummary:
    """What a configuration says; nothing is refused, since nothing but known settings is used.

    Raises:
        InvalidConfig: As :func:`read`.
    """
    settings = read(text, where=where).settings
    summary = configs.summarize(configs.load_config(text, where=where), where=where)
    return msgspec.structs.replace(
        summary, epochs=settings.max_epochs, hyperparameters=hyperparameters(settings)
    )


def hyperparameters(settings: Settings) -> dict[str, Any]:
    """What people compare, with the names other engines use, of what was really used."""
    return {
        "max_epochs": settings.max_epochs,
        "learning_rate": settings.learning_rate,
        "optimizer": "Adam",
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "scale": 1 / settings.factor,
        "validation_fraction": settings.validation_fraction,
        "augmentation": settings.augment,
        "backbone": "tiny",
        "filters": settings.filters,
    }
