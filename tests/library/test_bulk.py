import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.errors import OutOfSpace
from sleap_rtc.library import bulk as bulk_module
from sleap_rtc.library import marks
from sleap_rtc.library.bulk import Bulk
from sleap_rtc.library.merging import Report
from sleap_rtc.library.registry import Registry

RecordOf = Callable[..., ModelRecord]


@pytest.fixture
def bulk(registry: Registry) -> Bulk:
    return Bulk(registry, Report("elsewhere"), revive=False)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many models were waiting whenever the file system was synced."""
    times: list[int] = []
    real = bulk_module.sync_file_system

    def sync(fd: int) -> bool:
        times.append(len(os.listdir(fd)))
        return real(fd)

    monkeypatch.setattr(bulk_module, "sync_file_system", sync)
    return times


def names(registry: Registry) -> set[str]:
    return {entry.record.name for entry in registry.list().entries}


def fill(bulk: Bulk, records: list[ModelRecord], error: BaseException | None = None) -> None:
    with bulk:
        for record in records:
            bulk.add(record)
        if error is not None:
            raise error


def found_marks(registry: Registry) -> list[tuple[str, bool]]:
    parsed = [marks.parse(name) for name in marks.names(registry.models_dir)]
    return sorted((mark.directory, mark.done) for mark in parsed if mark)


def test_many_models_come_in_by_one_sync_and_one_mark(
    registry: Registry, bulk: Bulk, record_of: RecordOf, synced: list[int], files_in: Any
) -> None:
    registry.register(record_of("here"))
    assert names(registry) == {"here"}
    with bulk:
        for n in range(20):
            folder = registry.claims.new_folder()
            files = files_in(folder, best_ckpt=f"weights {n}")
            record = record_of(f"m{n}", status="completed", files=files, tags=("b", "a", "b"))
            bulk.add(record, folder, size=10)
        assert bulk.report.counts.total() == 0
    assert bulk.report.count("model", "added") == 20
    assert [outcome.name for outcome in bulk.report.outcomes][:2] == [
        record_of("m0").id,
        record_of("m1").id,
    ]
    assert synced == [20]
    assert names(registry) == {"here", *(f"m{n}" for n in range(20))}
    assert registry.get(record_of("m7").id).record.tags == ("a", "b")
    assert (registry.get(record_of("m7").id).directory / "best.ckpt").read_text() == "weights 7"
    assert [mark for mark in found_marks(registry) if mark[0] == marks.ALL] == [(marks.ALL, True)]
    assert len(found_marks(registry)) == 2
    assert list(registry.incoming.iterdir()) == []


@pytest.mark.parametrize("limit", [("MODELS", 9), ("BYTES", 90), ("RECORDS", 9_500)], ids=str)
def test_no_more_than_so_much_waits(
    bulk: Bulk,
    record_of: RecordOf,
    synced: list[int],
    monkeypatch: pytest.MonkeyPatch,
    limit: tuple[str, int],
) -> None:
    monkeypatch.setattr(bulk_module, *limit)
    with bulk:
        for n in range(27):
            bulk.add(record_of(f"m{n}", status="missing", notes="x" * 500), size=10)
    assert {8, 9} >= set(synced[:2])
    assert bulk.report.count("model", "added") == 27


@pytest.mark.parametrize("able", [True, False])
def test_a_few_are_synced_one_by_one(
    bulk: Bulk,
    record_of: RecordOf,
    files_in: Any,
    monkeypatch: pytest.MonkeyPatch,
    able: bool,
) -> None:
    if not able:  # many as well, where a file system can't be synced at once
        monkeypatch.setattr(bulk_module, "sync_file_system", lambda _: False)
    inodes = set()
    real = os.fsync

    def sync(fd: int) -> None:
        inodes.add(os.fstat(fd).st_ino)
        real(fd)

    monkeypatch.setattr(os, "fsync", sync)
    with bulk:
        for n in range(3 if able else 10):
            folder = bulk.registry.claims.new_folder()
            files = files_in(folder, sub__best_ckpt="weights")
            bulk.add(record_of(f"m{n}", status="completed", files=files), folder)
    for entry in bulk.registry.walk():
        assert entry.directory.stat().st_ino in inodes
        for path in ("sub", "sub/best.ckpt", ".record", ".record/00000001.json"):
            assert (entry.directory / path).stat().st_ino in inodes
    assert marks.ALL not in {name for name, _ in found_marks(bulk.registry)}


def test_what_cannot_be_taken_in_is_said_and_harms_no_other(
    registry: Registry, bulk: Bulk, record_of: RecordOf, arrive: Any
) -> None:
    there = arrive("there")
    with bulk:
        for n in range(9):
            bulk.add(record_of(f"m{n}", status="missing"))
        bulk.add(record_of("bad", status="missing", checkpoint="../../out"))
        bulk.add(replace(there.record, status="missing"))
        bulk.add(replace(record_of("other", status="missing"), id=there.id))
    counts = {fate: number for (_, fate), number in bulk.report.counts.items()}
    assert counts == {"added": 9, "refused": 1, "known": 1, "renamed": 1}
    assert bulk.report.ids[there.id] == f"{there.id}-2"
    assert names(registry) == {"there", "other", *(f"m{n}" for n in range(9))}
    assert list(registry.incoming.iterdir()) == []


def test_who_presses_ctrl_c_finds_whole_models_and_nothing_else(
    registry: Registry, bulk: Bulk, record_of: RecordOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_module, "MODELS", 10)
    with pytest.raises(KeyboardInterrupt):
        fill(bulk, [record_of(f"m{n}", status="missing") for n in range(15)], KeyboardInterrupt())
    assert names(registry) == {f"m{n}" for n in range(10)}
    assert list(registry.incoming.iterdir()) == []
    assert found_marks(registry) == [(marks.ALL, True)]


def test_after_a_damaged_place_what_was_read_is_taken_in(
    registry: Registry, bulk: Bulk, record_of: RecordOf
) -> None:
    with pytest.raises(ValueError, match="cut"):
        fill(bulk, [record_of(f"m{n}", status="missing") for n in range(12)], ValueError("cut"))
    assert len(names(registry)) == 12


def test_a_full_disk_is_said_and_nothing_half_stays(
    registry: Registry, bulk: Bulk, record_of: RecordOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> bool:
        raise OSError(28, "full")

    monkeypatch.setattr(bulk_module, "sync_file_system", full)
    with pytest.raises(OutOfSpace):
        fill(bulk, [record_of(f"m{n}", status="missing") for n in range(10)])
    assert names(registry) == set()
    assert list(registry.incoming.iterdir()) == []


def test_what_the_disk_refused_is_not_taken_in_at_a_second_try(
    registry: Registry, bulk: Bulk, record_of: RecordOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_module, "MODELS", 9)
    told: list[int] = []

    def broken(fd: int) -> bool:
        told.append(fd)
        if len(told) == 1:  # the system tells of a failed write once
            raise OSError(errno.EIO, "Input/output error")
        return True

    monkeypatch.setattr(bulk_module, "sync_file_system", broken)
    with pytest.raises(OSError, match="Input/output"):
        fill(bulk, [record_of(f"m{n}", status="missing") for n in range(10)])
    assert len(told) == 1
    assert names(registry) == set()
    assert list(registry.incoming.iterdir()) == []


def test_what_another_thread_places_meanwhile_has_its_own_mark(
    registry: Registry, bulk: Bulk, record_of: RecordOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = bulk_module.merging.take_in
    placed: list[str] = []

    def beside(*given: Any, **wishes: Any) -> None:
        if not placed:
            placed.append(registry.register(record_of("mine")).directory.name)
        real(*given, **wishes)

    monkeypatch.setattr(bulk_module.merging, "take_in", beside)
    with bulk:
        for n in range(10):
            bulk.add(record_of(f"m{n}", status="missing"))
    assert (placed[0], True) in found_marks(registry)
    assert len(names(registry)) == 11


def test_a_model_of_which_one_came_meanwhile_gets_the_next_id(
    registry: Registry, bulk: Bulk, record_of: RecordOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = bulk_module.sync_file_system
    came: list[Path] = []

    def late(fd: int) -> bool:
        came.append(registry.register(record_of("m3", notes="mine", status="training")).directory)
        return real(fd)

    monkeypatch.setattr(bulk_module, "sync_file_system", late)
    with bulk:
        for n in range(10):
            other = record_of(f"m{n}", created_at=record_of().created_at.replace(year=2020))
            bulk.add(replace(other, status="missing"))
    assert bulk.report.count("model", "added") == 9
    assert bulk.report.ids[record_of("m3").id] == f"{record_of('m3').id}-2"
    assert registry.get(record_of("m3").id).record.notes == "mine"
    assert registry.get(f"{record_of('m3').id}-2").record.same_recipe_as == record_of("m3").id
