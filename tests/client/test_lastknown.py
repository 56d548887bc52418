"""What was told last, for when nobody can be asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sleap_rtc.auth.store import RoomEntry
from sleap_rtc.client.asking import RemoteModel, RemoteModels
from sleap_rtc.client.lastknown import LastKnown
from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.domain.places import Presence, WorkerInfo
from sleap_rtc.errors import Offline, UsageError
from sleap_rtc.net.httpcache import STALE
from sleap_rtc.protocol.library import ListedModel, ListModels

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
EVERY = ListModels()


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def known(tmp_path: Path, clock: Clock) -> LastKnown:
    return LastKnown(tmp_path / "known", clock=clock)


def room(letter: str = "a") -> RoomEntry:
    return RoomEntry(
        room=letter * 32, name="lab", server="https://lab.example", role="member", chain=()
    )


def worker(name: str) -> Presence:
    return Presence(
        device="d" * 64,
        connection="c",
        room="a" * 32,
        name=name,
        kind="worker",
        worker=WorkerInfo(engines={"tiny": "1"}, unknown={"later": 1}),
    )


def record(**changes: Any) -> ModelRecord:
    return ModelRecord(
        id="0123abcd",
        name="run",
        model_type="centroid",
        status="completed",
        source="worker-training",
        created_at=NOW,
        **changes,
    )


def test_workers_as_they_were(known: LastKnown, clock: Clock) -> None:
    with pytest.raises(Offline, match=r"https://lab\.example is not asked"):
        known.workers(room())
    known.keep_workers(room(), [worker("gpu-1")])
    clock.now += timedelta(days=3)
    found = known.workers(room())
    assert (found.as_of, found.told) == (NOW, (worker("gpu-1"),))
    assert known.only_worker(room()) == "gpu-1"
    with pytest.raises(Offline):
        known.workers(room("b"))


def test_which_worker_is_meant(known: LastKnown) -> None:
    known.keep_workers(room(), [])
    with pytest.raises(Offline):
        known.only_worker(room())
    known.keep_workers(room(), [worker("gpu-1"), worker("gpu-2")])
    with pytest.raises(UsageError) as caught:
        known.only_worker(room())
    assert "gpu-1, gpu-2" in caught.value.hint_text


def test_after_a_month_nothing_is_known(known: LastKnown, clock: Clock) -> None:
    known.keep_workers(room(), [worker("gpu-1")])
    clock.now += STALE
    with pytest.raises(Offline):
        known.workers(room())


def test_a_list_is_known_as_it_was_asked_for(known: LastKnown) -> None:
    listed = ListedModel(
        id="0123abcd",
        name="run",
        model_type="centroid",
        status="completed",
        source="worker-training",
        created_at=NOW,
    )
    told = RemoteModels(models=(listed,), more=3)
    known.keep_models(room(), "gpu-1", EVERY, 50, told)
    assert known.models(room(), "gpu-1", EVERY, 50).told == told
    for other in (("gpu-2", EVERY, 50), ("gpu-1", ListModels(text="fly"), 50)):
        with pytest.raises(Offline, match="works offline") as caught:
            known.models(room(), *other)
        assert other[0] in caught.value.hint_text


def test_a_model_is_known_by_all_of_its_names(known: LastKnown) -> None:
    told = RemoteModel(
        record=record(unknown={"later": 1}), alias="flies", path="/there", cut=False, files=()
    )
    known.keep_model(room(), "gpu-1", "0123", told)
    for name in ("0123", "0123abcd", "flies"):
        assert known.model(room(), "gpu-1", name).told == told
    with pytest.raises(Offline):
        known.model(room(), "gpu-1", "mice")


def test_what_is_damaged_or_of_another_version_is_not_known(
    known: LastKnown, tmp_path: Path
) -> None:
    known.keep_model(
        room(), "gpu-1", "a", RemoteModel(record=record(), alias="", path="", cut=False, files=())
    )
    for path in (tmp_path / "known").glob("*/*"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Offline):
        known.model(room(), "gpu-1", "a")
