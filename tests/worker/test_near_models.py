"""Marks that a worker makes for peers on its machine."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sleap_rtc.domain.models import ModelFile
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.files.nearby import is_near, new_challenge
from sleap_rtc.protocol.link import WantFiles
from sleap_rtc.worker import near_models
from sleap_rtc.worker.near_models import MAX_MARKS, NearModels

PACKAGE = PackageRef(id="0" * 64, size=1, files=1, listing=100)
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
        told = (await near.tell(asked)).near
        assert is_near(told.mark, told.folder, asked.challenge, by="worker")
        assert not is_near(told.mark, told.folder, new_challenge(), by="worker")
        rest = [await near.tell(wanted()) for _ in range(MAX_MARKS)]
    assert rest[-1] is None
    assert None not in rest[:-1]
    for after, call, args in later:
        assert after == near_models.KEPT_S
        call(*args)
    assert not is_near(told.mark, told.folder, asked.challenge, by="worker")


async def in_place(call, *args):
    return call(*args)


@pytest.mark.parametrize(
    "asked", [wanted(challenge=""), wanted(model=None)], ids=["no challenge", "no model"]
)
async def test_nobody_who_doesnt_ask_is_told(tmp_path, asked) -> None:
    assert await NearModels(Library(tmp_path, FILE)).tell(asked) is None


async def test_a_path_that_is_too_long_to_be_told(tmp_path) -> None:
    far = NearModels(Library(tmp_path.joinpath(*["x" * 250] * 20), FILE))
    assert await far.tell(wanted()) is None


async def test_a_disk_without_room_for_marks(tmp_path, monkeypatch) -> None:
    def full(_challenge, *, by):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(near_models, "marked", full)
    assert await NearModels(Library(tmp_path, FILE)).tell(wanted()) is None
