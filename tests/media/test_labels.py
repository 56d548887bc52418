from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sleap_rtc.errors import FilesMissing, InvalidLabels
from sleap_rtc.media.labels import (
    LabelsReport,
    VideoReference,
    check_videos,
    inspect_labels,
    read_labels,
)
from sleap_rtc.media.synthetic import Dataset


def test_a_package_is_understood(made: Dataset) -> None:
    report = read_labels(made.package)
    assert report.nodes == ("head", "body", "tail")
    assert (report.frames, report.instances) == (4, 8)
    assert report.embedded
    assert report.videos[0].name == "labelled.mp4"
    check_videos(report, made.package)


def test_labels_with_their_video_beside_them(made: Dataset, tmp_path: Path) -> None:
    report = read_labels(made.labels)
    assert not report.embedded
    check_videos(report, made.labels)
    shutil.copy(made.labels, tmp_path)
    with pytest.raises(InvalidLabels, match=r"'labelled\.mp4' is not beside it"):
        check_videos(report, tmp_path / made.labels.name)
    # The same name beside it doesn't help while the named file is another one: it would be opened.
    shutil.copy(made.labelled_video, tmp_path)
    with pytest.raises(InvalidLabels, match="names another file of this machine"):
        check_videos(report, tmp_path / made.labels.name)


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ("{secret}", "names another file"),
        ("{backslashes}", "names another file"),  # sleap-io opens these as if they were slashes
        ("../../other/clip.mp4", "leads out of its folder"),
        ("..\\other\\clip.mp4", "leads out of its folder"),
        ("a" * 300, "is not beside it"),  # more than a file's name can have
        ("a\0b", "is not beside it"),
    ],
)
def test_no_spelling_leads_to_another_file(tmp_path: Path, named: str, why: str) -> None:
    secret = tmp_path / "private" / "clip.mp4"
    secret.parent.mkdir()
    secret.write_bytes(b"secret")
    (tmp_path / "clip.mp4").write_bytes(b"decoy")
    path = named.format(secret=secret, backslashes=str(secret).replace("/", "\\"))
    report = LabelsReport(videos=(VideoReference(path=path, embedded=False),))
    with pytest.raises(InvalidLabels, match=why):
        check_videos(report, tmp_path / "labels.slp")


async def test_a_process_of_its_own_says_the_same(made: Dataset, tmp_path: Path) -> None:
    assert await inspect_labels(made.package) == read_labels(made.package)
    with pytest.raises(FilesMissing):
        await inspect_labels(tmp_path / "absent.slp")
    wrong = tmp_path / "wrong.slp"
    wrong.write_bytes(b"PK\x03\x04")
    with pytest.raises(InvalidLabels, match="not an HDF5 file"):
        await inspect_labels(wrong)
    with pytest.raises(InvalidLabels, match="took over"):
        await inspect_labels(made.package, timeout_s=0.001)


def test_without_h5py_only_the_signature_is_checked(
    made: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert not read_labels(made.package).checked
    wrong = tmp_path / "wrong.slp"
    wrong.write_bytes(b"")
    with pytest.raises(InvalidLabels, match="not an HDF5 file"):
        read_labels(wrong)


def _videos(entry: object) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file["videos_json"]
        file["videos_json"] = [json.dumps(entry)]

    return change


def _metadata(entry: object) -> Callable[[Any], None]:
    return lambda file: file["metadata"].attrs.__setitem__("json", json.dumps(entry))


def _replace(name: str, value: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[name]
        file[name] = value

    return change


def _outside(file: Any) -> None:
    del file["points"]
    file.create_dataset("points", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def _virtual(file: Any) -> None:
    del file["points"]
    layout = h5py.VirtualLayout(shape=(4,), dtype="u1")
    layout[:] = h5py.VirtualSource("other.h5", "data", shape=(4,))
    file.create_virtual_dataset("points", layout)


def _skeleton(nodes: list[Any], ids: list[Any]) -> Callable[[Any], None]:
    return _metadata({"skeletons": [{"nodes": ids}], "nodes": nodes})


HOSTILE: dict[str, tuple[Callable[[Any], None], str]] = {
    "no frames": (lambda f: f.__delitem__("frames"), "no 'frames'"),
    "external link": (lambda f: f.__setitem__("x", h5py.ExternalLink("/a.h5", "/")), "is a link"),
    "soft link": (lambda f: f.__setitem__("x", h5py.SoftLink("/frames")), "is a link"),
    "storage elsewhere": (_outside, "lies in another file"),
    "virtual": (_virtual, "lies in another file"),
    "address": (_videos({"backend": {"filename": "https://host/v.mp4"}}), "by address"),
    "address of the source": (
        _videos({"backend": {"filename": "a"}, "source_video": [{"filename": "s3://a"}]}),
        "by address",
    ),
    "images": (_videos({"backend": {"filenames": ["a.png"]}}), "series of image files"),
    "nameless": (_videos({"backend": {}}), "without a name"),
    "no entry": (_videos([1]), "list of videos is damaged"),
    "images that aren't there": (
        _videos({"backend": {"filename": ".", "dataset": "video9/video"}}),
        "has none",
    ),
    "videos not JSON": (_replace("videos_json", ["{"]), "not JSON"),
    "no videos": (_replace("videos_json", np.zeros(0)), "names no video"),
    "frames no table": (_replace("frames", 3), "no table"),
    "frames a group": (
        lambda f: (f.__delitem__("frames"), f.create_group("frames")),  # type: ignore[func-returns-value]
        "no table",
    ),
    "no metadata": (lambda f: f["metadata"].attrs.__delitem__("json"), "metadata is missing"),
    "no skeleton": (_metadata({"skeletons": [], "nodes": []}), "no skeleton"),
    "no points": (_skeleton([], []), "has 0 points"),
    "nameless points": (_skeleton([{"name": ""}], [{"id": 0}]), "no usable names"),
    "same names": (
        _skeleton([{"name": "a"}, {"name": "a"}], [{"id": 0}, {"id": 1}]),
        "no usable names",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_breaks_the_rules_is_refused(made: Dataset, tmp_path: Path, name: str) -> None:
    change, why = HOSTILE[name]
    target = tmp_path / "hostile.slp"
    shutil.copy(made.package, target)
    with h5py.File(target, "a") as file:
        change(file)
    with pytest.raises(InvalidLabels, match=why):
        read_labels(target)


def test_points_in_the_skeletons_order(made: Dataset, tmp_path: Path) -> None:
    target = tmp_path / "labels.slp"
    shutil.copy(made.package, target)
    with h5py.File(target, "a") as file:
        _skeleton([{"name": "B"}, {"name": "A"}], [{"id": 1}, {"id": 0}])(file)
    assert read_labels(target).nodes == ("A", "B")
    with h5py.File(target, "a") as file:
        _skeleton([{"name": "B"}, {"name": "A"}], [{"id": {"py/id": 3}}])(file)
    assert read_labels(target).nodes == ("B", "A")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cut=st.integers(8, 8_000), noise=st.binary(max_size=64))
def test_a_damaged_file_is_an_error_and_never_a_crash(
    made: Dataset, tmp_path: Path, cut: int, noise: bytes
) -> None:
    whole = made.labels.read_bytes()
    target = tmp_path / "damaged.slp"
    target.write_bytes(whole[: min(cut, len(whole) - 70)] + noise)
    with pytest.raises(InvalidLabels):
        read_labels(target)
