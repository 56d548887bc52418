from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sleap_io as sio
from hypothesis import given, settings
from hypothesis import strategies as st

from sleap_rtc.errors import UsageError
from sleap_rtc.media.readers import readers_closed
from sleap_rtc.media.synthetic import Dataset, SyntheticSpec, known_points, make_dataset


def test_the_package_holds_its_images_and_the_known_points(made: Dataset) -> None:
    labels = sio.load_slp(str(made.package))
    assert labels.video.shape == (4, 96, 112, 1)
    assert [node.name for node in labels.skeletons[0].nodes] == ["head", "body", "tail"]
    points = np.stack([[i.numpy() for i in frame.instances] for frame in labels])
    np.testing.assert_allclose(points, known_points(made.spec)[:4])


def seen(path: Path) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """Each frame's image, and the points of its animals."""

    def read() -> list[tuple[np.ndarray, list[np.ndarray]]]:
        labels = sio.load_slp(str(path))
        return [(frame.image, [each.numpy() for each in frame.instances]) for frame in labels]

    with readers_closed():
        return read()


def test_each_point_looks_as_it_should(made: Dataset) -> None:
    frames = seen(made.truth)
    assert len(frames) == 6
    for image, animals in frames:
        for points in animals:
            head, _, tail = np.rint(points).astype(int)
            assert int(image[head[1], head[0], 0]) > 200
            assert int(image[tail[1], tail[0], 0]) < 60


def test_the_video_is_not_the_labelled_clip(made: Dataset) -> None:
    points = known_points(made.spec)
    assert np.abs(points[:4, None] - points[None, 4:]).max(axis=(2, 3, 4)).min() > 0.1


def test_it_is_the_same_wherever_it_is_made(made: Dataset, tmp_path: Path) -> None:
    again = make_dataset(tmp_path / "again", made.spec)
    for one, other in ((made.package, again.package), (made.truth, again.truth)):
        first, second = sio.load_slp(str(one)), sio.load_slp(str(other))
        np.testing.assert_array_equal(first.numpy(), second.numpy())
        np.testing.assert_array_equal(seen(one)[2][0], seen(other)[2][0])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    animals=st.integers(1, 4),
    nodes=st.integers(2, 6),
    side=st.integers(4, 12).map(lambda blocks: 16 * blocks),
)
def test_points_stay_inside_and_apart(seed: int, animals: int, nodes: int, side: int) -> None:
    spec = SyntheticSpec(
        size=(side, side + 32),
        animals=animals,
        nodes=tuple(f"n{i}" for i in range(nodes)),
        labelled=5,
        frames=20,
        seed=seed,
    )
    points = known_points(spec)
    assert points.shape == (25, animals, nodes, 2)
    assert points.min() >= 1
    assert points[..., 0].max() <= side + 30
    assert points[..., 1].max() <= side - 2
    # Neighbouring points of a body never fall onto each other, and an animal never jumps.
    assert np.linalg.norm(np.diff(points, axis=2), axis=-1).min() > 0.5
    assert np.abs(np.diff(points[5:], axis=0)).max() < 0.2 * side


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": (48, 96)},
        {"size": (100, 96)},
        {"animals": 0},
        {"nodes": ("only",)},
        {"nodes": ("same", "same")},
        {"labelled": 1},
        {"frames": 0},
    ],
)
def test_what_is_out_of_range_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="made data set"):
        SyntheticSpec(**wrong)  # type: ignore[arg-type]
