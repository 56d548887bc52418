"""The engine's own environment, made by the product's own means, once per machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import pytest

from sleap_rtc.engines.sleap_nn import environment
from sleap_rtc.engines.sleap_nn.places import Places, default_places
from sleap_rtc.errors import EngineMissing


@pytest.fixture(scope="session")
def places() -> Places:
    found = default_places()
    try:
        environment.find(found)
    except EngineMissing:
        environment.install(environment.plan_installation(found), print)
    return found


@pytest.fixture
def old_model(tmp_path: Path) -> Path:
    """A model as SLEAP 1.4 leaves it: a UNet with weights made at random."""
    return _make(tmp_path / "old")


_CONVOLUTIONS: Final = (
    ("stack0_enc0_conv0", 3, 1, 8),
    ("stack0_enc0_conv1", 3, 8, 8),
    ("stack0_enc1_conv0", 3, 8, 12),
    ("stack0_enc1_conv1", 3, 12, 12),
    ("stack0_enc2_conv0", 3, 12, 18),
    ("stack0_enc2_conv1", 3, 18, 18),
    ("stack0_enc4_middle_expand_conv0", 3, 18, 27),
    ("stack0_enc5_middle_contract_conv0", 3, 27, 27),
    ("stack0_dec0_s8_to_s4_refine_conv0", 3, 45, 18),
    ("stack0_dec0_s8_to_s4_refine_conv1", 3, 18, 18),
    ("stack0_dec1_s4_to_s2_refine_conv0", 3, 30, 12),
    ("stack0_dec1_s4_to_s2_refine_conv1", 3, 12, 12),
    ("SingleInstanceConfmapsHead", 1, 12, 2),
)
"""Layer, width of its kernel, channels in and out."""

_HEADS: Final = (
    *("single_instance", "centroid", "centered_instance", "multi_instance"),
    *("multi_class_bottomup", "multi_class_topdown"),
)
_UNET: Final = {
    "stem_stride": None,
    "max_stride": 8,
    "output_stride": 2,
    "filters": 8,
    "filters_rate": 1.5,
    "middle_block": True,
    "up_interpolate": True,
    "stacks": 1,
}


def _make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "training_config.json").write_text(json.dumps(_profile()))
    random = np.random.default_rng(1)
    with h5py.File(folder / "best_model.h5", "w") as file:
        for name, width, channels, filters in _CONVOLUTIONS:
            layer = file.create_group(f"model_weights/{name}/{name}")
            kernel = random.normal(0, 0.1, (width, width, channels, filters))
            layer["kernel:0"] = kernel.astype(np.float32)
            layer["bias:0"] = np.full(filters, 0.1, np.float32)
    return folder


def _profile() -> dict[str, Any]:
    edge = {"py/reduce": [{"py/type": "sleap.skeleton.EdgeType"}, {"py/tuple": [1]}]}
    link = {"edge_insert_idx": 0, "key": 0, "source": _node("head"), "target": _node("tail")}
    skeleton = {
        "directed": True,
        "graph": {"name": "s", "num_edges_inserted": 1},
        "multigraph": True,
        "links": [link | {"type": edge}],
        "nodes": [{"id": {"py/id": 1}}, {"id": {"py/id": 3}}],
    }
    head = {"part_names": ["head", "tail"], "sigma": 2.5, "output_stride": 2}
    return {
        "data": {
            "labels": {"skeletons": [skeleton], "validation_fraction": 0.1},
            "preprocessing": {"ensure_grayscale": True, "input_scaling": 1.0},
            "instance_cropping": {"crop_size": None},
        },
        "model": {
            "heads": dict.fromkeys(_HEADS) | {"single_instance": head},
            "backbone": {"unet": _UNET, "leap": None, "hourglass": None, "resnet": None},
        },
        "optimization": {"epochs": 10, "initial_learning_rate": 1e-4, "batch_size": 4},
        "outputs": {"run_name": "run"},
        "sleap_version": "1.4.1",
    }


def _node(name: str) -> dict[str, Any]:
    return {"py/object": "sleap.skeleton.Node", "py/state": {"py/tuple": [name, 1.0]}}
