"""What is said of workers while models move; ``test_shipping.py`` moves some."""

from __future__ import annotations

from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from sleap_rtc.client import moving
from sleap_rtc.client.asking import WorkerLibrary
from sleap_rtc.errors import UnknownWorker
from sleap_rtc.protocol.moving import PushMoved
from sleap_rtc.transfer.progress import OfFile, Progress
from sleap_rtc.worker.pushes import notice_of


def test_a_worker_that_is_away_and_back_is_told_once() -> None:
    said = []
    on_state = moving.telling("gpu-1", said.append)
    for state in ("up", "silent", "down", "connecting", "up", "up", "silent", "closed"):
        on_state(state)
    away = "gpu-1 doesn't answer: waiting up to 10 min. Ctrl-C loses nothing."
    assert said == [away, "gpu-1 is back.", away]


@pytest.mark.parametrize("file", [None, OfFile("runs/best.ckpt", done=3, size=7)])
def test_how_far_a_push_is_comes_as_the_worker_told_it(file) -> None:
    progress = Progress("receiving", done=5, total=9, rate=2.0, eta_s=2.0, file=file)
    assert moving.progress_of(notice_of("9" * 64, progress)) == progress


def test_a_worker_tells_of_no_more_than_all() -> None:
    told = PushMoved(
        package="9" * 64, phase="receiving", done=8, total=7, file="a", file_done=3, file_size=2
    )
    found = moving.progress_of(told)
    assert (found.done, found.file) == (7, OfFile("a", done=2, size=2))


async def test_a_worker_that_is_left_out_is_said_in_whole_sentences(monkeypatch) -> None:
    @asynccontextmanager
    async def linked(_online, room, name, **_given):
        if name == "gpu-9":
            raise UnknownWorker(name=name, room=room.name)
        yield WorkerLibrary(name), SimpleNamespace(name=name)

    monkeypatch.setattr(moving, "open_linked", linked)
    said, room = [], SimpleNamespace(name="lab")
    given = dict.fromkeys(("registry", "cache", "transfers"))
    opening = moving.open_mover(None, room, "gpu-9", beside=("gpu-1",), say=said.append, **given)
    async with opening as mover:
        assert (mover.worker, mover.beside) == ("gpu-1", ())
    assert said == ["gpu-9 is left out. No worker 'gpu-9' is online in room 'lab'."]
