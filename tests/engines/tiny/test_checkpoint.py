from __future__ import annotations

import pickle
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sleap_rtc.engines.tiny import checkpoint
from sleap_rtc.engines.tiny.checkpoint import About
from sleap_rtc.engines.tiny.network import Adam, Weights, new_weights
from sleap_rtc.errors import Damaged, FilesMissing

ABOUT = About(
    model_type="single_instance",
    nodes=("a", "b"),
    edges=((0, 1),),
    maps=2,
    filters=4,
    factor=2,
    sigma=1.0,
    crop=0,
    epochs=3,
    steps=9,
)


def _weights() -> Weights:
    return new_weights(4, 2, np.random.default_rng(0))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    weights = _weights()
    adam = Adam(weights, rate=0.1)
    adam.step(weights, {name: np.ones_like(value) for name, value in weights.items()})
    checkpoint.save(tmp_path / "last.npz", ABOUT, weights, adam)
    loaded = checkpoint.load(tmp_path / "last.npz", rate=0.2)
    assert loaded.about == ABOUT
    assert loaded.adam is not None
    assert (loaded.adam.steps, loaded.adam.rate) == (9, 0.2)
    for name, value in weights.items():
        np.testing.assert_array_equal(loaded.weights[name], value)
        np.testing.assert_array_equal(loaded.adam.second[name], adam.second[name])
    assert [path.name for path in tmp_path.iterdir()] == ["last.npz"]


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.mkdir, (str(tmp_path / "sprung"),))

    path = tmp_path / "best.npz"
    np.savez(path, about=np.array([Trap()], dtype=object))
    with pytest.raises(Damaged):
        checkpoint.load(path)
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(Damaged):
        checkpoint.load(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"weights/enter.w": np.zeros((9, 5), np.float32)}, "doesn't fit"),
        ({"weights/enter.w": np.zeros((9, 4))}, "doesn't fit"),
        ({"weights/maps.b": np.array([np.nan, 0], np.float32)}, "doesn't fit"),
        ({"about": np.frombuffer(b"{}", np.uint8)}, "ValidationError"),
        ({"about": np.frombuffer(b"\xff", np.uint8)}, "DecodeError"),
    ],
)
def test_one_that_contradicts_itself_is_damaged(
    tmp_path: Path, change: dict[str, np.ndarray], why: str
) -> None:
    path = tmp_path / "best.npz"
    checkpoint.save(path, ABOUT, _weights())
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(path, allow_pickle=False, **(arrays | change))
    with pytest.raises(Damaged, match=why):
        checkpoint.load(path)


def test_sizes_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "best.npz"
    checkpoint.save(path, msgspec.structs.replace(ABOUT, filters=100_000), _weights())
    with pytest.raises(Damaged, match="out of range"):
        checkpoint.load(path)
    np.savez_compressed(path, about=np.zeros(80_000_000, np.uint8))
    assert path.stat().st_size < 1_000_000
    with pytest.raises(Damaged, match="larger than any"):
        checkpoint.load(path)
    with pytest.raises(FilesMissing, match=r"absent\.npz"):
        checkpoint.load(tmp_path / "absent.npz")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=8))
def test_damage_is_noticed_or_does_no_harm(tmp_path: Path, place: int, noise: bytes) -> None:
    path = tmp_path / "best.npz"
    checkpoint.save(path, ABOUT, _weights())
    data = bytearray(path.read_bytes())
    place %= len(data)
    data[place : place + len(noise)] = noise
    path.write_bytes(data)
    try:
        checkpoint.load(path)
    except Damaged:
        return
