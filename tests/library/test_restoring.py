import contextlib
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from msgspec.structs import replace

from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.errors import AmbiguousName, NotFound, UnknownModel
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.library import restoring
from sleap_rtc.library.registry import Registry
from sleap_rtc.library.restoring import Restored
from sleap_rtc.testing.disk import Killed, WatchedDisk

RecordOf = Callable[..., ModelRecord]
Arrive = Callable[..., Any]


@pytest.fixture
def cache(tmp_path: Path) -> HashCache:
    return HashCache(tmp_path / "hashes")


@pytest.fixture
def bring_back(registry: Registry, cache: HashCache) -> Callable[[str], Restored]:
    """Brings a model back by a name, with its alias."""

    def restore(name: str) -> Restored:
        (one,) = restoring.find(registry, name)
        restored = restoring.restore(registry, one, cache)
        restoring.name_again(registry, [(one, restored.entry)])
        return restored

    return restore


def test_a_deleted_model_comes_back_as_it_was(
    registry: Registry, arrive: Arrive, bring_back: Callable[[str], Restored]
) -> None:
    before = arrive(tags=("a",), notes="n")
    registry.set_alias("fly", before.id)
    registry.delete("fly")
    (one,) = restoring.deleted(registry)
    assert (one.where, one.size, one.label) == ("trash", 8, f"{before.id} (fly)")
    assert one.until is not None
    assert (one.until - registry._clock()).days == 30
    restored = bring_back("fly")
    assert restored.lacking == ()
    now = registry.get("fly")
    assert now.record == before.record
    assert now.directory == before.directory
    assert (now.directory / "sub" / "config").read_text() == "c"
    assert [entry.alias for entry in registry.list().entries] == ["fly"]
    assert restoring.deleted(registry) == []
    registry.delete("fly")  # and so again
    assert bring_back(before.id[:5]).entry.record == before.record


def test_files_that_were_kept_stay_where_they_are(
    registry: Registry, arrive: Arrive, bring_back: Callable[[str], Restored]
) -> None:
    before = arrive()
    registry.set_alias("fly", before.id)
    inode = (before.directory / "best.ckpt").stat().st_ino
    registry.delete(before.id, files=False)
    (one,) = restoring.deleted(registry)
    assert (one.where, one.size) == ("kept", 8)
    assert bring_back("fly").entry.record == before.record
    assert (before.directory / "best.ckpt").stat().st_ino == inode
    assert not (registry.models_dir / ".trash").exists()
    assert registry.get("fly").id == before.id


@pytest.mark.parametrize("status", ["completed", "interrupted", "failed"])
def test_its_status_is_what_it_was(
    registry: Registry, arrive: Arrive, bring_back: Callable[[str], Restored], status: str
) -> None:
    before = arrive(status=status)
    registry.delete(before.id)
    assert bring_back(before.id).entry.record.status == status


def test_a_model_without_files_comes_back_as_a_record(
    registry: Registry, record_of: RecordOf, bring_back: Callable[[str], Restored]
) -> None:
    before = registry.register(record_of())
    registry.delete(before.id)
    assert restoring.deleted(registry)[0].where == "nowhere"
    assert bring_back(before.id).entry.record == before.record


@pytest.mark.parametrize("files", [True, False])
def test_links_come_back_also_of_a_drive_that_is_not_there(
    registry: Registry,
    record_of: RecordOf,
    bring_back: Callable[[str], Restored],
    tmp_path: Path,
    files: bool,
) -> None:
    drive = tmp_path / "drive"
    drive.mkdir()
    (drive / "best.ckpt").write_text("weights")
    folder = registry.claims.new_folder()
    (folder / "best.ckpt").symlink_to(drive / "best.ckpt")
    listed = ModelFile(
        path="best.ckpt",
        size=7,
        blake3=blake3(b"weights").hexdigest(),
        link=str(drive.resolve() / "best.ckpt"),
    )
    record = record_of(status="imported", source="local-import", files=(listed,))
    before = registry.place(folder, record, links=True)
    registry.delete(before.id, files=files)
    drive.rename(tmp_path / "unplugged")
    restored = bring_back(before.id)
    assert restored.lacking == ("best.ckpt",)
    assert restored.entry.record == before.record
    (tmp_path / "unplugged").rename(drive)
    assert (restored.entry.directory / "best.ckpt").read_text() == "weights"


