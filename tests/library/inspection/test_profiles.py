"""Configurations of sleap-nn and of SLEAP up to 1.4, and everything that isn't one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.errors import InvalidConfig
from sleap_rtc.library.inspection import profiles

SHARED = Path(__file__).parents[4] / "shared" / "data" / "models"


def node(name: str) -> dict[str, Any]:
    return {"py/object": "sleap.skeleton.Node", "py/state": {"py/tuple": [name, 1.0]}}


def old(heads: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """A profile as SLEAP 1.3 writes it."""
    edge = {"py/reduce": [{"py/type": "sleap.skeleton.EdgeType"}, {"py/tuple": [1]}]}
    skeleton = {
        "directed": True,
        "links": [
            {"edge_insert_idx": 0, "source": node("head"), "target": node("thorax"), "type": edge},
            {"edge_insert_idx": 1, "source": {"py/id": 2}, "target": node("tail"), "type": edge},
        ],
        "nodes": [{"id": {"py/id": 2}}, {"id": {"py/id": 1}}, {"id": {"py/id": 4}}],
    }
    names = ("single_instance", "centroid", "centered_instance", "multi_instance")
    return {
        "data": {
            "labels": {
                "skeletons": [skeleton],
                "training_labels": "C:\\labels\\flies.pkg.slp",
                "validation_fraction": 0.1,
            },
            "preprocessing": {"input_scaling": 0.5},
            "instance_cropping": {"crop_size": 96},
        },
        "model": {
            "backbone": {"leap": None, "unet": {"filters": 16, "max_stride": 8}},
            "heads": dict.fromkeys(names) | heads,
        },
        "optimization": {
            "epochs": 10,
            "initial_learning_rate": 1e-4,
            "optimizer": "adam",
            "batch_size": 4,
        },
        "outputs": {"run_name": "run", "run_name_prefix": "240613.", "run_name_suffix": ".n=2"},
        "sleap_version": "1.3.4",
    } | parts


def test_a_profile_of_sleap_is_read():
    text = json.dumps(old({"centroid": {"anchor_part": "thorax", "sigma": 2.5}}))
    found = profiles.parse(text, "training_config.json")
    assert found.family == "sleap"
    assert found.model_type == "centroid"
    assert found.run_name == "240613.run.n=2"
    assert found.version == "1.3.4"
    assert found.dataset == "flies.pkg.slp"
    assert found.backbone == {"unet": {"filters": 16, "max_stride": 8}}
    assert found.skeleton == ("thorax", "head", "tail")
    assert found.hyperparameters == {
        "max_epochs": 10,
        "learning_rate": 1e-4,
        "optimizer": "adam",
        "batch_size": 4,
        "scale": 0.5,
        "crop_size": 96,
        "validation_fraction": 0.1,
        "backbone": "unet",
    }


def test_the_bottom_up_head_has_todays_name_and_its_parts_in_order():
    head = {"confmaps": {"part_names": ["b", "a"], "sigma": 1}, "pafs": {"edges": None}}
    found = profiles.parse(json.dumps(old({"multi_instance": head})), "training_config.json")
    assert (found.model_type, found.skeleton) == ("bottomup", ("b", "a"))


@pytest.mark.parametrize("name", ["centroid", "centered_instance"])
def test_a_real_configuration_of_sleap_nn_is_read(name):
    path = SHARED / f"minimal_instance_{name}" / "training_config.yaml"
    if not path.exists():
        pytest.skip("the real recordings are not beside this checkout")
    found = profiles.read(path, path.name)
    assert found.family == "sleap-nn"
    assert found.model_type == name
    assert found.run_name == f"minimal_instance_{name}"
    assert found.skeleton == ("A", "B")
    assert found.hyperparameters["learning_rate"] == 1e-4
    assert list(found.backbone) == ["unet"]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("training_config.yaml", "a: &x 1\nb: *x\n", "anchors"),
        ("training_config.yaml", "a: " + "[" * 100 + "]" * 100, "nested"),
        ("training_config.yaml", "model: !!python/object:os.system x", "tag"),
        ("training_config.yaml", "- 1", "mapping"),
        ("training_config.yaml", "model: 1", "no training configuration"),
        ("training_config.json", "[" * 10_000, "not JSON"),
        ("training_config.json", '{"a":' * 100 + "1" + "}" * 100, "nested"),
        ("training_config.json", '{"a":[' + "[]," * 30_000 + "[]]}", "values"),
        ("training_config.json", "[]", "mapping"),
        ("training_config.json", '{"a": "\\ud800"}', "not JSON"),
    ],
)
def test_what_is_no_configuration_is_said(name, text, why):
    with pytest.raises(InvalidConfig, match=why):
        profiles.parse(text, name)


def test_a_billion_laughs_are_one_line(tmp_path):
    lines = ["a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi",
              strict=True)]  # fmt: skip
    path = tmp_path / "training_config.yaml"
    path.write_text("\n".join(lines))
    found, problems = profiles.find({path.name: path})
    assert found is None
    assert problems == (
        "training_config.yaml: line 1: anchors and references (& and *) are not allowed.",
    )


def test_the_next_one_is_tried(tmp_path):
    (tmp_path / "training_config.yaml").mkdir()
    (tmp_path / "training_config.json").write_text("{}")
    (tmp_path / "initial_config.yaml").write_text("model_config: {head_configs: {centroid: {}}}")
    files = {path.name: path for path in tmp_path.iterdir()}
    found, problems = profiles.find(files)
    assert found is not None
    assert (found.path, found.model_type) == ("initial_config.yaml", "centroid")
    assert any("it is a folder" in problem for problem in problems)
    assert len(problems) == 2


@pytest.mark.parametrize("heads", [{}, {"centroid": {}, "single_instance": {}}, {"../x": {}}])
def test_a_type_is_told_only_by_one_head(heads):
    text = json.dumps({"model_config": {"head_configs": heads}})
    assert profiles.parse(text, "initial_config.json").model_type is None


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a: " + b"x" * (5 * 1024 * 1024)])
def test_a_file_that_is_no_text_or_too_large(tmp_path, content):
    path = tmp_path / "training_config.yaml"
    path.write_bytes(content)
    found, problems = profiles.find({path.name: path})
    assert found is None
    assert len(problems) == 1


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["py/id", "py/object", "py/state", "py/tuple", "id", "nodes", "name"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=15,
)


@given(
    st.fixed_dictionaries(
        {
            "model": st.fixed_dictionaries({"heads": st.dictionaries(st.text(max_size=3), _PLAIN)}),
            "data": st.fixed_dictionaries(
                {"labels": st.fixed_dictionaries({"skeletons": st.lists(_PLAIN, max_size=2)})}
            ),
            "outputs": _PLAIN,
            "optimization": _PLAIN,
        }
    )
)
def test_any_values_in_their_places_give_an_answer(plain):
    try:
        found = profiles.parse(json.dumps(plain), "training_config.json")
    except InvalidConfig:
        return
    assert found.family == "sleap"
