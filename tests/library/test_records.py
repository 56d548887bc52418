import errno
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sleap_rtc.domain import values
from sleap_rtc.domain.models import Interruption, ModelFile, ModelRecord
from sleap_rtc.errors import (
    Busy,
    Damaged,
    DataError,
    NewerFormat,
    OutOfSpace,
    UnknownModel,
    UnsafePath,
)
from sleap_rtc.library import chain, records

RecordOf = Callable[..., ModelRecord]


@pytest.fixture
def record(record_of: RecordOf) -> ModelRecord:
    return record_of()


@pytest.fixture
def directory(tmp_path: Path, record: ModelRecord) -> Path:
    path = tmp_path / record.directory
    path.mkdir()
    records.create(path, record)
    return path


def noted(text: str) -> records.Change:
    return lambda old: replace(old, notes=text)


def revisions(directory: Path) -> list[str]:
    return sorted(p.name for p in (directory / ".record").iterdir())


def test_a_record_begins_with_revision_1(directory: Path, record: ModelRecord) -> None:
    assert records.read(directory) == records.Revision(number=1, record=record)
    assert revisions(directory) == ["00000001.json"]
    copy = (directory / "model.json").read_bytes()
    assert values.decode(ModelRecord, copy, what="x") == record
    assert copy.startswith(b"{\n  ")


def test_a_change_makes_the_next_revision(directory: Path, record: ModelRecord) -> None:
    revision = records.update(directory, noted("a"))
    assert revision == records.read(directory)
    assert (revision.number, revision.record) == (2, replace(record, notes="a"))
    assert json.loads((directory / "model.json").read_text())["notes"] == "a"


def test_a_change_of_nothing_writes_nothing(directory: Path) -> None:
    assert records.update(directory, lambda old: old).number == 1


def test_the_last_five_stay(directory: Path) -> None:
    for number in range(8):
        records.update(directory, noted(str(number)))
    assert revisions(directory) == [f"{n:08d}.json" for n in range(5, 10)]
    assert records.read(directory).record.notes == "7"


def test_tags_are_kept_sorted_and_unique(directory: Path) -> None:
    revision = records.update(directory, lambda old: replace(old, tags=("b", "a", "b")))
    assert revision.record.tags == ("a", "b")
    assert records.read(directory) == revision
    assert records.update(directory, lambda old: replace(old, tags=("b", "a"))).number == 2


def test_unknown_fields_survive_a_change(directory: Path) -> None:
    path = directory / ".record" / "00000002.json"
    plain = json.loads((directory / ".record" / "00000001.json").read_text())
    plain |= {"format": "1.8", "later": [1], "training": {"later": {"x": 2}}}
    path.write_text(json.dumps(plain))
    records.update(directory, noted("a"))
    after = json.loads((directory / ".record" / "00000003.json").read_text())
    assert after == plain | {"notes": "a"}


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 500, b'{"id": "3f2', b"[]", b"\xff\xfe", b'{"format":"1.0"}']
)
def test_a_damaged_revision_falls_back_and_is_never_reused(directory: Path, content: bytes) -> None:
    records.update(directory, noted("good"))
    (directory / ".record" / "00000003.json").write_bytes(content)
    revision = records.read(directory)
    assert (revision.number, revision.record.notes) == (2, "good")
    assert records.update(directory, noted("better")).number == 4
    assert (directory / ".record" / "00000003.json").read_bytes() == content
    assert records.read(directory).record.notes == "better"


def test_a_revision_of_another_model_is_damage(directory: Path, record_of: RecordOf) -> None:
    other = values.encode(record_of("other"))
    (directory / ".record" / "00000002.json").write_bytes(other)
    assert records.read(directory).number == 1


def test_when_nothing_can_be_read_the_reason_is_said(directory: Path) -> None:
    (directory / ".record" / "00000001.json").write_bytes(b"?")
    with pytest.raises(Damaged, match="not JSON"):
        records.read(directory)
    with pytest.raises(Damaged):
        records.update(directory, noted("a"))


def test_a_later_format_is_refused_and_left_alone(directory: Path) -> None:
    (directory / ".record" / "00000002.json").write_text('{"format": "2.0", "shape": "new"}')
    with pytest.raises(NewerFormat, match=r"has format 2\.0"):
        records.read(directory)
    with pytest.raises(NewerFormat):
        records.update(directory, noted("a"))
    assert revisions(directory) == ["00000001.json", "00000002.json"]