def test_what_is_not_in_the_trash_any_more_is_told(
    registry: Registry, arrive: Arrive, bring_back: Callable[[str], Restored]
) -> None:
    before = arrive()
    trash = registry.delete(before.id)
    assert trash is not None
    (trash / "best.ckpt").unlink()
    restored = bring_back(before.id)
    assert restored.lacking == ("best.ckpt",)
    assert restored.entry.record.status == "missing"
    assert (restored.entry.directory / "sub" / "config").exists()


def test_files_in_several_folders_are_put_together_by_content(
    registry: Registry, arrive: Arrive, bring_back: Callable[[str], Restored]
) -> None:
    before = arrive()
    trash = registry.delete(before.id)
    assert trash is not None
    other = registry.claims.trash(before.directory.name)
    (other / "sub").mkdir(parents=True)
    (trash / "sub" / "config").rename(other / "sub" / "config")
    wrong = trash.with_name(f"20260302T000000Z-00000000-{before.directory.name}")
    wrong.mkdir()
    (wrong / "best.ckpt").write_text("another")  # of the same size, and newer
    restored = bring_back(before.id)
    assert restored.lacking == ()
    assert (restored.entry.directory / "best.ckpt").read_text() == "weights"
    assert (wrong / "best.ckpt").read_text() == "another"


