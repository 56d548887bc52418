"""The whole main job through the command line, with sleap-nn, on a real recording.

One labelled frame of two flies: it proves that the path takes real files, not
that the models are good. Accuracy is asserted on made data (``test_demo.py``).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sleap_rtc.demo.machines import Machine
from sleap_rtc.engines.configs import dump_config
from sleap_rtc.testing import netns

SHARED = Path(__file__).parents[3] / "shared" / "data"
LABELS = SHARED / "minimal_instance.pkg.slp"
VIDEO = SHARED / "centered_pair_small.mp4"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.webrtc,
    pytest.mark.engine,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not LABELS.exists(), reason="the real recordings aren't beside the checkout"
    ),
    pytest.mark.skipif(netns.inside() is None, reason="WebRTC needs an address besides loopback"),
]


def config(folder: Path, head: str, confmaps: dict[str, object], **preprocessing: object) -> Path:
    unet = {
        "in_channels": 1,
        "kernel_size": 3,
        "filters": 8,
        "filters_rate": 1.5,
        "max_stride": 16,
        "convs_per_block": 2,
        "stacks": 1,
        "middle_block": True,
        "up_interpolate": True,
        "output_stride": 2,
    }
    plain = {
        "data_config": {
            "data_pipeline_fw": "torch_dataset_cache_img_memory",
            "preprocessing": {"ensure_grayscale": True, **preprocessing},
        },
        "model_config": {
            "backbone_config": {"unet": unet},
            "head_configs": {head: {"confmaps": confmaps}},
        },
        "trainer_config": {
            "train_data_loader": {"batch_size": 4, "num_workers": 0},
            "val_data_loader": {"batch_size": 4, "num_workers": 0},
            "min_train_steps_per_epoch": 1,
            "train_steps_per_epoch": 5,
            "max_epochs": 2,
            "seed": 42,
            "optimizer": {"lr": 0.003},
        },
    }
    path = folder / f"{head}.yaml"
    path.write_text(dump_config(plain), encoding="utf-8")
    return path


def test_a_real_recording_goes_the_whole_way(tmp_path):
    logs = tmp_path / "logs"
    host = Machine(tmp_path / "server", logs)
    laptop = Machine(tmp_path / "laptop", logs)
    box = Machine(tmp_path / "box", logs)
    running = []
    place = ("--data-dir", str(tmp_path / "server" / "data"))
    url = "http://127.0.0.1:18765"
    try:
        running.append(
            host.start("server", "server", *place, "--port", "18765", "--stun-port", "0", until=url)
        )
        code = host.run("server-code", *place).strip()
        laptop.run("login", url, "--code-file", "-", secret=code)
        laptop.run("room", "create", "lab", "--server", url)
        link = laptop.run("room", "invite", "lab", "--role", "worker").strip()
        joining = ("--room", link, "--name", "box", "--dir", str(box.home))
        running.append(box.start("worker", "worker", *joining, until="online"))

        parts = {"sigma": 2.5, "output_stride": 2, "anchor_part": None}
        centroid = config(tmp_path, "centroid", parts, scale=0.25)
        instance = config(
            tmp_path, "centered_instance", {"part_names": ["A", "B"], **parts}, crop_size=160
        )
        told = laptop.run(
            *("train", str(LABELS), "--config", str(centroid), "--config", str(instance)),
            *("--worker", "box", "--alias", "pair", "--yes", "--json"),
        )
        assert json.loads(told)["state"] == "completed"
        models = json.loads(laptop.run("list-models", "--json"))["models"]
        assert {m["model_type"] for m in models} == {"centroid", "centered_instance"}
        assert {m["status"] for m in models} == {"completed"}
        told = json.loads(laptop.run("model-info", "pair:centroid", "--json"))
        record = told["models"][0]["record"]
        assert record["training"]["engine"] == "sleap-nn"
        assert record["training"]["dataset_name"] == LABELS.name
        assert record["metrics"]["epochs"] == 2

        output = tmp_path / "pair.slp"
        laptop.run("track", "--model", "pair", str(VIDEO), "--frames", "0-49", "-o", str(output))
        sio = pytest.importorskip("sleap_io")
        labels = sio.load_slp(str(output), open_videos=False)
        assert [node.name for node in labels.skeleton.nodes] == ["A", "B"]
        assert all(frame.frame_idx < 50 for frame in labels.labeled_frames)
    finally:
        for background in reversed(running):
            background.stop()