@pytest.mark.parametrize("made", ["", ".record", ".record/alias-x", ".record/1.json"])
def test_what_is_no_model(tmp_path: Path, made: str) -> None:
    directory = tmp_path / "centroid_3f2a9c01"
    directory.mkdir()
    if made:
        (directory / made).mkdir(parents=True)
    with pytest.raises(UnknownModel, match="centroid_3f2a9c01"):
        records.read(directory)


BAD: list[dict[str, Any]] = [
    {"notes": "x" * 1_001},
    {"status": "done"},
    {"id": "3f2a9c02"},
    {"model_type": "bottomup"},
    {"checkpoint": "../best.ckpt"},
    {"config": "/etc/passwd"},
    {"files": (ModelFile(path="a/../b", size=1, blake3="0" * 64),)},
    {"files": (ModelFile(path=".record/00000009.json", size=1, blake3="0" * 64),)},
    {"interruption": Interruption(epoch=1, checkpoint="a\\b")},
]


@pytest.mark.parametrize("changes", BAD)
def test_a_record_that_breaks_rules_is_never_written(
    directory: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises((DataError, UnsafePath)):
        records.update(directory, lambda old: replace(old, **changes))
    assert revisions(directory) == ["00000001.json"]


def test_changes_at_once_are_all_kept(directory: Path) -> None:
    def add(number: int) -> None:
        records.update(directory, lambda old: replace(old, tags=(*old.tags, f"t{number:02d}")))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    revision = records.read(directory)
    assert revision.record.tags == tuple(f"t{number:02d}" for number in range(40))
    assert revision.number == 41


def test_a_writer_that_slept_through_many_changes_does_not_lose_its_own(directory: Path) -> None:
    woken = []

    def slow(old: ModelRecord) -> ModelRecord:
        if not woken:
            woken.append(True)
            for number in range(12):  # prunes the number that this writer is about to make
                records.update(directory, noted(str(number)))
        return replace(old, tags=("mine",))

    revision = records.update(directory, slow)
    assert (revision.record.notes, revision.record.tags) == ("11", ("mine",))
    assert records.read(directory) == revision


def test_a_reader_looks_again_when_its_revision_was_pruned(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = chain._content
    missed = []

    def first_gone(path: str) -> bytes:
        if not missed:
            missed.append(path)
            raise FileNotFoundError(errno.ENOENT, "pruned", path)
        return content(path)

    monkeypatch.setattr(chain, "_content", first_gone)
    assert records.read(directory).number == 1
    assert missed


def test_what_cannot_be_read_for_other_reasons_is_no_damage(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str) -> bytes:
        raise OSError(errno.EIO, "bad disk", path)

    monkeypatch.setattr(chain, "_content", fail)
    with pytest.raises(OSError, match="bad disk"):
        records.read(directory)


def test_a_chain_that_never_stands_still_ends_in_busy(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "write_new", lambda *_: False)
    with pytest.raises(Busy, match="changes it all the time"):
        records.update(directory, noted("a"))


def test_a_full_disk_leaves_the_old_record(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutOfSpace):
        records.update(directory, noted("a"))
    monkeypatch.undo()
    assert records.read(directory).record.notes == ""
    assert revisions(directory) == ["00000001.json"]


def test_the_copy_for_people_is_not_worth_failing_for(directory: Path) -> None:
    (directory / "model.json").unlink()
    (directory / "model.json").mkdir()
    assert records.update(directory, noted("a")).number == 2
    assert sorted(p.name for p in directory.iterdir()) == [".record", "model.json"]


def test_a_directory_that_vanishes_meanwhile_is_unknown(directory: Path) -> None:
    def vanish(old: ModelRecord) -> ModelRecord:
        directory.rename(directory.with_name("elsewhere"))
        return replace(old, notes="a")

    with pytest.raises(UnknownModel):
        records.update(directory, vanish)


def test_creating_again_starts_over(directory: Path, record: ModelRecord) -> None:
    records.update(directory, noted("a"))
    records.create(directory, record)
    assert records.read(directory) == records.Revision(number=1, record=record)
