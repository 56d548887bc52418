from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sleap_io as sio

from sleap_rtc.errors import FilesMissing, InvalidLabels
from sleap_rtc.media.compare import compare, match
from sleap_rtc.media.synthetic import Dataset


def _moved(made: Dataset, target: Path, by: float, *, keep: int = 6, rename: bool = False) -> Path:
    labels = sio.load_slp(str(made.truth))
    for frame in labels:
        # Another order, so that only matching by distance finds who is who.
        frame.instances = frame.instances[::-1]
        for instance in frame.instances:
            instance.points["xy"] += np.array([by, 0.0])
    labels.labeled_frames = labels.labeled_frames[:keep]
    if rename:
        labels.rename_nodes({"head": "nose"})
    labels.save(str(target), embed=False, verbose=False)
    return target


def test_the_same_points_have_no_error(made: Dataset) -> None:
    found = compare(made.truth, made.truth)
    assert (found.mean_error_px, found.found, found.extra) == (0.0, 1.0, 0)
    assert (found.frames, found.instances) == (6, 12)


def test_instances_are_matched_by_distance(made: Dataset, tmp_path: Path) -> None:
    found = compare(_moved(made, tmp_path / "p.slp", 3.0), made.truth)
    assert found.mean_error_px == pytest.approx(3.0)
    assert found.median_error_px == pytest.approx(3.0)
    assert found.found == 1.0


def test_frames_without_predictions_count_as_not_found(made: Dataset, tmp_path: Path) -> None:
    predictions = _moved(made, tmp_path / "p.slp", 1.0, keep=3)
    assert compare(predictions, made.truth).found == 0.5
    assert compare(predictions, made.truth, frames=(0, 2)).found == 1.0
    assert compare(predictions, made.truth, frames=(3, 5)).mean_error_px is None


def test_what_is_far_away_is_extra_and_not_found(made: Dataset, tmp_path: Path) -> None:
    found = compare(_moved(made, tmp_path / "p.slp", 200.0), made.truth)
    assert (found.found, found.extra, found.mean_error_px) == (0.0, 12, None)


def test_missing_points_are_left_out_of_the_error() -> None:
    known = np.array([[0.0, 0.0], [10.0, 0.0]])
    half = np.array([[1.0, 0.0], [np.nan, np.nan]])
    nothing = np.full((2, 2), np.nan)
    assert match([known], [nothing, half], reach_px=5) == [(0, 1)]


def test_each_instance_is_matched_once() -> None:
    known = [np.zeros((1, 2)), np.full((1, 2), 4.0)]
    assert match(known, [np.full((1, 2), 1.0)], reach_px=50) == [(0, 0)]


def test_other_points_are_refused(made: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InvalidLabels, match="nose"):
        compare(_moved(made, tmp_path / "p.slp", 1.0, rename=True), made.truth)


def test_what_is_not_there_or_no_label_file(made: Dataset, tmp_path: Path) -> None:
    with pytest.raises(FilesMissing):
        compare(tmp_path / "absent.slp", made.truth)
    wrong = tmp_path / "wrong.slp"
    wrong.write_bytes(b"not HDF5")
    with pytest.raises(InvalidLabels, match="can't be read"):
        compare(wrong, made.truth)
