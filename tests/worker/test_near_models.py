"""Marks that a worker makes for peers on its machine."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace

import pytest

from sleap_rtc.domain.models import ModelFile
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.files.nearby import Ends, is_near, new_challenge
from sleap_rtc.protocol.link import WantFiles
from sleap_rtc.worker import near_models
from sleap_rtc.worker.near_models import MAX_MARKS, NearModels
from sleap_rtc.worker.peers import Asker

PACKAGE = PackageRef(id="0" * 64, size=1, files=1, listing=100)
ASKER = Asker(device="a" * 64, name="ada", role="member", session="1", worker="f" * 64)
ENDS = Ends(reader=ASKER.device, holder=ASKER.worker)
FILE = ModelFile(path="best", size=1, blake3="1" * 64)


class Library:
    """Where one model is, and its files."""

    def __init__(self, directory, *files) -> None:
        self.entry = SimpleNamespace(directory=directory, record=SimpleNamespace(files=files))

    def get(self, _name):
        return self.entry


def wanted(**changes) -> WantFiles:
    given = {"package": PACKAGE, "model": "0a1b2c3d", "challenge": new_challenge()}
    return WantFiles(**given | changes)


async def test_a_mark_says_the_challenge_for_a_while(tmp_path, monkeypatch) -> None:
    later = []
    loop = SimpleNamespace(call_later=lambda after, call, *args: later.append((after, call, args)))
    near = NearModels(Library(tmp_path, FILE))
    asked = wanted()
    with monkeypatch.context() as patched:
        patched.setattr(near_models.asyncio, "get_running_loop", lambda: loop)
        patched.setattr(near_models.asyncio, "to_thread", in_place)
        told = (await near.tell(ASKER, asked)).near
        assert is_near(told.mark, told.folder, asked.challenge, ENDS)
        assert not is_near(told.mark, told.folder, new_challenge(), ENDS)
    for after, call, args in later:
        assert after == near_models.KEPT_S
        call(*args)
    assert not is_near(told.mark, told.folder, asked.challenge, ENDS)


async def test_whoever_has_most_marks_loses_the_oldest(tmp_path) -> None:
    near = NearModels(Library(tmp_path, FILE))
    other = Asker(device="b" * 64, name="bob", role="member", session="2", worker="f" * 64)

    def holds(found, asked, asker) -> bool:
        ends = Ends(reader=asker.device, holder=asker.worker)
        return is_near(found.near.mark, found.near.folder, asked.challenge, ends)

    asked = [wanted() for _ in range(MAX_MARKS + 3)]
    one = wanted()
    theirs = await near.tell(other, one)
    told = [await near.tell(ASKER, each) for each in asked]
    there = [holds(found, each, ASKER) for found, each in zip(told, asked, strict=True)]
    # The newest are there, and the other's is.
    assert there == [False] * 4 + [True] * (MAX_MARKS - 1)
    assert holds(theirs, one, other)
    for mark in [*near._marks]:
        near._remove(mark)
        near._remove(mark)  # its time is over as well


def test_marks_go_with_the_event_loop(tmp_path) -> None:
    near = NearModels(Library(tmp_path, FILE))
    told = asyncio.run(near.tell(ASKER, wanted()))
    assert not os.path.lexists(told.near.mark)


async def in_place(call, *args):
    return call(*args)


@pytest.mark.parametrize(
    "asked", [wanted(challenge=""), wanted(model=None)], ids=["no challenge", "no model"]
)
async def test_nobody_who_doesnt_ask_is_told(tmp_path, asked) -> None:
    assert await NearModels(Library(tmp_path, FILE)).tell(ASKER, asked) is None


async def test_a_path_that_is_too_long_to_be_told(tmp_path) -> None:
    far = NearModels(Library(tmp_path.joinpath(*["x" * 250] * 20), FILE))
    assert await far.tell(ASKER, wanted()) is None


async def test_a_disk_without_room_for_marks(tmp_path, monkeypatch) -> None:
    def full(_challenge, _ends):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(near_models, "marked", full)
    assert await NearModels(Library(tmp_path, FILE)).tell(ASKER, wanted()) is None
