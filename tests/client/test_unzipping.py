"""Training packages in a zip, honest ones and others."""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import time
import zipfile
from pathlib import Path

import pytest

from sleap_rtc.client import unzipping
from sleap_rtc.client.unzipping import TrainingPackage, unpack
from sleap_rtc.errors import InvalidConfig, InvalidLabels, OutOfSpace, SleapRtcError, UnsafePath

# As SLEAP writes it.
JOBS = """
training:
- cfg: centroid.yaml
  run_path: models/260101_120000.centroid.n=12
  train_labels: labels.v001.pkg.slp
- cfg: centered_instance.yaml
  run_path: models/260101_120000.centered_instance.n=12
  train_labels: labels.v001.pkg.slp
inference:
- data_path: labels.v001.pkg.slp
  models: [models/260101_120000.centroid.n=12]
  output_path: labels.v001.pkg.slp.predictions.slp
  type: labels
  only_suggested_frames: true
  tracking: {tracking.tracker: none}
"""
EXPORTED = {
    "labels.v001.pkg.slp": "the labels",
    "centroid.yaml": "one",
    "centered_instance.yaml": "two",
    "train-script.sh": "#!/bin/bash\nrm -rf /\n",
    "jobs.yaml": JOBS,
}


@pytest.fixture
def packed(tmp_path: Path):
    def make(files: dict[str, str], name: str = "flies.training_job.zip", **more) -> Path:
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **more) as archive:
            for member, content in files.items():
                archive.writestr(member, content)
        return path

    return make


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "home" / "unpacked"


def names(found: TrainingPackage, into: Path) -> tuple[str, ...]:
    [folder] = into.iterdir()
    return tuple(p.relative_to(folder).as_posix() for p in (found.labels, *found.configs))


@pytest.mark.parametrize("folder", ["", "exported/", "a/b/"])
def test_what_sleap_exports(packed, into, folder):
    path = packed({folder + name: content for name, content in EXPORTED.items()})
    told = []
    found = unpack(path, into, progress=lambda *how_far: told.append(how_far))
    inside = ("labels.v001.pkg.slp", "centroid.yaml", "centered_instance.yaml")
    assert names(found, into) == tuple(folder + name for name in inside)
    assert found.val_labels is None
    assert found.labels.read_text() == "the labels"
    total = sum(map(len, EXPORTED.values()))
    assert told[-1] == (total, total)


def test_the_second_time_nothing_is_unpacked(packed, into):
    path = packed(EXPORTED)
    first = unpack(path, into)
    again = unpack(path.rename(path.with_name("other.zip")), into, progress=lambda *_: 1 / 0)
    assert again == first


def test_labels_alone(packed, into):
    found = unpack(packed({"data/flies.pkg.slp": "x", "data/readme.txt": "hi"}, "a.zip"), into)
    assert names(found, into) == ("data/flies.pkg.slp",)


def test_validation_labels_and_paths_of_another_machine(packed, into):
    jobs = r"""
training:
- {cfg: 'C:\Users\ada\job\centroid.yaml', train_labels: /home/ada/a.slp, val_labels: b.slp}
"""
    files = {"jobs.yaml": jobs, "centroid.yaml": "one", "a.slp": "a", "b.slp": "b"}
    found = unpack(packed(files), into)
    assert names(found, into) == ("a.slp", "centroid.yaml")
    assert found.val_labels is not None
    assert found.val_labels.read_text() == "b"


@pytest.mark.parametrize(
    ("files", "error", "why"),
    [
        ({"a.txt": "x"}, InvalidLabels, "exactly one .slp"),
        ({"a.slp": "x", "b.slp": "y"}, InvalidLabels, r"it has a\.slp, b\.slp"),
        (EXPORTED | {"jobs.yaml": "["}, InvalidConfig, "jobs.yaml"),
        (EXPORTED | {"jobs.yaml": "a: 1"}, InvalidConfig, "no list"),
        (EXPORTED | {"jobs.yaml": "training: []"}, InvalidConfig, "no list"),
        (EXPORTED | {"jobs.yaml": "training: [1]"}, InvalidConfig, "no mapping"),
        (EXPORTED | {"jobs.yaml": "training: [{cfg: 3}]"}, InvalidConfig, "cfg: it is no path"),
        (EXPORTED | {"jobs.yaml": "training: [{cfg: no.yaml}]"}, InvalidConfig, "'no.yaml'"),
        (EXPORTED | {"jobs.yaml": "training: [{cfg: ../../etc/passwd}]"}, InvalidConfig, "passwd"),
        (EXPORTED | {"jobs.yaml": "x: " + "a" * 300_000}, InvalidConfig, "larger"),
        (
            EXPORTED
            | {
                "jobs.yaml": "training: [{cfg: centroid.yaml, train_labels: a},"
                "{cfg: centroid.yaml, train_labels: b}]"
            },
            InvalidConfig,
            "different train_labels",
        ),
        ({}, InvalidLabels, "empty"),
    ],
)
def test_what_cant_be_used_is_said(packed, into, files, error, why):
    with pytest.raises(error, match=why):
        unpack(packed(files), into)


