"""Only who is this user, on this machine, can prove it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sleap_rtc.files import nearby
from sleap_rtc.files.nearby import is_near, marked, new_challenge


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(nearby.tempfile, "tempdir", str(folder))
    return folder


def test_a_mark_proves_it_while_it_is_there(tmp_path) -> None:
    challenge = new_challenge()
    with marked(challenge, by="worker") as mark:
        assert is_near(str(mark), str(tmp_path), challenge, by="worker")
        assert not is_near(str(mark), str(tmp_path), new_challenge(), by="worker")
        assert not is_near(str(mark), str(tmp_path / "none"), challenge, by="worker")
        assert not is_near(str(mark), "tmp", challenge, by="worker")
        assert not is_near(str(mark), "a\0b", challenge, by="worker")
        # A worker makes them for others, who could pass them on.
        assert not is_near(str(mark), str(tmp_path), challenge, by="client")
    assert not mark.parent.exists()
    assert not is_near(str(mark), str(tmp_path), challenge, by="worker")


def test_nothing_else_is_looked_at_before(tmp_path, temporary, monkeypatch) -> None:
    challenge = new_challenge()
    elsewhere = tmp_path / "sleap-rtc-x"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "near").symlink_to(f"worker {challenge}")
    below = temporary / "deep" / "sleap-rtc-x"
    below.mkdir(mode=0o700, parents=True)
    (below / "near").symlink_to(f"worker {challenge}")
    other = temporary / "other-x"
    other.mkdir(mode=0o700)
    (other / "near").symlink_to(f"worker {challenge}")
    looked = []
    monkeypatch.setattr(Path, "lstat", looked.append)
    for mark in (elsewhere / "near", below / "near", other / "near", temporary / "sleap-rtc-x/far"):
        assert not is_near(str(mark), str(tmp_path), challenge, by="worker")
    assert not is_near("/proc/self/../sleap-rtc-x/near", str(tmp_path), challenge, by="worker")
    assert looked == []


def test_what_another_one_could_have_put_there_proves_nothing(tmp_path, temporary) -> None:
    challenge = new_challenge()
    folder = temporary / "sleap-rtc-x"
    folder.mkdir(mode=0o700)
    mark = folder / "near"
    mark.write_text(challenge)  # what a peer sends becomes files, never links
    assert not is_near(str(mark), str(tmp_path), challenge, by="worker")
    mark.unlink()
    mark.symlink_to(f"worker {challenge}")
    assert is_near(str(mark), str(tmp_path), challenge, by="worker")
    folder.chmod(0o777)
    assert not is_near(str(mark), str(tmp_path), challenge, by="worker")
    folder.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(mark, 12345, -1, follow_symlinks=False)
        assert not is_near(str(mark), str(tmp_path), challenge, by="worker")
