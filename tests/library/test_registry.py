import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sleap_rtc.domain.ids import ModelId
from sleap_rtc.domain.models import Location, Metrics, ModelFile, ModelRecord
from sleap_rtc.errors import (
    FilesMissing,
    IllegalTransition,
    OutOfSpace,
    UnknownModel,
)
from sleap_rtc.library.entries import Query
from sleap_rtc.library.registry import Registry

RecordOf = Callable[..., ModelRecord]
FilesIn = Callable[..., tuple[ModelFile, ...]]


# Files that follow their record


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    return tmp_path / "staged"


def test_adopted_files_belong_to_the_model(
    registry: Registry, record_of: RecordOf, files_in: FilesIn, staged: Path, clock: Any
) -> None:
    here = registry.register(record_of(tags=("mine",), source="client-upload", notes="my note"))
    clock.go_on(hours=1)
    there = record_of(
        id=ModelId("00000000"),
        status="completed",
        tags=("theirs",),
        checkpoint="best.ckpt",
        metrics=Metrics(epochs=3),
        files=files_in(staged, best_ckpt="w", sub__x="y"),
        notes="their note",
        completed_at=clock(),
        unknown={"later": 1},
    )
    record = registry.adopt_files(here.id, staged, there).record
    assert record == replace(
        there,
        id=here.id,
        source="client-upload",
        created_at=here.record.created_at,
        downloaded_at=clock(),
        tags=("mine", "theirs"),
        notes="my note",
    )
    assert registry.checkpoint_path(here.id).read_text() == "w"


def test_adopting_goes_on_after_a_crash(
    registry: Registry,
    record_of: RecordOf,
    files_in: FilesIn,
    staged: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = registry.register(record_of())
    files = files_in(staged, a="1", b__c="2", d="3")
    done = record_of(status="completed", files=files)
    rename, moved = Path.rename, []

    def die_at_the_second(source: Path, target: Path) -> Path:
        if source.is_relative_to(staged):
            moved.append(source)
            if len(moved) == 2:
                raise KeyboardInterrupt
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", die_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        registry.adopt_files(here.id, staged, done)
    monkeypatch.undo()
    assert registry.get(here.id).record.files == ()
    entry = registry.adopt_files(here.id, staged, done)
    assert [(entry.directory / file.path).read_text() for file in entry.record.files] == list("123")


def test_files_that_replace_others_are_never_listed_wrongly(
    registry: Registry,
    record_of: RecordOf,
    files_in: FilesIn,
    staged: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = registry.register(record_of())
    first = record_of(status="interrupted", files=files_in(staged, a="old", b="same"))
    registry.adopt_files(here.id, staged, first)
    second = record_of(status="completed", files=files_in(staged, a="newer", b="same"))

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sleap_rtc.library.placing.move_in", die)
    with pytest.raises(KeyboardInterrupt):
        registry.adopt_files(here.id, staged, second)
    monkeypatch.undo()
    assert [file.path for file in registry.get(here.id).record.files] == ["b"]
    entry = registry.adopt_files(here.id, staged, second)
    assert (entry.directory / "a").read_text() == "newer"
    assert entry.record.status == "completed"


def test_adopting_for_a_failed_model_is_refused_before_files_move(
    registry: Registry, record_of: RecordOf, files_in: FilesIn, staged: Path
) -> None:
    here = registry.register(record_of())
    registry.mark_failed(here.id, "no memory")
    done = record_of(status="completed", files=files_in(staged))
    with pytest.raises(IllegalTransition):
        registry.adopt_files(here.id, staged, done)
    assert (staged / "best.ckpt").exists()


# Changing models


def test_a_checkpoint_that_is_gone_or_another_is_missing(
    registry: Registry, arrive: Callable[..., Any]
) -> None:
    entry = arrive()
    path = registry.checkpoint_path(entry.id)
    path.write_text("truncated")
    with pytest.raises(FilesMissing, match="9 bytes; its record says 7"):
        registry.checkpoint_path(entry.id)
    path.unlink()
    with pytest.raises(FilesMissing, match=r"lacks files: best\.ckpt"):
        registry.checkpoint_path(entry.id)
    path.symlink_to("/etc/hostname")
    with pytest.raises(FilesMissing, match="a link that the record doesn't name"):
        registry.checkpoint_path(entry.id)


def test_changes_are_by_name_too(registry: Registry, record_of: RecordOf) -> None:
    registry.set_alias("fly", registry.register(record_of()).id)
    entry = registry.update("fly", lambda old: replace(old, notes="x"))
    assert (entry.record.notes, entry.alias) == ("x", "fly")
    with pytest.raises(UnknownModel):
        registry.update("flea", lambda old: old)


def test_a_full_disk_changes_nothing(
    registry: Registry, record_of: RecordOf, arrive: Callable[..., Any], monkeypatch: Any
) -> None:
    entry = arrive()

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutOfSpace):
        registry.update(entry.id, lambda old: replace(old, notes="x"))
    with pytest.raises(OutOfSpace):
        registry.register(record_of("other"))
    with pytest.raises(OutOfSpace):
        arrive(name="third")
    with pytest.raises(OutOfSpace):
        registry.delete(entry.id)
    monkeypatch.undo()
    assert registry.get(entry.id) == entry
    assert [e.id for e in registry.list().entries] == [entry.id]


# The rest


def test_a_registry_closes(models: Path, tmp_path: Path, record_of: RecordOf) -> None:
    with Registry(models, index_dir=tmp_path / "index") as registry:
        model = registry.register(record_of()).id
        assert len(registry.list(Query(text="run")).entries) == 1
    registry.close()
    assert registry.get(model).id == model


def test_where_a_model_is_besides(registry: Registry, record_of: RecordOf, clock: Any) -> None:
    model = registry.register(record_of()).id
    place = Location(kind="worker", name="gpu-01", last_seen=clock())
    registry.update(model, lambda old: replace(old, locations=(place,)))
    assert [e.id for e in registry.list(Query(where="worker")).entries] == [model]


def test_a_damaged_index_is_kept_aside_and_what_came_back_is_told(
    open_registry: Callable[[], Registry], record_of: RecordOf, tmp_path: Path
) -> None:
    first = open_registry()
    for n in range(3):
        first.register(record_of(str(n)))
    assert len(first.list().entries) == 3
    assert first.recovered is None
    first.close()
    for number in range(5):
        (database,) = (tmp_path / "index").rglob("*.sqlite")
        database.write_bytes(b"garbage %d" % number * 1_000)
        registry = open_registry()
        assert len(registry.list().entries) == 3
        recovered = registry.recovered
        assert recovered is not None
        assert recovered.models == 3
        assert recovered.aside.read_bytes().startswith(b"garbage %d" % number)
        registry.close()
    assert len(list((tmp_path / "index").rglob("damaged-*"))) == 3
