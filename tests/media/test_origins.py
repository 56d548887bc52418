"""What a label file says of its images' origin, and how it is taken out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sleap_rtc.errors import InvalidLabels
from sleap_rtc.media.labels import check_videos, inspect_labels, read_labels
from sleap_rtc.media.origins import names_in, outside, seal, without_folders
from sleap_rtc.media.readers import readers_closed
from sleap_rtc.media.synthetic import Dataset


def video(path: str, **more: Any) -> dict[str, Any]:
    return {"filename": path, "backend": {"type": "MediaVideo", "filename": path}} | more


def as_attribute(file: h5py.File, path: str) -> None:
    file["video0/source_video"].attrs["json"] = json.dumps(video(path))


def as_dataset(file: h5py.File, path: str) -> None:
    file["video0/source_video"].create_dataset("json", data=np.bytes_(json.dumps(video(path))))


def deeper(file: h5py.File, path: str) -> None:
    first = video("a.mp4", source_video=video("b.mp4", original_video=video(path)))
    file["video0/source_video"].attrs["json"] = json.dumps(first)


def elsewhere(file: h5py.File, path: str) -> None:
    """An embedded video names its group itself, and that of what it came from."""
    file.create_group("other/original_video").attrs["json"] = json.dumps(video(path))
    first = {"backend": {"type": "HDF5Video", "filename": ".", "dataset": "other/video"}}
    file["video0/source_video"].attrs["json"] = json.dumps(first)


def a_series(file: h5py.File, path: str) -> None:
    entry = {"backend": {"type": "ImageVideo", "filename": "a.png", "filenames": ["b.png", path]}}
    file["video0/source_video"].attrs["json"] = json.dumps(entry)


def in_the_list(file: h5py.File, path: str) -> None:
    entry = json.loads(file["videos_json"][0]) | {"source_video": video(path)}
    del file["videos_json"]
    file.create_dataset("videos_json", data=[json.dumps(entry)], dtype=h5py.string_dtype())


WAYS = [as_attribute, as_dataset, deeper, elsewhere, a_series, in_the_list]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "private" / "secret.mp4"
    path.parent.mkdir()
    path.write_bytes(b"secret")
    return path


@pytest.fixture
def labels(made: Dataset, tmp_path: Path) -> Path:
    folder = tmp_path / "labels"
    folder.mkdir()
    return Path(shutil.copy(made.package, folder))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("spelling", ["{}", "backslashes"])
async def test_other_files_are_named_and_taken_out(
    labels: Path, secret: Path, way: Callable[[h5py.File, str], None], spelling: str
) -> None:
    named = str(secret).replace("/", "\\") if spelling == "backslashes" else str(secret)
    with h5py.File(labels, "r+") as file:
        way(file, named)
        pictures = file["video0/video"][:]
    before = read_labels(labels)
    assert named in outside(before.origins, labels)
    sealed = labels.parent / "sealed" / labels.name
    await seal(labels, sealed)
    after = await inspect_labels(sealed)
    assert outside(after.origins, sealed) == []
    assert "secret.mp4" in after.origins
    check_videos(after, sealed)
    assert read_labels(labels) == before
    assert (after.nodes, after.frames, after.instances) == (
        before.nodes,
        before.frames,
        before.instances,
    )
    with h5py.File(sealed) as file:
        assert all(
            np.array_equal(a, b) for a, b in zip(pictures, file["video0/video"], strict=True)
        )
    assert [p.name for p in sealed.parent.iterdir()] == [labels.name]


async def test_the_trainers_reader_opens_nothing_else_afterwards(
    labels: Path, made: Dataset
) -> None:
    sleap_io = pytest.importorskip("sleap_io")
    other = labels.parent.parent / "elsewhere.mp4"
    shutil.copy(made.labelled_video, other)
    with h5py.File(labels, "r+") as file:
        as_attribute(file, str(other))

    def opened() -> bool:
        return sleap_io.load_slp(str(labels)).videos[0].source_video.shape is not None

    with readers_closed():
        assert opened()  # if nobody does anything about it
    sealed = labels.parent / "sealed.slp"
    await seal(labels, sealed)
    found = sleap_io.load_slp(str(sealed))
    assert found.videos[0].source_video.shape is None
    assert found[0].image.shape == sleap_io.load_slp(str(made.package))[0].image.shape


def test_files_beside_the_labels_and_files_that_arent_here_are_no_matter(tmp_path: Path) -> None:
    (tmp_path / "here.mp4").write_bytes(b"")
    labels = tmp_path / "a.slp"
    named = [str(tmp_path / "here.mp4"), "/nowhere/there.mp4", "here.mp4", "C:\\data\\x.mp4"]
    assert outside(named, labels) == []
    assert outside(["../here.mp4", "a\\..\\..\\b"], labels) == ["../here.mp4", "a\\..\\..\\b"]
    assert outside(["a\0b", "x" * 5000], labels) == []


def test_a_name_without_a_folder_is_not_one_where_this_program_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here.mp4").write_bytes(b"")
    (tmp_path / "job").mkdir()
    monkeypatch.chdir(tmp_path)
    assert outside(["here.mp4"], tmp_path / "job" / "a.slp") == []
    assert outside([str(tmp_path / "here.mp4")], tmp_path / "job" / "a.slp") != []


@pytest.mark.parametrize("write", [as_attribute, as_dataset, deeper])
def test_an_address_is_refused_wherever_it_is(
    labels: Path, write: Callable[[h5py.File, str], None]
) -> None:
    with h5py.File(labels, "r+") as file:
        write(file, "http://10.0.0.1/video.mp4")
    with pytest.raises(InvalidLabels, match="by address"):
        read_labels(labels)


def test_a_description_without_end_is_cut() -> None:
    entry: dict[str, Any] = video("/last")
    for _ in range(100):
        entry = video("/x", source_video=entry)
    assert "/last" not in set(names_in(entry))
    assert "/last" not in json.dumps(without_folders(entry))
    assert list(names_in(["a", 1])) == []


async def test_what_cant_be_sealed_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    labels = tmp_path / "a.slp"
    labels.write_bytes(b"no HDF5")
    with pytest.raises(InvalidLabels, match="can't be taken out"):
        await seal(labels, tmp_path / "sealed" / "b.slp")
    assert list((tmp_path / "sealed").iterdir()) == []
