from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sleap_io as sio
from PIL import Image

from sleap_rtc.errors import FilesMissing, UsageError
from sleap_rtc.media.render import render_frame
from sleap_rtc.media.synthetic import Dataset


def test_a_picture_shows_frame_and_points(made: Dataset, tmp_path: Path) -> None:
    picture = tmp_path / "frame.png"
    assert render_frame(made.truth, picture, frame=2, scale=2.0) == 2
    with Image.open(picture) as opened:
        pixels = np.asarray(opened.convert("RGB")).astype(int)
    assert pixels.shape == (192, 224, 3)
    # The video is grey, so whatever has a colour was drawn: and it is where the points are.
    coloured = np.ptp(pixels, axis=-1) > 60
    frame = sio.load_slp(str(made.truth))[2]
    for instance in frame.instances:
        for x, y in np.rint(2 * instance.numpy()).astype(int):
            assert coloured[y - 2 : y + 3, x - 2 : x + 3].any()
    assert coloured.mean() < 0.2


def test_the_frame_with_most_instances_is_chosen(made: Dataset, tmp_path: Path) -> None:
    labels = sio.load_slp(str(made.truth))
    for frame in labels:
        if frame.frame_idx != 1:
            frame.instances = frame.instances[:1]
    labels.save(str(tmp_path / "p.slp"), embed=False, verbose=False)
    assert render_frame(tmp_path / "p.slp", tmp_path / "p.png", video=made.video) == 1


def test_what_cannot_be_drawn_is_said(made: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no instances in frame 77"):
        render_frame(made.truth, tmp_path / "p.png", frame=77)
    with pytest.raises(UsageError, match="enlarged"):
        render_frame(made.truth, tmp_path / "p.png", scale=100)
    with pytest.raises(FilesMissing):
        render_frame(made.truth, tmp_path / "p.png", video=tmp_path / "absent.mp4")
    empty = sio.load_slp(str(made.truth))
    for frame in empty:
        frame.instances = []
    empty.save(str(tmp_path / "empty.slp"), embed=False, verbose=False)
    with pytest.raises(UsageError, match="nothing to draw"):
        render_frame(tmp_path / "empty.slp", tmp_path / "p.png")
