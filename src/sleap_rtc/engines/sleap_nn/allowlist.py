"""Rebuild a training configuration from what is allowed in the submitted one.

What reaches the trainer is new: the allowed values of the submitted configuration
(:mod:`~sleap_rtc.engines.sleap_nn.schema`), and over them everything that the
worker decides: files, ports, devices, checkpoints, logging. Keys that are refused
are all named at once, each with the reason.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from sleap_rtc.engines import configs, rules
from sleap_rtc.engines.base import ConfigSummary
from sleap_rtc.engines.sleap_nn.schema import TRAINING
from sleap_rtc.errors import InvalidConfig


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker decides.

    Attributes:
        labels: Labels to train on.
        val_labels: Labels to validate on, None to take a part of ``labels``.
        directory: The trainer makes a folder ``run_name`` in it.
        run_name: Names the output.
        accelerator: ``auto``, ``cpu`` or ``gpu``.
        publish_port: Where progress goes, on 127.0.0.1.
        controller_port: Where commands come from, on 127.0.0.1.
        resume_from: Checkpoint to go on from, one that this worker wrote.
    """

    labels: Path
    directory: Path
    run_name: str
    val_labels: Path | None = None
    accelerator: str = "auto"
    publish_port: int | None = None
    controller_port: int | None = None
    resume_from: Path | None = None


class Rebuilt(msgspec.Struct, frozen=True):
    """A configuration that is safe to hand to the trainer.

    Attributes:
        config: The configuration.
        replaced: Dotted keys of the submitted one that the worker didn't take.
    """

    config: dict[str, Any]
    replaced: tuple[str, ...]


def read(text: str, *, where: str) -> ConfigSummary:
    """What a submitted configuration says, with every key that is refused.

    Raises:
        InvalidConfig: Not a sleap-nn configuration.
    """
    plain = configs.load_config(text, where=where)
    summary = configs.summarize(plain, where=where)
    checked = rules.check(plain, TRAINING)
    return msgspec.structs.replace(
        summary,
        hyperparameters=configs.hyperparameters(checked.allowed),
        refused=checked.refused,
    )


def rebuild(text: str, worker: WorkerSettings, *, where: str) -> Rebuilt:
    """The configuration to hand to the trainer.

    Raises:
        InvalidConfig: It isn't a sleap-nn configuration, or it has keys that are refused; all of
            them are named.
    """
    plain = configs.load_config(text, where=where)
    configs.summarize(plain, where=where)
    checked = rules.check(plain, TRAINING)
    if checked.refused:
        raise InvalidConfig(where=where, why=refusal(checked.refused))
    config = _overlay(checked.allowed, _decided(worker))
    return Rebuilt(config=config, replaced=tuple(checked.replaced))


def refusal(refused: Mapping[str, str]) -> str:
    """All refused keys in one sentence."""
    return "; ".join(f"{key} is refused, {why}" for key, why in refused.items())


def _decided(worker: WorkerSettings) -> dict[str, Any]:
    """Everything that names files, ports, accounts or devices."""
    return {
        "data_config": {
            "train_labels_path": [str(worker.labels)],
            "val_labels_path": None if worker.val_labels is None else [str(worker.val_labels)],
            "test_file_path": None,
            "cache_img_path": str(worker.directory / "images"),
            "use_existing_imgs": False,
            "delete_cache_imgs_after_training": True,
        },
        "model_config": {
            "pretrained_backbone_weights": None,
            "pretrained_head_weights": None,
        },
        "trainer_config": {
            "model_ckpt": {"save_top_k": 1, "save_last": True},
            "trainer_accelerator": worker.accelerator,
            "trainer_devices": 1,
            "trainer_device_indices": None,
            "trainer_strategy": "auto",
            "profiler": None,
            "enable_progress_bar": False,
            "use_wandb": False,
            "save_ckpt": True,
            "ckpt_dir": str(worker.directory),
            "run_name": worker.run_name,
            "resume_ckpt_path": None if worker.resume_from is None else str(worker.resume_from),
            "zmq": {
                "publish_port": worker.publish_port,
                "controller_port": worker.controller_port,
            },
        },
    }


def _overlay(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping laid over another, mappings merged at every depth."""
    merged = copy.deepcopy(dict(under))
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = _overlay(below, value) if both else copy.deepcopy(value)  # type: ignore[arg-type]
    return merged
