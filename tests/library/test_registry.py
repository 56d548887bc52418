import errno
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from loguru import logger
from msgspec.structs import replace

from sleap_rtc.domain.ids import ModelId, PackageId
from sleap_rtc.domain.models import Location, Metrics, ModelFile, ModelRecord, Training
from sleap_rtc.errors import (
    DataError,
    FilesMissing,
    IllegalTransition,
    NotFound,
    OutOfSpace,
    UnknownModel,
    UnsafePath,
)
from sleap_rtc.library.entries import Query
from sleap_rtc.library.registry import Registry

RecordOf = Callable[..., ModelRecord]
FilesIn = Callable[..., tuple[ModelFile, ...]]


@pytest.fixture
def logged() -> Any:
    lines: list[Any] = []
    sink = logger.add(lambda message: lines.append(message.record), level="DEBUG")
    yield lines
    logger.remove(sink)


@pytest.fixture
def arrive(registry: Registry, record_of: RecordOf, files_in: FilesIn) -> Callable[..., Any]:
    """Puts a model together and places it."""

    def place(name: str = "run", content: str = "weights", **changes: Any) -> Any:
        folder = registry.incoming / f"{name}-{content}"
        files = files_in(folder, best_ckpt=content, sub__config="c")
        given = {"status": "completed", "source": "worker-pull", "checkpoint": "best.ckpt"}
        return registry.place(folder, replace(record_of(name, **given | changes), files=files))

    return place


# Making models


def test_a_registered_model_is_found_again(
    registry: Registry, open_registry: Callable[[], Registry], record_of: RecordOf
) -> None:
    record = record_of()
    entry = registry.register(record)
    assert (entry.record, entry.alias) == (record, None)
    assert entry.directory == registry.models_dir / f"centroid_{record.id}"
    assert open_registry().get(record.id) == entry
    assert list(registry.incoming.iterdir()) == []


def test_the_same_digits_with_another_hash_take_a_suffix(
    registry: Registry, record_of: RecordOf, logged: list[Any]
) -> None:
    first = registry.register(record_of("a"))
    other = registry.register(record_of("b", id=first.id))
    third = registry.register(record_of("c", "bottomup", id=first.id))
    assert (other.id, third.id) == (f"{first.id}-2", f"{first.id}-3")
    assert other.record.same_recipe_as is None
    assert other.directory.name == f"centroid_{first.id}-2"
    collisions = [line for line in logged if "is taken" in line["message"]]
    assert len(collisions) == 3
    assert collisions[0]["extra"]["their_full_hash"] == first.record.full_hash


def test_the_same_recipe_again_is_another_model_that_says_so(
    registry: Registry, record_of: RecordOf
) -> None:
    first = registry.register(record_of(training=Training(job="one")))
    second = registry.register(record_of(training=Training(job="two")))
    third = registry.register(record_of())
    fourth = registry.register(record_of())
    assert [e.id for e in (second, third, fourth)] == [f"{first.id}-{n}" for n in (2, 3, 4)]
    assert {e.record.same_recipe_as for e in (second, third, fourth)} == {first.id}


def test_the_same_jobs_model_is_registered_once(registry: Registry, record_of: RecordOf) -> None:
    record = record_of(training=Training(job="one"))
    first = registry.register(record)
    registry.mark_completed(first.id, Metrics(epochs=3))
    assert registry.register(record).record == registry.get(first.id).record


def test_what_no_registry_made_is_left_alone(registry: Registry, record_of: RecordOf) -> None:
    record = record_of()
    stranger = registry.models_dir / record.directory
    stranger.mkdir(parents=True)
    (stranger / "best.ckpt").write_text("theirs")
    assert registry.register(record).id == f"{record.id}-2"
    assert [path.name for path in stranger.iterdir()] == ["best.ckpt"]


def test_an_id_with_a_suffix_is_kept_when_it_travels(
    registry: Registry, record_of: RecordOf
) -> None:
    record = record_of(id=ModelId("3f2a9c01-2"))
    assert registry.register(record).id == "3f2a9c01-2"
    assert registry.register(record).id == "3f2a9c01-3"


@pytest.mark.parametrize("changes", [{"status": "done"}, {"id": "../../x"}, {"config": "../x"}])
def test_a_record_that_breaks_rules_makes_nothing(
    registry: Registry, record_of: RecordOf, changes: dict[str, Any]
) -> None:
    with pytest.raises((DataError, UnsafePath)):
        registry.register(record_of(**changes))
    assert registry.list().entries == ()
    assert list(registry.incoming.iterdir()) == []


