"""Label files from elsewhere: checked, and sealed where they name other files of the worker."""

from __future__ import annotations

import shutil

import pytest

from sleap_rtc.errors import InvalidLabels, UnsafePath
from sleap_rtc.worker.labels import check_labels

synthetic = pytest.importorskip("sleap_rtc.media.synthetic", reason="needs the extra media")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    spec = synthetic.SyntheticSpec(size=(64, 64), animals=1, labelled=2, frames=1)
    return synthetic.make_dataset(tmp_path_factory.mktemp("made") / "data", spec)


async def test_labels_with_their_images_are_taken(made):
    assert await check_labels(made.package.parent, "labels.pkg.slp") == made.package


async def test_labels_that_name_other_files_are_read_without_their_names(made, tmp_path):
    inputs = tmp_path / "inputs"
    (inputs / "labels").mkdir(parents=True)
    shutil.copy(made.package, inputs / "labels" / "a.pkg.slp")  # its video is here, elsewhere
    given = await check_labels(inputs, "labels/a.pkg.slp")
    assert given == tmp_path / "inputs.sealed" / "labels" / "a.pkg.slp"
    before = given.stat()
    assert await check_labels(inputs, "labels/a.pkg.slp") == given
    assert given.stat().st_mtime_ns == before.st_mtime_ns
    # What comes to lie there otherwise isn't believed.
    shutil.copy(made.package, given)
    with pytest.raises(InvalidLabels, match=r"^a\.pkg\.slp .*other files of this machine"):
        await check_labels(inputs, "labels/a.pkg.slp")


async def test_labels_without_their_video_are_refused_by_their_own_name(made, tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "mine.slp").write_bytes(made.labels.read_bytes())
    with pytest.raises(InvalidLabels, match=r"^mine\.slp is not a usable label file"):
        await check_labels(tmp_path, "labels/mine.slp")


async def test_what_is_no_label_file_or_not_there_is_refused(tmp_path):
    (tmp_path / "a.slp").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    with pytest.raises(InvalidLabels, match=r"a\.slp"):
        await check_labels(tmp_path, "a.slp")
    with pytest.raises(InvalidLabels, match="not in the job's package"):
        await check_labels(tmp_path, "labels/gone.slp")


async def test_a_path_that_would_leave_the_inputs_is_refused(tmp_path):
    with pytest.raises(UnsafePath):
        await check_labels(tmp_path, "../a.slp")
