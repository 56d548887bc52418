"""A file stands for another in five ways; what isn't ours any more is never removed."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import get_args

import pytest

from sleap_rtc.errors import NotPermitted, PathNotPermitted
from sleap_rtc.files import linking
from sleap_rtc.files.linking import Method, is_ours, leads_to, make, remove

METHODS = [method for method in get_args(Method) if method != "reflink"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "disk" / "best.ckpt"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "library" / "model" / "best.ckpt"
    path.parent.mkdir(parents=True)
    return path


@pytest.mark.parametrize("method", METHODS)
def test_it_reads_the_same_and_is_taken_away_again(source, place, method):
    made = make(method, source, place)
    assert place.read_bytes() == b"weights"
    assert is_ours(made)
    assert remove(made)
    assert not place.is_symlink()
    assert not place.exists()
    assert source.read_bytes() == b"weights"
    assert not remove(made)


def test_what_each_is(source, place):
    assert make("symlink", source, place).target == str(source)
    assert leads_to(place, source)
    place.unlink()
    assert make("relative", source, place).target == "../../disk/best.ckpt"
    place.unlink()
    make("hardlink", source, place)
    assert place.samefile(source)
    assert not leads_to(place, source)


@pytest.mark.parametrize("method", METHODS)
def test_a_strangers_is_never_removed(source, place, tmp_path, method):
    made = make(method, source, place)
    other = tmp_path / "other"
    other.write_bytes(b"theirs")
    place.rename(tmp_path / "aside")  # so that its inode is not given to the next
    place.symlink_to(other)
    assert not is_ours(made)
    assert not remove(made)
    assert place.read_bytes() == b"theirs"


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_replaced(source, place, method):
    place.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        make(method, source, place)
    assert place.read_bytes() == b"old"


def test_a_clone_is_made_or_said_to_be_impossible(source, place, monkeypatch):
    monkeypatch.setattr(linking, "clone", lambda *_: False)
    with pytest.raises(NotPermitted, match="has no shared copies"):
        make("reflink", source, place)
    assert not place.exists()
    monkeypatch.setattr(linking, "clone", lambda *_: True)
    assert remove(make("reflink", source, place))


def test_a_file_system_without_links_says_what_to_do(source, place, monkeypatch):
    def refuse(self: Path, target: object, **_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(NotPermitted, match="has no links") as caught:
        make("symlink", source, place)
    assert "--copy" in caught.value.hint_text


def test_a_place_that_may_not_be_written(source, place, monkeypatch):
    def refuse(self: Path, target: object, **_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(PathNotPermitted, match="read-only"):
        make("symlink", source, place)
