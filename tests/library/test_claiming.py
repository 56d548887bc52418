from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sleap_rtc.domain.ids import ModelId
from sleap_rtc.domain.models import Metrics, ModelFile, ModelRecord, Training
from sleap_rtc.errors import (
    DataError,
    FilesMissing,
    UnsafePath,
)
from sleap_rtc.library import claiming, deleting, records
from sleap_rtc.library.claiming import Claims
from sleap_rtc.library.registry import Registry

RecordOf = Callable[..., ModelRecord]
FilesIn = Callable[..., tuple[ModelFile, ...]]


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
    retire = Claims._retire

    def overtaken(self: Claims, directory: Path) -> None:
        monkeypatch.undo()
        arrive()
        registry.update(first.id, lambda old: replace(old, notes="mine"))
        files_of_the_slow_one(registry.incoming / "run-weights")
        retire(self, directory)

    def files_of_the_slow_one(folder: Path) -> None:
        (folder / "sub").mkdir(parents=True)
        (folder / "best.ckpt").write_text("weights")
        (folder / "sub" / "config").write_text("c")

    monkeypatch.setattr(Claims, "_retire", overtaken)
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
    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sleap_rtc.library.claiming.place_directory", die)
    with pytest.raises(KeyboardInterrupt):
        arrive()
    monkeypatch.undo()
    assert registry.list().entries == ()
    assert arrive().record.files


# Models whose files are in the library already


def test_a_directory_that_lies_there_gets_its_record(
    registry: Registry, record_of: RecordOf, files_in: FilesIn
) -> None:
    record = record_of(status="completed")
    record = replace(record, files=files_in(registry.models_dir / record.directory))
    entry = registry.settle(record)
    assert entry is not None
    assert registry.get(record.id).record == record
    assert (entry.directory / "model.json").exists()
    assert registry.settle(record) is None  # it has a record now
    assert list(registry.incoming.iterdir()) == []


def test_a_directory_without_the_files_gets_no_record(
    registry: Registry, record_of: RecordOf
) -> None:
    missing = ModelFile(path="best.ckpt", size=1, blake3="0" * 64)
    record = record_of(files=(missing,))
    with pytest.raises(FilesMissing):
        registry.settle(record)
    assert registry.settle(replace(record, files=())) is None
    assert not registry.models_dir.joinpath(record.directory).exists()


def test_a_link_to_a_directory_gets_no_record(
    registry: Registry, record_of: RecordOf, files_in: FilesIn, tmp_path: Path
) -> None:
    record = record_of()
    files = files_in(tmp_path / "theirs")
    registry.models_dir.mkdir()
    (registry.models_dir / record.directory).symlink_to(tmp_path / "theirs")
    assert registry.settle(replace(record, files=files)) is None
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["best.ckpt"]


# Files that were kept when their model was deleted


def test_a_deleted_model_whose_files_stayed_comes_back_with_them(
    registry: Registry, arrive: Callable[..., Any]
) -> None:
    entry = arrive()
    registry.delete(entry.id, files=False)
    assert registry.settle(entry.record) is None  # nobody asked for it back
    back = registry.settle(entry.record, revive=True)
    assert back is not None
    assert (back.record, back.directory) == (entry.record, entry.directory)
    assert registry.get(entry.id) == back
    assert registry.settle(entry.record, revive=True) is None  # it lives


def test_kept_files_make_way_for_another_and_are_never_swept(
    registry: Registry, arrive: Callable[..., Any], clock: Any
) -> None:
    entry = arrive()
    registry.delete(entry.id, files=False)
    without = replace(entry.record, files=(), checkpoint=None, config=None, status="missing")
    assert registry.take_in(without, revive=True)[1] == "added"
    clock.go_on(days=31)
    registry.sweep()
    (kept,) = registry.models_dir.glob(f"{entry.directory.name}-kept-*")
    assert (kept / "best.ckpt").read_text() == "weights"


def test_the_record_of_a_model_that_just_came_back_is_not_dropped(
    registry: Registry, arrive: Callable[..., Any], clock: Any
) -> None:
    entry = arrive()
    clock.go_on(days=31)
    assert not registry.claims.drop_record(entry.directory, before=clock())
    assert registry.get(entry.id) == entry
    assert list((registry.models_dir / ".trash").iterdir()) == []


def test_a_model_that_comes_back_while_it_is_swept_stays(
    registry: Registry,
    open_registry: Callable[[], Registry],
    arrive: Callable[..., Any],
    clock: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = arrive()
    registry.delete(entry.id, files=False)
    clock.go_on(days=31)
    read = records.read

    def reads_and_loses_time(directory: Path) -> records.Revision:
        found = read(directory)
        monkeypatch.setattr(records, "read", read)
        assert open_registry().settle(entry.record, revive=True) is not None
        return found

    monkeypatch.setattr(deleting, "finish", lambda *_: None)
    monkeypatch.setattr(records, "read", reads_and_loses_time)
    registry.sweep()
    assert registry.get(entry.id).record == entry.record


def test_the_trash_is_not_listed_for_each_of_many(
    registry: Registry, arrive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [arrive(f"run {n}") for n in range(5)]
    listed: list[Path] = []
    listing = claiming.layout.listing
    monkeypatch.setattr(
        claiming.layout, "listing", lambda folder: (listed.append(folder), listing(folder))[1]
    )
    for entry in entries:
        registry.delete(entry.id)
    assert len([folder for folder in listed if folder.name == ".trash"]) == 1
