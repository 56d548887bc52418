"""The demo's training configurations: small, quick, and good enough to see that it works."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from sleap_rtc.engines.configs import dump_config


class Effort(msgspec.Struct, frozen=True):
    """How much one engine trains in the demo.

    Attributes:
        centroid_epochs: Epochs of the centroid model.
        instance_epochs: Epochs of the centered-instance model.
        steps: Training steps per epoch.
        learning_rate: Adam's.
    """

    centroid_epochs: int
    instance_epochs: int
    steps: int
    learning_rate: float


EFFORTS: Final = {
    "tiny": Effort(centroid_epochs=8, instance_epochs=6, steps=20, learning_rate=0.003),
    "sleap-nn": Effort(centroid_epochs=5, instance_epochs=10, steps=30, learning_rate=0.003),
}
"""Chosen by trying: half of it finds the animals, twice as much is hardly better."""


def write_configs(folder: Path, engine: str, nodes: tuple[str, ...]) -> tuple[Path, Path]:
    """Write the configurations of a top-down pair.

    Args:
        folder: Where to; it is made.
        engine: The trainer.
        nodes: Names of an animal's points.

    Returns:
        The paths: centroid, then centered_instance.
    """
    effort = EFFORTS[engine]
    folder.mkdir(parents=True, exist_ok=True)
    centroid = _config(
        "centroid",
        {"anchor_part": None, "sigma": 2.5, "output_stride": 2},
        effort.centroid_epochs,
        effort,
        preprocessing={"ensure_grayscale": True, "scale": 0.5},
    )
    instance = _config(
        "centered_instance",
        {"part_names": list(nodes), "anchor_part": None, "sigma": 2.5, "output_stride": 2},
        effort.instance_epochs,
        effort,
        preprocessing={"ensure_grayscale": True, "scale": 1.0, "crop_size": 96},
    )
    paths = []
    for name, config in (("centroid", centroid), ("centered_instance", instance)):
        path = folder / f"{name}.yaml"
        path.write_text(dump_config(config), encoding="utf-8")
        paths.append(path)
    return paths[0], paths[1]


def _config(
    head: str, confmaps: dict[str, Any], epochs: int, effort: Effort, *, preprocessing: Any
) -> dict[str, Any]:
    unet = {
        "in_channels": 1,
        "kernel_size": 3,
        "filters": 8,
        "filters_rate": 1.5,
        "max_stride": 16,
        "convs_per_block": 2,
        "stacks": 1,
        "stem_stride": None,
        "middle_block": True,
        "up_interpolate": True,
        "output_stride": 2,
    }
    return {
        "data_config": {
            "data_pipeline_fw": "torch_dataset_cache_img_memory",
            "preprocessing": preprocessing,
            "use_augmentations_train": True,
            "augmentation_config": {
                "geometric": {
                    "rotation_min": -180.0,
                    "rotation_max": 180.0,
                    "scale_min": 0.9,
                    "scale_max": 1.1,
                    "affine_p": 1.0,
                }
            },
        },
        "model_config": {
            "backbone_config": {"unet": unet},
            "head_configs": {head: {"confmaps": confmaps}},
        },
        "trainer_config": {
            "train_data_loader": {"batch_size": 4, "shuffle": True, "num_workers": 0},
            "val_data_loader": {"batch_size": 4, "num_workers": 0},
            "model_ckpt": {"save_top_k": 1, "save_last": True},
            "min_train_steps_per_epoch": 1,
            "train_steps_per_epoch": effort.steps,
            "max_epochs": epochs,
            "seed": 42,
            "optimizer": {"lr": effort.learning_rate},
            "run_name": f"demo.{head}",
        },
    }
