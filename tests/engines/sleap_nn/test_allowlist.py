from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sleap_rtc.engines import configs, rules
from sleap_rtc.engines.sleap_nn.allowlist import WorkerSettings, read, rebuild
from sleap_rtc.engines.sleap_nn.schema import TRAINING
from sleap_rtc.errors import InvalidConfig

DATA = Path(__file__).parents[3].parent / "shared" / "data" / "models"
WORKER = WorkerSettings(
    labels=Path("/jobs/1/labels.pkg.slp"),
    directory=Path("/jobs/1/attempt"),
    run_name="attempt-1",
    accelerator="cpu",
    publish_port=1111,
    controller_port=2222,
)
BASE = {"model_config": {"head_configs": {"centroid": {"confmaps": {"sigma": 2.5}}}}}


def _with(path: str, value: Any) -> str:
    """The base configuration with one more key."""
    plain: dict[str, Any] = configs.load_config(configs.dump_config(BASE), where="base")
    *parents, key = path.split(".")
    inner = plain
    for parent in parents:
        inner = inner.setdefault(parent, {})
    inner[key] = value
    return configs.dump_config(plain)


@pytest.mark.parametrize("kind", ["centroid", "centered_instance"])
@pytest.mark.parametrize("name", ["initial_config", "training_config"])
def test_what_sleap_writes_itself_is_taken(kind: str, name: str) -> None:
    path = DATA / f"minimal_instance_{kind}" / f"{name}.yaml"
    if not path.is_file():
        pytest.skip("the small real data isn't beside this checkout")
    text = path.read_text(encoding="utf-8")
    summary = read(text, where=name)
    assert (summary.model_type, summary.refused) == (kind, {})
    built = rebuild(text, WORKER, where=name)
    assert built.config["model_config"]["backbone_config"] == {
        **configs.load_config(text, where=name)["model_config"]["backbone_config"]
    }
    assert "trainer_config.zmq" in built.replaced
    assert built.config["trainer_config"]["zmq"] == {"publish_port": 1111, "controller_port": 2222}
    assert "skeletons" not in built.config["data_config"]


def test_paths_ports_and_accounts_are_the_workers() -> None:
    text = configs.dump_config(
        {
            **BASE,
            "data_config": {
                "train_labels_path": ["/etc/passwd"],
                "val_labels_path": ["/root/.ssh/id_ed25519"],
                "test_file_path": "/etc/shadow",
                "cache_img_path": "/root",
                "use_existing_imgs": True,
            },
            "trainer_config": {
                "ckpt_dir": "/root",
                "run_name": "../../x",
                "use_wandb": True,
                "wandb": {"api_key": "secret-key", "entity": "me"},
                "zmq": {"publish_port": 9001},
                "trainer_device_indices": [3],
                "profiler": "advanced",
                "model_ckpt": {"dirpath": "/root"},
            },
        }
    )
    built = rebuild(text, WORKER, where="c")
    written = configs.dump_config(built.config)
    for foreign in ("passwd", "id_ed25519", "shadow", "/root", "../", "secret-key", "9001"):
        assert foreign not in written
    assert built.config["data_config"]["train_labels_path"] == ["/jobs/1/labels.pkg.slp"]
    assert built.config["trainer_config"]["ckpt_dir"] == "/jobs/1/attempt"
    assert built.config["trainer_config"]["use_wandb"] is False
    assert built.config["trainer_config"]["save_ckpt"] is True
    assert "trainer_config.wandb" in built.replaced


@pytest.mark.parametrize(
    "key",
    [
        "model_config.pretrained_backbone_weights",
        "model_config.pretrained_head_weights",
        "trainer_config.resume_ckpt_path",
        "model_config.backbone_config.convnext.pre_trained_weights",
        "model_config.backbone_config.pretrained",
        "model_config.head_configs.centroid.confmaps.anchor_part.x",
        "trainer_config.callbacks",
        "data_config.loader.target",
        "hydra",
        "defaults",
    ],
)
def test_what_could_run_code_is_refused_by_name(key: str) -> None:
    text = _with(key, "/home/worker/model.ckpt")
    with pytest.raises(InvalidConfig, match="is refused") as caught:
        rebuild(text, WORKER, where="c")
    named = caught.value.message
    assert any(key == name or key.startswith(name + ".") for name in read(text, where="c").refused)
    assert next(iter(read(text, where="c").refused)) in named


@pytest.mark.parametrize("empty", [None, "", False, []])
def test_empty_it_is_harmless(empty: object) -> None:
    text = _with("trainer_config.resume_ckpt_path", empty)
    assert rebuild(text, WORKER, where="c").config["trainer_config"]["resume_ckpt_path"] is None


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "${oc.decode:x}", "???", "a/../b"])
def test_text_is_never_replaced_by_the_trainers_configuration_language(text: str) -> None:
    for key in (
        "model_config.head_configs.centroid.confmaps.centroid_method",
        "trainer_config.eval.select_metric",
        "data_config.bbox_source",
    ):
        assert read(_with(key, text), where="c").refused.keys() == {key}


def test_every_refused_key_is_named_at_once() -> None:
    plain = {
        **BASE,
        "trainer_config": {"max_epochs": 0, "optimizer": {"lr": "fast"}, "gpu_hog": True},
    }
    with pytest.raises(InvalidConfig) as caught:
        rebuild(configs.dump_config(plain), WORKER, where="cfg.yaml")
    for key in ("max_epochs", "optimizer.lr", "gpu_hog"):
        assert f"trainer_config.{key} is refused" in caught.value.message
    assert caught.value.message.startswith("cfg.yaml: ")


def test_our_own_checkpoint_can_be_gone_on_from() -> None:
    worker = WorkerSettings(
        labels=Path("/l"), directory=Path("/d"), run_name="r", resume_from=Path("/d/last.ckpt")
    )
    config = rebuild(configs.dump_config(BASE), worker, where="c").config
    assert config["trainer_config"]["resume_ckpt_path"] == "/d/last.ckpt"


def test_no_rule_takes_a_path() -> None:
    """Whatever is under a key, a path doesn't come through, unless it is a name of a point."""
    path = "/home/worker/secret.slp"

    def offer(schema: Any, value: Any) -> Any:
        return {k: offer(r, value) if isinstance(r, dict) else value for k, r in schema.items()}

    for value in (path, [path], [[path, path]]):
        checked = rules.check(offer(TRAINING, value), TRAINING)
        taken = {where[-1] for where, found in configs.leaves(checked.allowed) if found == value}
        assert taken <= {"anchor_part", "part_names", "classes", "edges"}
