"""What this machine remembers of pushes and pulls, on a real disk and over real processes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from loguru import logger
from msgspec.structs import replace

from sleap_rtc.client import transfers as module
from sleap_rtc.client.transfers import Transfer, Transfers
from sleap_rtc.errors import AmbiguousName, Busy, LinkLost, NotFound, NotPermitted

NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Clocked(Transfers):
    """With a clock that is set by hand."""

    def __init__(self, root) -> None:
        super().__init__(root)
        self.time = NOW

    def now(self):
        return self.time


@pytest.fixture
def known(tmp_path):
    return Clocked(tmp_path / "transfers")


def wanted(**changes) -> Transfer:
    made = Transfer(
        id="",
        direction="push",
        model="0a1b2c3d",
        label="fly",
        model_type="centroid",
        package="1" * 64,
        size=100,
        worker="gpu-1",
        room="a" * 32,
        begun_at=NOW,
        changed_at=NOW,
    )
    return replace(made, **changes)


def test_one_that_is_done(known) -> None:
    with known.begin(wanted()) as going:
        [one] = known.all()
        assert (one.state, one.attempts) == ("going", 1)
        going.finish("0a1b2c3d-2")
    [one] = known.all()
    assert (one.state, one.done, one.result) == ("done", 100, "0a1b2c3d-2")
    with known.begin(wanted()) as again:
        assert again.transfer.id != one.id
        again.finish("0a1b2c3d-2")


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (LinkLost(peer="gpu-1", why="gone"), "cut"),
        (KeyboardInterrupt(), "cut"),
        (NotPermitted(message="no"), "failed"),
    ],
)
def test_one_that_ends_early_is_taken_up(known, error, state) -> None:
    going = known.begin(wanted())
    going.done = 40
    with pytest.raises(type(error)), going:
        raise error
    [one] = known.all()
    assert (one.state, one.done) == (state, 40)
    assert one.why
    known.time += timedelta(hours=1)
    with known.begin(wanted(if_exists="keep-both")) as going:
        now = going.transfer
        assert (now.id, now.attempts, now.begun_at, now.done) == (one.id, 2, NOW, 40)
        assert (now.if_exists, now.why, now.state) == ("keep-both", "", "going")
        going.finish("0a1b2c3d")
    assert len(known.all()) == 1


def test_beginning_and_end_are_logged(known) -> None:
    lines: list[str] = []
    handler = logger.add(lines.append, format="{message}, {extra[done]} of {extra[size]}")
    try:
        going = known.begin(wanted())
        going.done = 40
        with contextlib.suppress(LinkLost), going:
            raise LinkLost(peer="gpu-1", why="it is gone")
        with known.begin(wanted()) as going:
            going.finish("0a1b2c3d")
    finally:
        logger.remove(handler)
    assert lines == [
        "push of fly: going, attempt 1, 0 of 100\n",
        "push of fly: cut, attempt 1: The connection to gpu-1 was lost: it is gone., 40 of 100\n",
        "push of fly: going, attempt 2, 40 of 100\n",
        "push of fly: done, attempt 2, 100 of 100\n",
    ]


def test_another_content_or_worker_is_another_transfer(known) -> None:
    for changes in ({}, {"package": "2" * 64}, {"worker": "gpu-2"}, {"direction": "pull"}):
        with pytest.raises(LinkLost), known.begin(wanted(**changes)):
            raise LinkLost(peer="gpu-1", why="gone")
    assert len({one.id for one in known.all()}) == 4


def test_one_process_at_a_time(known) -> None:
    with known.begin(wanted()) as going:
        with pytest.raises(Busy):
            known.begin(wanted())
        [one] = known.all()
        assert one.state == "going"
        with pytest.raises(Busy), known.claimed(one):
            pass
        going.finish("0a1b2c3d")


def test_one_whose_process_was_killed_is_cut(known, tmp_path) -> None:
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(__file__.rpartition("/")[0])!r})
from pathlib import Path
from test_transfers import wanted
from sleap_rtc.client.transfers import Transfers
Transfers(Path({str(tmp_path / "transfers")!r})).begin(wanted()).__enter__()
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    [one] = known.all()
    assert (one.state, one.why) == ("cut", "its process ended")
    with known.begin(wanted()) as going:
        assert going.transfer.id == one.id
        going.finish("0a1b2c3d")


def test_finding_one(known) -> None:
    for package in ("1" * 64, "2" * 64):
        with known.begin(wanted(package=package)) as going:
            going.finish("0a1b2c3d")
    one, two = known.all()
    assert known.get(one.short) == one
    assert known.get(two.id) == two
    with pytest.raises(AmbiguousName):
        known.get(one.id[:4])
    for name in ("zzzz", "1", ""):
        with pytest.raises(NotFound):
            known.get(name)


def test_a_cancelled_one_is_begun_anew(known) -> None:
    with pytest.raises(LinkLost), known.begin(wanted()):
        raise LinkLost(peer="gpu-1", why="gone")
    [one] = known.all()
    with known.claimed(one):
        known.cancel(one)
    [one] = known.all()
    assert (one.state, one.finished) == ("cancelled", True)
    with known.begin(wanted()) as going:
        assert going.transfer.id != one.id
        going.finish("0a1b2c3d")


def test_finished_ones_are_forgotten_in_time(known, monkeypatch) -> None:
    monkeypatch.setattr(module, "KEPT_MOST", 2)
    with pytest.raises(LinkLost), known.begin(wanted(worker="gpu-0")):
        raise LinkLost(peer="gpu-1", why="gone")
    for number in range(4):
        with known.begin(wanted(package=f"{number}" * 64)) as going:
            going.finish("0a1b2c3d")
    assert sorted(one.state for one in known.all()) == ["cut", "done", "done", "done"]
    known.time += timedelta(days=31)
    with known.begin(wanted(package="9" * 64)) as going:
        going.finish("0a1b2c3d")
    assert sorted(one.state for one in known.all()) == ["cut", "done"]


def test_what_can_not_be_read_is_passed_over(known, tmp_path) -> None:
    with known.begin(wanted()) as going:
        going.finish("0a1b2c3d")
    [one] = known.all()
    (tmp_path / "transfers" / "stray").mkdir()
    broken = tmp_path / "transfers" / one.id.replace(one.id[:4], "0000", 1)
    broken.mkdir()
    (broken / "transfer.json").write_text("{")
    assert known.all() == [one]
    assert Transfers(tmp_path / "nothing").all() == []
