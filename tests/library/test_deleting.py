import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.errors import (
    NotFound,
    UnknownModel,
)
from sleap_rtc.library import placing, records, restoring
from sleap_rtc.library.registry import Registry

RecordOf = Callable[..., ModelRecord]
FilesIn = Callable[..., tuple[ModelFile, ...]]


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


def test_what_is_deleted_while_the_clock_is_set_back_is_not_swept_away_early(
    registry: Registry, arrive: Callable[..., Any], clock: Any
) -> None:
    first, second = arrive("first"), arrive("second")
    registry.delete(first.id)
    clock.go_on(days=-400)
    trash = registry.delete(second.id)
    assert trash is not None
    clock.go_on(days=401)
    assert registry.sweep() == 0
    assert (trash / "best.ckpt").exists()
    assert {one.record.id for one in restoring.deleted(registry)} == {first.id, second.id}
    clock.go_on(days=31)
    assert registry.sweep() == 4
    assert restoring.deleted(registry) == []


@pytest.mark.parametrize("trashed", [False, True])
def test_a_record_whose_files_stay_is_not_swept_away_early_either(
    registry: Registry, arrive: Callable[..., Any], clock: Any, trashed: bool
) -> None:
    clock.go_on(days=-300)
    kept = arrive("kept")
    registry.set_alias("fly", kept.id)
    clock.go_on(days=300)
    if trashed:  # of more than the model's own times is known how late it is at least
        registry.delete(arrive("other").id)
    clock.go_on(days=-700)
    registry.delete(kept.id, files=False)
    clock.go_on(days=700 if trashed else 400)
    registry.sweep()
    found = [one for one in restoring.deleted(registry) if one.record.id == kept.id]
    assert [(one.where, one.aliases) for one in found] == [("kept", (("fly", (kept.id,)),))]
    clock.go_on(days=31)
    registry.sweep()
    assert [one for one in restoring.deleted(registry) if one.record.id == kept.id] == []
    assert (kept.directory / "best.ckpt").exists()


def test_a_delete_that_was_cut_short_is_finished_by_the_sweep(
    registry: Registry, arrive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = arrive()

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sleap_rtc.library.placing.move_out", die)
        with pytest.raises(KeyboardInterrupt):
            registry.delete(entry.id)
    assert (entry.directory / "best.ckpt").exists()
    registry.sweep()
    assert [path.name for path in entry.directory.iterdir()] == [".record"]
    (trash,) = (registry.models_dir / ".trash").iterdir()
    assert (trash / "best.ckpt").read_text() == "weights"
    registry.sweep()
    assert list((registry.models_dir / ".trash").iterdir()) == [trash]


def test_files_that_were_to_stay_are_left_by_the_sweep(
    registry: Registry, arrive: Callable[..., Any]
) -> None:
    entry = arrive()
    registry.delete(entry.id, files=False)
    registry.sweep()
    assert (entry.directory / "best.ckpt").exists()


def test_two_who_delete_at_once_get_in_nobodys_way(
    registry: Registry, arrive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = arrive()
    met = []

    def late(source: Any, target: Any, *, move: Any = os.rename, **more: Any) -> None:
        if source == "best.ckpt":
            met.append(source)
            move(source, target, **more)  # the other one was quicker
        move(source, target, **more)

    monkeypatch.setattr(os, "rename", late)
    registry.delete(entry.id)
    assert met
    assert [path.name for path in entry.directory.iterdir()] == [".record"]


def test_a_delete_whose_folder_was_moved_away_meanwhile_is_done(
    registry: Registry, arrive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = arrive()
    update = records.update

    def and_is_moved(directory: Path, change: records.Change) -> records.Revision:
        revision = update(directory, change)
        directory.rename(directory.parent / ".trash-of-another")
        return revision

    monkeypatch.setattr(records, "update", and_is_moved)
    registry.delete(entry.id)
    assert not entry.directory.exists()


def test_a_model_whose_files_are_on_their_way_to_the_trash_is_not_brought_back(
    registry: Registry, arrive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = arrive()
    monkeypatch.setattr(placing, "move_out", lambda *_, **__: None)
    registry.delete(entry.id)
    assert registry.settle(entry.record, revive=True) is None
