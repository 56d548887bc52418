"""Which files of a worker's machine a job may name: those below folders that its owner permits."""

from __future__ import annotations

import os

import pytest

from sleap_rtc.errors import NotFound, PathNotPermitted, UnsafePath
from sleap_rtc.jobs.datasets import SharedFile
from sleap_rtc.worker.shared import SharedFolders


@pytest.fixture
def place(tmp_path):
    folder = tmp_path / "shared"
    (folder / "lab").mkdir(parents=True)
    (folder / "lab" / "a.slp").write_bytes(b"labels")
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "up").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    return folder


def named(path, size=6) -> SharedFile:
    return SharedFile(name="labels/a.slp", path=str(path), size_bytes=size, checksum="0" * 64)


def test_nothing_is_permitted_by_itself(place):
    with pytest.raises(PathNotPermitted, match="permits no folder") as caught:
        SharedFolders().open(str(place / "lab" / "a.slp"))
    assert "worker_shared" in caught.value.hint_text
    assert not SharedFolders().sees(named(place / "lab" / "a.slp"))


def test_a_file_below_a_folder_by_either_of_the_folders_names(place, tmp_path):
    known_as = tmp_path / "mnt"
    known_as.symlink_to(place)
    folders = SharedFolders([known_as])
    for folder in (known_as, place):
        fd = folders.open(str(folder / "lab" / "a.slp"))
        assert os.read(fd, 10) == b"labels"
        os.close(fd)
        assert folders.sees(named(folder / "lab" / "a.slp"))
    assert not folders.sees(named(place / "lab" / "a.slp", size=7))


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("{0}/../secret", UnsafePath),
        ("{0}/lab/../../secret", UnsafePath),
        ("{0}/out", UnsafePath),
        ("{0}/up/secret", UnsafePath),
        ("{0}/pipe", UnsafePath),
        ("{0}/lab", UnsafePath),
        ("{0}", PathNotPermitted),
        ("{0}beside", PathNotPermitted),
        ("lab/a.slp", PathNotPermitted),
        ("/etc/passwd", PathNotPermitted),
        ("{0}/none", NotFound),
        ("{0}/none/a.slp", NotFound),
        ("{0}/a\0b", UnsafePath),
        ("{0}/" + "a/" * 1500 + "b", UnsafePath),
    ],
)
def test_nobody_is_led_out_of_it(place, path, error):
    folders = SharedFolders([place])
    with pytest.raises(error):
        folders.open(path.format(place))
    assert not folders.sees(named(path.format(place)))


def test_a_file_that_this_user_may_not_read(place, monkeypatch):
    def refuse(*_args, **_more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("sleap_rtc.worker.shared.Root.open", refuse)
    with pytest.raises(PathNotPermitted, match="may not read"):
        SharedFolders([place]).open(str(place / "lab" / "a.slp"))


def test_a_folder_that_is_away(tmp_path):
    with pytest.raises(NotFound):
        SharedFolders([tmp_path / "gone"]).open(str(tmp_path / "gone" / "a.slp"))
