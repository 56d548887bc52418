"""Only who is this user, on this machine, can prove it."""

from __future__ import annotations

import contextlib
import gc
import os
from pathlib import Path

import pytest

from sleap_rtc.files import nearby
from sleap_rtc.files.nearby import Ends, is_near, marked, new_challenge

ENDS = Ends(reader="0" * 64, holder="1" * 64)


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(nearby.tempfile, "tempdir", str(folder))
    return folder


def test_a_mark_proves_it_while_it_is_there(tmp_path) -> None:
    challenge = new_challenge()
    with marked(challenge, ENDS) as mark:
        assert is_near(str(mark), str(tmp_path), challenge, ENDS)
        assert not is_near(str(mark), str(tmp_path), new_challenge(), ENDS)
        assert not is_near(str(mark), str(tmp_path / "none"), challenge, ENDS)
        assert not is_near(str(mark), "tmp", challenge, ENDS)
        assert not is_near(str(mark), "a\0b", challenge, ENDS)
        # Both make them for others, who could pass them on: to another, from another, or back.
        for others in (
            Ends(reader="2" * 64, holder=ENDS.holder),
            Ends(reader=ENDS.reader, holder="2" * 64),
            Ends(reader=ENDS.holder, holder=ENDS.reader),
        ):
            assert not is_near(str(mark), str(tmp_path), challenge, others)
    assert not mark.parent.exists()
    assert not is_near(str(mark), str(tmp_path), challenge, ENDS)


def test_nothing_else_is_looked_at_before(tmp_path, temporary, monkeypatch) -> None:
    challenge = new_challenge()
    elsewhere = tmp_path / "sleap-rtc-x"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "near").symlink_to(f"{challenge} {ENDS.reader} {ENDS.holder}")
    below = temporary / "deep" / "sleap-rtc-x"
    below.mkdir(mode=0o700, parents=True)
    (below / "near").symlink_to(f"{challenge} {ENDS.reader} {ENDS.holder}")
    other = temporary / "other-x"
    other.mkdir(mode=0o700)
    (other / "near").symlink_to(f"{challenge} {ENDS.reader} {ENDS.holder}")
    looked = []
    monkeypatch.setattr(Path, "lstat", looked.append)
    for mark in (elsewhere / "near", below / "near", other / "near", temporary / "sleap-rtc-x/far"):
        assert not is_near(str(mark), str(tmp_path), challenge, ENDS)
    assert not is_near("/proc/self/../sleap-rtc-x/near", str(tmp_path), challenge, ENDS)
    assert looked == []


def test_what_another_one_could_have_put_there_proves_nothing(tmp_path, temporary) -> None:
    challenge = new_challenge()
    folder = temporary / "sleap-rtc-x"
    folder.mkdir(mode=0o700)
    mark = folder / "near"
    mark.write_text(challenge)  # what a peer sends becomes files, never links
    assert not is_near(str(mark), str(tmp_path), challenge, ENDS)
    mark.unlink()
    mark.symlink_to(f"{challenge} {ENDS.reader} {ENDS.holder}")
    assert is_near(str(mark), str(tmp_path), challenge, ENDS)
    folder.chmod(0o777)
    assert not is_near(str(mark), str(tmp_path), challenge, ENDS)
    folder.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(mark, 12345, -1, follow_symlinks=False)
        assert not is_near(str(mark), str(tmp_path), challenge, ENDS)


def test_a_mark_goes_with_whoever_holds_it() -> None:
    """As the worker's event loop does: in a circle, which the collector finds some time later."""
    held = contextlib.ExitStack()
    held.circle = held  # type: ignore[attr-defined]
    mark = held.enter_context(marked(new_challenge(), ENDS))
    assert mark.is_symlink()
    del held
    gc.collect()
    assert not mark.parent.exists()
