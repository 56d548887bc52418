"""What can't be read or written is said in one sentence, before anything is begun."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.domain.packages import check_path
from sleap_rtc.errors import DataError, NotFound, OutOfSpace, PathNotPermitted, UnsafePath
from sleap_rtc.files import validation
from sleap_rtc.files.drives import Mount
from sleap_rtc.files.validation import (
    FAT_LIMIT,
    check_source,
    check_target,
    name_fault,
    read_only,
    safe_name,
    same_without_case,
)


def mount(kind: str) -> Mount:
    return Mount(device="8:1", path="/", kind=kind, source="/dev/sda1", options=frozenset())


def test_what_can_be_read(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "link").symlink_to("a")
    assert check_source(tmp_path / "link").st_size == 1
    check_source(tmp_path)


def test_what_is_not_there(tmp_path):
    (tmp_path / "link").symlink_to("/unplugged/a")
    with pytest.raises(NotFound, match="There is no"):
        check_source(tmp_path / "a")
    with pytest.raises(NotFound, match="is a link to /unplugged/a") as caught:
        check_source(tmp_path / "link")
    assert "plugged" in caught.value.hint_text
    with pytest.raises(NotFound, match="null"):
        check_source(Path("a\0b"))


def test_what_leads_to_itself(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for path in (tmp_path / "a", tmp_path / "a" / "x"):
        with pytest.raises(UnsafePath, match="leads to itself"):
            check_source(path)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        check_source(tmp_path / "pipe")
    with pytest.raises(DataError, match="can't be read"):
        check_source(tmp_path / ("n" * 300))


def test_room_is_asked_for(tmp_path):
    check_target(tmp_path / "not" / "there", need=1)
    with pytest.raises(OutOfSpace):
        check_target(tmp_path, need=1 << 60)


def test_a_file_that_is_too_large_for_fat(tmp_path):
    check_target(tmp_path, need=1, largest=FAT_LIMIT, mount=mount("vfat"))
    check_target(tmp_path, need=1, largest=FAT_LIMIT + 1, mount=mount("exfat"))
    with pytest.raises(DataError, match="up to 4 GiB"):
        check_target(tmp_path, need=1, largest=FAT_LIMIT + 1, mount=mount("vfat"))


@pytest.mark.parametrize("name", ["a:b", "x/con", "a.", "a ", "q?", "lpt1.txt", "a|b"])
def test_names_that_windows_does_not_have(tmp_path, name):
    check_target(tmp_path, need=1, names=[name], mount=mount("ext4"))
    for kind in ("ntfs3", "exfat", "cifs"):
        with pytest.raises(DataError, match="names may not be so there"):
            check_target(tmp_path, need=1, names=["ok", name], mount=mount(kind))


def test_names_that_only_case_tells_apart(tmp_path):
    names = ["a.png", "b.png", "A.png"]
    check_target(tmp_path, need=1, names=names, mount=mount("ext4"))
    with pytest.raises(DataError, match=r"a\.png and A\.png would be one file"):
        check_target(tmp_path, need=1, names=names, mount=mount("vfat"))
    assert same_without_case(["Ä", "A\u0308"]) == ("Ä", "A\u0308")
    assert same_without_case(["a", "b", "a"]) is None


def test_a_folder_that_folds_case_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "samefile", lambda *_: True)
    assert validation.folds_case(tmp_path / "Folder", mount("apfs"))
    assert not validation.folds_case(tmp_path / "123", mount("apfs"))


@pytest.fixture
def read_only_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "ro"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, check=False).returncode
    except FileNotFoundError:
        done = 1
    if done:
        pytest.skip("this user can't mount a file system")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_read_only_file_system(read_only_disk):
    with pytest.raises(PathNotPermitted, match="read-only"):
        check_target(read_only_disk / "library", need=1)


def test_an_ntfs_that_windows_has_not_let_go_of():
    error = read_only(Path("/mnt/disk"), mount("ntfs3"))
    assert "Windows" in error.message
    assert "fast start-up" in error.hint_text
    assert "Windows" not in read_only(Path("/mnt"), None).message


@given(st.text(max_size=400))
def test_a_safe_name_is_one(name):
    made = safe_name(name)
    assert name_fault(made) == ""
    assert check_path(made) == made
    assert len(made) <= 140
    assert safe_name(made) == made


KEPT: list[tuple[str, str]] = [
    ("best.ckpt", "best.ckpt"),
    ("with space.txt", "with space.txt"),
    ("Mäuse 🐭.h5", "Mäuse 🐭.h5"),
    ("a/b", "a_b"),
    ("new\nline.pt", "new_line.pt"),
    ("nul.txt", "_nul.txt"),
    ("dots...", "dots"),
    ("", "_"),
    ("...", "_"),
]


@pytest.mark.parametrize(("name", "made"), KEPT)
def test_names_are_kept_as_far_as_they_are_safe(name, made):
    assert safe_name(name) == made


@pytest.mark.parametrize("make", [lambda: "x" * 300 + ".ckpt", lambda: "ä" * 200 + ".ckpt"])
def test_a_long_name_keeps_its_ending(make: Callable[[], str]):
    made = safe_name(make())
    assert made.endswith(".ckpt")
    assert len(made) <= 128
