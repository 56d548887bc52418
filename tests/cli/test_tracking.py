"""What is refused before a frame is read; tracking itself is in test_whole_job.py."""

from __future__ import annotations

import pytest

from sleap_rtc.domain.models import Training


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(b"no frames")
    return path


@pytest.mark.parametrize("remote", [(), ("--remote",)], ids=["here", "there"])
def test_what_is_not_there(cli, home, video, tmp_path, remote):
    done = cli("track", "--model", "x", tmp_path / "none.mp4", *remote)
    assert done.code == 3
    assert "There is no video" in done.err
    done = cli("track", "--model", "x", video, *remote)
    assert done.code == 3
    assert "There is no model 'x'" in done.err


def test_a_model_whose_files_are_gone(cli, home, video):
    gone = home.model("a")
    (gone.directory / "best.ckpt").unlink()
    done = cli("track", "--model", gone.id, video)
    assert done.code == 3
    assert "lacks files: best.ckpt" in done.err
    # The worker may have it still, so it is asked, which takes a room.
    done = cli("track", "--model", gone.id, video, "--remote", "--worker", "w")
    assert done.code == 3
    assert "in no room" in done.err


def test_predictions_that_are_there_stay(cli, home, video, tmp_path):
    output = tmp_path / "v.mp4.predictions.slp"
    output.write_bytes(b"mine")
    done = cli("track", "--model", home.model().id, video)
    assert done.code == 4
    assert "--overwrite" in done.err
    assert output.read_bytes() == b"mine"


def test_one_file_for_two_videos(cli, home, video, tmp_path):
    other = tmp_path / "sub" / "v.mp4"
    other.parent.mkdir()
    other.write_bytes(b"")
    model = home.model().id
    assert cli("track", "--model", model, video, other, "-o", tmp_path / "o.slp").code == 2
    done = cli("track", "--model", model, video, other, "-o", tmp_path / "out")
    assert done.code == 2
    assert "one name" in done.err


def test_models_of_two_engines(cli, home, video):
    one = home.model("a")
    two = home.model("b", model_type="centered_instance", training=Training(engine="sleap-nn"))
    done = cli("track", "--model", one.id, "--model", two.id, video)
    assert done.code == 2
    assert "can't run together" in done.err


def test_a_folder_that_no_library_knows(cli, video, tmp_path):
    done = cli("track", "--model", tmp_path, video)
    assert done.code == 2
    assert "doesn't know" in done.err


def test_a_model_that_cannot_be_loaded(cli, home, video, tmp_path):
    track = ("track", "--model", home.model("a").id, video)
    assert cli(*track).code == 6  # nobody knows what it is, whoever trained it
    done = cli(*track, "--trust-model")
    assert done.code in (1, 3)
    assert "Traceback" not in done.err.splitlines()[0]
    assert not (tmp_path / "v.mp4.predictions.slp").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