@pytest.mark.parametrize(
    "name", ["../out.slp", "/etc/out.slp", "a/../../out.slp", "C:/out.slp", "a\\..\\out.slp"]
)
def test_names_that_leave_the_folder_are_refused(packed, into, tmp_path, name):
    with pytest.raises(UnsafePath):
        unpack(packed({name: "x"}), into)
    assert list(into.iterdir()) == []
    assert not list(tmp_path.rglob("out.slp"))


def test_a_name_twice_is_refused(packed, into):
    with pytest.raises(UnsafePath, match="twice"):
        unpack(packed({"a.slp": "x", "A.slp": "y"}), into)


def test_links_and_devices_are_refused(into, tmp_path):
    for kind in (stat.S_IFLNK, stat.S_IFIFO):
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w") as archive:
            member = zipfile.ZipInfo("a.slp")
            member.external_attr = (kind | 0o777) << 16
            archive.writestr(member, "/etc/passwd")
        with pytest.raises(UnsafePath, match="no regular file"):
            unpack(path, into)


def test_a_bomb_is_refused_before_it_is_unpacked(into, tmp_path, monkeypatch):
    monkeypatch.setattr(unzipping, "PLENTY", 1_000_000)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.slp", bytes(20_000_000))
    with pytest.raises(InvalidLabels, match="claims to unpack to 20 MB"):
        unpack(path, into)
    assert list(into.iterdir()) == []


def test_a_bomb_that_lies_about_its_size(into, packed):
    path = packed({"a.slp": "x" * 1_000_000})
    data = bytearray(path.read_bytes())
    # The sizes in the directory and before the member.
    for magic, at in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        struct.pack_into("<L", data, data.index(magic) + at, 10)
    path.write_bytes(data)
    with pytest.raises(InvalidLabels, match="damaged"):
        unpack(path, into)
    assert list(into.iterdir()) == []


def test_too_many_members(into, packed, monkeypatch):
    monkeypatch.setattr(unzipping, "MAX_MEMBERS", 3)
    with pytest.raises(InvalidLabels, match="5 members"):
        unpack(packed(EXPORTED), into)


def test_a_directory_that_would_fill_the_memory(into, tmp_path):
    path, size = tmp_path / "huge.zip", 100 * 1024**2
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 60_000, 60_000, size, 0, 0)
    with path.open("wb") as file:
        file.truncate(size)  # a hole: it takes no room
        file.seek(size)
        file.write(end)
    with pytest.raises(InvalidLabels, match="too many members"):
        unpack(path, into)


def test_an_encrypted_archive(into, packed):
    path = packed({"a.slp": "x"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(InvalidLabels, match="encrypted"):
        unpack(path, into)


def test_any_bytes_are_an_archive_or_an_error(into, packed):
    whole = packed(EXPORTED).read_bytes()
    path = into.parent / "cut.zip"
    into.parent.mkdir(exist_ok=True)
    for at in range(0, len(whole), 7):
        for data in (whole[:at], whole[:at] + b"\xff" + whole[at + 1 :]):
            path.write_bytes(data)
            with contextlib.suppress(SleapRtcError):
                unpack(path, into)
    assert not [entry for entry in into.iterdir() if entry.name.startswith(".tmp-")]


def test_no_room_is_said_first(into, packed, monkeypatch):
    monkeypatch.setattr("sleap_rtc.files.space.free_space", lambda _: 10)
    with pytest.raises(OutOfSpace):
        unpack(packed(EXPORTED), into)
    assert list(into.iterdir()) == []


def test_there_is_no_such_file(into, tmp_path):
    with pytest.raises(InvalidLabels, match="no such file"):
        unpack(tmp_path / "none.zip", into)


def test_what_was_unpacked_long_ago_is_removed(into, packed):
    old = unpack(packed(EXPORTED), into).labels.parent
    then = time.time() - unzipping.KEPT_S - 1
    os.utime(old, (then, then))
    new = unpack(packed({"b.slp": "x"}, "b.zip"), into).labels.parent
    assert list(into.iterdir()) == [new]