def test_many_registrations_at_once_get_ids_of_their_own(
    open_registry: Callable[[], Registry], record_of: RecordOf
) -> None:
    with ThreadPoolExecutor(6) as pool:
        entries = list(pool.map(lambda _: open_registry().register(record_of()), range(18)))
    assert len({entry.id for entry in entries}) == 18
    assert len(open_registry().list().entries) == 18


# Models that come as a whole


def test_a_placed_model_appears_whole(registry: Registry, arrive: Callable[..., Any]) -> None:
    entry = arrive()
    assert (entry.directory / "best.ckpt").read_text() == "weights"
    assert (entry.directory / "sub" / "config").read_text() == "c"
    assert registry.checkpoint_path(entry.id) == entry.directory / "best.ckpt"
    assert list(registry.incoming.iterdir()) == []


def test_a_model_that_is_there_already_stays(
    registry: Registry, arrive: Callable[..., Any]
) -> None:
    first = arrive()
    registry.update(first.id, lambda old: replace(old, notes="mine"))
    again = arrive()
    assert again.record.notes == "mine"
    assert len(registry.list().entries) == 1


def test_another_content_with_the_same_recipe_stands_beside_it(
    registry: Registry, arrive: Callable[..., Any]
) -> None:
    first, second = arrive(), arrive(content="other")
    assert (second.id, second.record.same_recipe_as) == (f"{first.id}-2", first.id)
    assert registry.checkpoint_path(first.id).read_text() == "weights"
    assert registry.checkpoint_path(second.id).read_text() == "other"


def test_a_deleted_model_may_come_back(registry: Registry, arrive: Callable[..., Any]) -> None:
    first = arrive()
    trash = registry.delete(first.id)
    again = arrive()
    assert again.id == first.id
    assert registry.checkpoint_path(first.id).read_text() == "weights"
    assert trash is not None
    assert (trash / "best.ckpt").read_text() == "weights"


def test_a_model_that_came_back_is_not_retired_by_a_slow_process(
    registry: Registry, arrive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = arrive()
    registry.delete(first.id)
    retire = Registry._retire

    def overtaken(self: Registry, directory: Path) -> None:
        monkeypatch.undo()
        arrive()
        registry.update(first.id, lambda old: replace(old, notes="mine"))
        files_of_the_slow_one(registry.incoming / "run-weights")
        retire(self, directory)

    def files_of_the_slow_one(folder: Path) -> None:
        (folder / "sub").mkdir(parents=True)
        (folder / "best.ckpt").write_text("weights")
        (folder / "sub" / "config").write_text("c")

    monkeypatch.setattr(Registry, "_retire", overtaken)
    assert arrive().record.notes == "mine"


def test_many_who_bring_a_deleted_model_back_make_one(
    registry: Registry, arrive: Callable[..., Any], record_of: RecordOf, files_in: FilesIn
) -> None:
    first = arrive()
    registry.delete(first.id)

    def bring(number: int) -> str:
        folder = registry.incoming / str(number)
        files = files_in(folder, best_ckpt="weights", sub__config="c")
        return str(registry.place(folder, record_of(status="completed", files=files)).id)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(bring, range(4))) == {first.id}


def test_a_strangers_record_folder_is_not_taken_over(
    registry: Registry, record_of: RecordOf, files_in: FilesIn
) -> None:
    folder = registry.incoming / "x"
    files = files_in(folder, best_ckpt="w")
    files_in(folder, **{".record/00000009.json": '{"format": "9.0"}', "model.json": "{}"})
    entry = registry.place(folder, record_of(files=files))
    assert sorted(p.name for p in (entry.directory / ".record").iterdir()) == ["00000001.json"]