def test_a_delete_that_was_cut_short_is_taken_back(
    registry: Registry,
    arrive: Arrive,
    bring_back: Callable[[str], Restored],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = arrive()
    with monkeypatch.context() as patch:
        patch.setattr("sleap_rtc.library.placing.move_out", lambda *_, **__: None)
        registry.delete(before.id)
    restored = bring_back(before.id)
    assert restored.lacking == ()
    assert restored.entry.record == before.record


def test_a_model_whose_record_is_in_the_trash_alone_is_found(
    registry: Registry, arrive: Arrive, bring_back: Callable[[str], Restored]
) -> None:
    before = arrive()
    aside = registry.claims.trash(before.directory.name)
    aside.parent.mkdir()
    before.directory.rename(aside)  # a process died while it made way
    (one,) = restoring.deleted(registry)
    assert one.where == "trash"
    assert bring_back(before.id).entry.record == before.record


def test_an_alias_that_is_taken_stays_where_it_is(
    registry: Registry, arrive: Arrive, cache: HashCache, clock: Any
) -> None:
    before, other = arrive("a"), arrive("b")
    registry.set_alias("old", before.id)
    registry.set_alias("fly", before.id)
    clock.go_on(seconds=1)
    registry.delete(before.id)
    registry.set_alias("fly", other.id)
    (one,) = restoring.find(registry, "fly")
    assert [name for name, _ in one.aliases] == ["fly"]  # it was not called old any more
    restored = restoring.restore(registry, one, cache)
    given, refused = restoring.name_again(registry, [(one, restored.entry)])
    assert given == []
    assert "fly" in refused[0]
    assert other.id in refused[0]
    assert registry.get("fly").id == other.id


def test_a_pair_is_a_pair_again_when_both_are_back(
    registry: Registry, arrive: Arrive, cache: HashCache, clock: Any
) -> None:
    one, two = arrive("a"), arrive("b", model_type="centered_instance")
    registry.set_alias("pair", one.id, two.id)
    registry.delete(one.id)
    clock.go_on(seconds=1)
    registry.delete(two.id)
    second, first = restoring.find(registry, "pair")
    assert restoring.find(registry, "pair:centroid") == (first,)
    restored = restoring.restore(registry, first, cache)
    given, refused = restoring.name_again(registry, [(first, restored.entry)])
    assert given == []
    assert two.id in refused[0]
    both = [(first, restored.entry), (second, restoring.restore(registry, second, cache).entry)]
    assert restoring.name_again(registry, both) == (["pair"], [])
    assert registry.get("pair:centroid").id == one.id


def test_who_asks_for_a_deleted_model_hears_how_it_comes_back(
    registry: Registry, arrive: Arrive
) -> None:
    gone = arrive()
    registry.delete(gone.id)
    with pytest.raises(UnknownModel) as caught:
        registry.get(gone.id)
    assert f"restore-model {gone.id}" in caught.value.hint_text


def test_names_that_no_deleted_model_has(registry: Registry, arrive: Arrive) -> None:
    alive = arrive("alive")
    with pytest.raises(UnknownModel) as caught:
        restoring.find(registry, alive.id)
    assert "isn't deleted" in caught.value.hint_text
    with pytest.raises(UnknownModel) as caught:
        restoring.find(registry, "nothing")
    assert "--deleted" in caught.value.hint_text


def test_a_beginning_that_fits_several_names_them(
    registry: Registry, arrive: Arrive, record_of: RecordOf
) -> None:
    for name in ("a", "b"):
        made = registry.register(record_of(name, id={"a": "abcd0001", "b": "abcd0002"}[name]))
        registry.delete(made.id)
    with pytest.raises(AmbiguousName, match="abcd0001"):
        restoring.find(registry, "abcd")


def test_who_was_swept_away_at_this_moment_is_told_so(
    registry: Registry, arrive: Arrive, cache: HashCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = arrive()
    registry.delete(before.id)
    (one,) = restoring.find(registry, before.id)
    real = restoring._assembled

    def and_swept(*given: Any) -> Any:
        folder = real(*given)
        assert folder is not None
        shutil.rmtree(folder)
        return folder

    monkeypatch.setattr(restoring, "_assembled", and_swept)
    with pytest.raises(NotFound):
        restoring.restore(registry, one, cache)


def test_a_folder_of_the_trash_that_is_a_strangers_is_left_alone(
    registry: Registry, arrive: Arrive
) -> None:
    arrive()
    for name in ("mine", "20260301T120000Z-00000000-notes", "20260301T120000Z-x"):
        (registry.models_dir / ".trash" / name).mkdir(parents=True)
    assert restoring.deleted(registry) == []


@pytest.mark.slow
@pytest.mark.parametrize("files", [True, False])
def test_a_kill_at_any_step_loses_nothing_and_can_be_gone_on(
    tmp_path: Path,
    clock: Any,
    record_of: RecordOf,
    files_in: Any,
    files: bool,
) -> None:
    cache = HashCache(tmp_path / "hashes")
    template = tmp_path / "template"
    with contextlib.closing(
        Registry(template / "models", clock=clock, index_dir=tmp_path / "index")
    ) as registry:
        folder = registry.claims.new_folder()
        listed = files_in(folder, best_ckpt="weights", sub__config="c")
        before = registry.place(
            folder, record_of(status="completed", files=listed, checkpoint="best.ckpt")
        )
        registry.delete(before.id, files=files)
    number, finished = 0, False
    while not finished:
        root = tmp_path / f"turn-{number}"
        shutil.copytree(template, root)
        registry = Registry(root / "models", clock=clock, index_dir=tmp_path / f"index-{number}")
        (one,) = restoring.find(registry, before.id)
        with WatchedDisk(root, kill_at=number), contextlib.suppress(Killed):
            restoring.restore(registry, one, cache)
            finished = True
        registry.sweep()
        registry._index.close()
        registry = Registry(root / "models", clock=clock, index_dir=tmp_path / f"other-{number}")
        if not registry.exists(before.id):
            restoring.restore(registry, *restoring.find(registry, before.id), cache)
        now = registry.get(before.id)
        assert replace(now.record) == before.record
        for file in now.record.files:
            assert os.path.getsize(now.directory / file.path) == file.size  # noqa: PTH202
        registry._index.close()
        shutil.rmtree(root)
        number += 1
    assert number > 3


def test_a_model_of_the_end_of_time_is_listed_when_it_was_deleted(
    registry: Registry, record_of: Callable[..., ModelRecord]
) -> None:
    last = datetime.max.replace(tzinfo=UTC)
    entry = registry.register(record_of("a", created_at=last))
    registry.delete(entry.id)
    (one,) = restoring.deleted(registry)
    assert one.record.deleted_at == last
    assert one.until == last