def test_a_crash_before_the_rename_leaves_no_model(
    registry: Registry, arrive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sleap_rtc.library.registry.place_directory", die)
    with pytest.raises(KeyboardInterrupt):
        arrive()
    monkeypatch.undo()
    assert registry.list().entries == ()
    assert arrive().record.files


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


def test_changes_of_status(registry: Registry, record_of: RecordOf, clock: Any) -> None:
    model = registry.register(record_of()).id
    stopped = registry.mark_interrupted(model, "last.ckpt", 4, reason="killed").record
    assert stopped.interruption is not None
    assert (stopped.interruption.epoch, stopped.interruption.reason) == (4, "killed")
    assert [entry.id for entry in registry.get_interrupted()] == [model]
    resumed = registry.mark_training(model).record
    assert (resumed.interruption, resumed.training.resumed_from) == (None, ("epoch 4",))
    assert registry.get_interrupted() == ()
    failed = registry.mark_failed(model, "x" * 9_000 + "!").record
    assert failed.failure is not None
    assert (len(failed.failure), failed.failure[-1]) == (8_000, "!")
    registry.mark_training(model)
    clock.go_on(days=1)
    done = registry.mark_completed(model, Metrics(epochs=9)).record
    assert (done.status, done.completed_at, done.failure) == ("completed", clock(), None)
    with pytest.raises(IllegalTransition, match=f"model {model} is completed"):
        registry.mark_failed(model, "too late")


def test_completing_lists_the_files(
    registry: Registry, record_of: RecordOf, files_in: FilesIn
) -> None:
    entry = registry.register(record_of())
    with pytest.raises(FilesMissing, match="checkpoint, which is not here yet"):
        registry.checkpoint_path(entry.id)
    files = files_in(entry.directory, best_ckpt="w", training_config="c")
    done = registry.mark_completed(
        entry.id,
        Metrics(),
        files=files,
        checkpoint="best.ckpt",
        config="training_config",
        package=PackageId("a" * 64),
        training=Training(duration_s=1.5),
    ).record
    assert (done.files, done.config, done.package) == (files, "training_config", "a" * 64)
    assert done.training.duration_s == 1.5
    again = registry.mark_completed(entry.id, Metrics(epochs=1)).record
    assert (again.files, again.completed_at) == (files, done.completed_at)


def test_completing_without_its_files_is_refused(registry: Registry, record_of: RecordOf) -> None:
    model = registry.register(record_of()).id
    missing = ModelFile(path="best.ckpt", size=1, blake3="0" * 64)
    with pytest.raises(FilesMissing, match=r"best\.ckpt"):
        registry.mark_completed(model, Metrics(), files=[missing])
    assert registry.get(model).record.status == "training"


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


# Deleting


def test_a_deleted_model_leaves_a_record_and_its_files_in_the_trash(
    registry: Registry, arrive: Callable[..., Any]
) -> None:
    entry = arrive()
    registry.set_alias("fly", entry.id)
    trash = registry.delete("fly")
    assert trash is not None
    assert trash.parent == registry.models_dir / ".trash"
    assert trash.name.startswith("20260301T120000Z-")
    assert (trash / "sub" / "config").read_text() == "c"
    assert [path.name for path in entry.directory.iterdir()] == [".record"]
    assert registry.list().entries == ()
    for name in ("fly", entry.id):
        with pytest.raises(NotFound):
            registry.get(name)
    with pytest.raises(UnknownModel):
        registry.delete(entry.id)
    with pytest.raises(UnknownModel):
        registry.mark_training(entry.id)


def test_deleting_the_record_alone_leaves_the_files(
    registry: Registry, arrive: Callable[..., Any], clock: Any
) -> None:
    entry = arrive()
    assert registry.delete(entry.id, files=False) is None
    assert (entry.directory / "best.ckpt").read_text() == "weights"
    assert registry.resolve(str(entry.directory)) == entry.directory
    clock.go_on(days=31)
    assert registry.sweep() == 1
    assert sorted(p.name for p in entry.directory.iterdir()) == ["best.ckpt", "model.json", "sub"]


def test_the_sweep_takes_what_is_old_and_no_more(
    registry: Registry, arrive: Callable[..., Any], clock: Any
) -> None:
    old, kept = arrive("old"), arrive("kept")
    registry.delete(old.id)
    (registry.models_dir / ".trash" / "mine").mkdir()
    for name, age in ((".tmp-old", 90_000), (".tmp-new", 60), ("pull", 90_000)):
        folder = registry.incoming / name
        folder.mkdir()
        past = time.time() - age
        os.utime(folder, (past, past))
    clock.go_on(days=20)
    newer = arrive("newer")
    trash = registry.delete(newer.id)
    assert trash is not None
    assert registry.sweep() == 0
    clock.go_on(days=11)
    assert registry.sweep() == 2
    assert not old.directory.exists()
    assert newer.directory.exists()
    left = {path.name for path in (registry.models_dir / ".trash").iterdir()}
    assert left == {trash.name, "mine"}
    assert {path.name for path in registry.incoming.iterdir()} == {".tmp-new", "pull"}
    assert registry.get(kept.id) == kept
    assert registry.sweep() == 0


# The rest


def test_every_operation_logs_its_duration(
    registry: Registry, record_of: RecordOf, logged: list[Any]
) -> None:
    model = registry.register(record_of()).id
    registry.get(model)
    with pytest.raises(UnknownModel):
        registry.get("nobody")
    timed = [line["extra"] for line in logged if line["message"] == "library operation"]
    assert [extra["operation"] for extra in timed] == ["register", "get", "get"]
    assert all(0 <= extra["ms"] < 60_000 for extra in timed)


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
