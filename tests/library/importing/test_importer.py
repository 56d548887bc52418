"""From what a person names to what the library has."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from sleap_rtc.domain import values
from sleap_rtc.domain.ids import recipe
from sleap_rtc.domain.models import ModelFile, safety_of
from sleap_rtc.errors import (
    Damaged,
    DataError,
    NotFound,
    OutOfSpace,
    PathNotPermitted,
    UsageError,
)
from sleap_rtc.files.hashing import hash_file
from sleap_rtc.library.importing.finding import Skipped
from sleap_rtc.library.importing.importer import Importer, Questions
from sleap_rtc.library.importing.wishes import Wishes
from sleap_rtc.library.registry import Registry

SHARED = Path(__file__).parents[4] / "shared" / "data" / "models"


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything below a folder, with what would tell of a change."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_ino, path.lstat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }


# ── by link ──────────────────────────────────────────────────────────────────


def test_a_folder_is_imported_by_links_and_left_alone(take_one, samples, disk, clock):
    folder = samples.folder(disk / "flies 2026", name="240613_flies")
    before = tree(disk)
    imported = take_one(folder)
    record, directory = imported.entry.record, imported.entry.directory
    assert tree(disk) == before
    assert not imported.known
    assert imported.entry.alias == "flies-2026"
    assert record.status == "imported"
    assert record.source == "local-import"
    assert record.downloaded_at == record.created_at == clock()
    assert (record.checkpoint, record.config) == ("best.ckpt", "training_config.yaml")
    assert record.skeleton == ("head", "tail")
    assert record.metrics.best_val_loss == 0.4
    assert record.metrics.epochs == 2
    assert record.training.engine == "sleap-nn"
    assert record.training.hyperparameters["learning_rate"] == 0.001
    for file in record.files:
        path = directory / file.path
        assert path.is_symlink()
        assert str(path.readlink()) == file.link == str(folder / file.path)
        _, hashes = hash_file(folder / file.path, as_path="x")
        assert hashes.blake3 == file.blake3
    assert safety_of(record).tier == "scanned"
    assert record.package is not None


def test_the_id_is_made_of_the_recipe_with_the_checkpoints_hash(take_one, samples, disk):
    folder = samples.folder(disk / "a", name="run-7")
    record = take_one(folder).entry.record
    _, hashes = hash_file(folder / "best.ckpt", as_path="x")
    made = recipe(
        model_type="centroid",
        backbone={"unet": {"filters": 16}},
        run_name="run-7",
        dataset_hash=hashes.blake3,
    )
    assert (record.id, record.full_hash) == (made.model_id, made.full_hash)
    assert record.canonical == made.canonical


def test_what_is_here_already_is_said_and_not_added(take_one, take_all, samples, disk, registry):
    first = take_one(samples.folder(disk / "a"))
    again = take_one(disk / "a")
    shutil.copytree(disk / "a", disk / "copy of a")
    elsewhere = take_one(disk / "copy of a", copy=True)
    alone = take_one(disk / "a" / "best.ckpt")
    assert [r.known for r in (first, again, elsewhere, alone)] == [False, True, True, True]
    assert {r.entry.id for r in (first, again, elsewhere, alone)} == {first.entry.id}
    assert len(registry.list().entries) == 1
    assert list(registry.incoming.iterdir()) == []


def test_what_was_deleted_may_come_back(take_one, samples, disk, registry):
    first = take_one(samples.folder(disk / "a"))
    registry.delete(first.entry.id)
    again = take_one(disk / "a")
    assert not again.known
    assert again.entry.id == first.entry.id
    assert (disk / "a" / "best.ckpt").exists()


def test_the_same_recipe_with_another_checkpoint_is_another_model(take_one, samples, disk):
    first = take_one(samples.folder(disk / "a", seed=1)).entry
    second = take_one(samples.folder(disk / "b", seed=2)).entry
    assert first.id != second.id
    assert second.alias == "b"


# ── by copy ──────────────────────────────────────────────────────────────────


def test_a_copy_stands_by_itself(take_one, samples, disk, registry):
    folder = samples.folder(disk / "a")
    (folder / "viz").mkdir()
    (folder / "viz" / "0.png").write_bytes(b"picture")
    entry = take_one(folder, copy=True).entry
    shutil.rmtree(folder)
    assert registry.checkpoint_path(entry.id).read_bytes()
    assert (entry.directory / "viz" / "0.png").read_bytes() == b"picture"
    assert all(file.link is None for file in entry.record.files)
    assert not any(path.is_symlink() for path in entry.directory.rglob("*"))


# ── our own models ───────────────────────────────────────────────────────────


def own(folder: Path, record_of, samples, **changes):
    """A model's directory as a worker's library has it."""
    samples.folder(folder)
    record = record_of("trained", status="completed", notes="good", tags=("fly",), **changes)
    (folder / "model.json").write_bytes(values.encode_pretty(record))
    return record


def test_a_model_that_we_trained_keeps_its_id(take_one, record_of, samples, disk):
    record = own(disk / "elsewhere", record_of, samples)
    found = take_one(disk / "elsewhere").entry.record
    assert (found.id, found.full_hash, found.canonical) == (
        record.id,
        record.full_hash,
        record.canonical,
    )
    assert (found.notes, found.tags, found.name) == ("good", ("fly",), "trained")
    assert (found.status, found.source) == ("imported", "local-import")
    assert "model.json" not in {file.path for file in found.files}


def test_a_whole_library_of_another_machine_is_imported(take_all, record_of, tmp_path, samples):
    with Registry(tmp_path / "theirs", index_dir=tmp_path / "their-index") as theirs:
        for number in range(3):
            folder = samples.folder(theirs.incoming / "made", seed=number + 1)
            listed = []
            for path in sorted(folder.iterdir()):
                entry, hashes = hash_file(path, as_path=path.name)
                listed.append((path.name, entry.size, hashes.blake3))
            files = tuple(ModelFile(path=p, size=s, blake3=b) for p, s, b in listed)
            theirs.place(folder, record_of(f"run {number}", status="completed", files=files))
        ids = {entry.id for entry in theirs.list().entries}
    results = take_all(tmp_path / "theirs", recursive=True)
    assert {result.entry.id for result in results} == ids


@pytest.mark.parametrize("change", [{"full_hash": "0" * 64}, {"canonical": "{}"}, {"id": "x"}])
def test_a_record_that_contradicts_itself_is_not_believed(
    take_one, record_of, samples, disk, change
):
    record = own(disk / "a", record_of, samples)
    plain = values.to_plain(record) | change
    (disk / "a" / "model.json").write_bytes(msgspec.json.encode(plain))
    found = take_one(disk / "a").entry.record
    assert found.notes == ""
    assert found.id != record.id


# ── several ──────────────────────────────────────────────────────────────────


def test_a_tree_is_imported_with_what_was_skipped_and_why(take_all, samples, disk):
    samples.folder(disk / "models" / "a", seed=1)
    samples.folder(disk / "models" / "deep" / "er" / "b", "centered_instance", seed=2)
    broken = samples.folder(disk / "models" / "broken", seed=3)
    (broken / "best.ckpt").write_bytes((broken / "best.ckpt").read_bytes()[:-40])
    empty = samples.folder(disk / "models" / "empty", seed=4)
    (empty / "best.ckpt").unlink()
    (disk / "models" / "notes").mkdir()
    (disk / "models" / "notes" / "todo.txt").write_text("x")
    results = take_all(disk / "models", recursive=True)
    by_name = {result.path.name: result for result in results}
    assert set(by_name) == {"a", "b", "broken", "empty"}
    assert by_name["b"].entry.record.model_type == "centered_instance"
    assert isinstance(by_name["broken"].error, Damaged)
    assert "no file of weights" in by_name["empty"].error.message
    again = take_all(disk / "models", disk / "models" / "a", recursive=True)
    assert [r.known for r in again if not isinstance(r, Skipped)] == [True, True]


def test_without_recursive_the_person_is_told_of_it(take_one, samples, disk):
    samples.folder(disk / "models" / "a")
    with pytest.raises(DataError, match="folders below it do") as caught:
        take_one(disk / "models")
    assert "--recursive" in caught.value.hint_text


def test_a_pair_gets_one_alias(take_all, samples, disk, registry):
    centered = samples.folder(disk / "x", "centered_instance", seed=1)
    centroid = samples.folder(disk / "y", "centroid", seed=2)
    results = take_all(centered, centroid, alias="fly")
    assert [result.wanted for result in results] == [None, None]
    assert registry.get_alias("fly").models == (results[1].entry.id, results[0].entry.id)


# ── names ────────────────────────────────────────────────────────────────────


def test_an_alias_that_is_taken_leaves_the_model_imported(take_one, samples, disk, registry):
    take_one(samples.folder(disk / "a", seed=1), alias="fly")
    second = take_one(samples.folder(disk / "b", seed=2), alias="fly")
    assert second.wanted == "fly"
    assert second.suggestions[0] == "fly-v2"
    assert registry.get(second.entry.id).alias is None


def test_a_folders_name_that_is_taken_gets_a_version(take_one, samples, disk):
    take_one(samples.folder(disk / "1" / "fly", seed=1))
    assert take_one(samples.folder(disk / "2" / "fly", seed=2)).entry.alias == "fly-v2"


NAMES = ["with space", "quo'te\"s", "emoji 🪰🐭", "new\nline", "n" * 240, "-rf", "a;b|c", "{}"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("copy", [False, True])
def test_names_of_all_kinds_are_imported(take_one, samples, disk, name, copy):
    folder = samples.folder(disk / name, checkpoint="best.ckpt")
    (folder / f"{name[:200]}.txt").write_text("notes")
    entry = take_one(folder, copy=copy).entry
    for file in entry.record.files:
        assert (entry.directory / file.path).is_file()
    assert len(entry.record.files) == 4


def test_a_name_that_is_no_text_is_left_out(take_one, samples, disk):
    folder = samples.folder(disk / "a")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.txt")).write_bytes(b"x")
    imported = take_one(folder)
    assert len(imported.entry.record.files) == 3
    assert any("not valid Unicode" in note for note in imported.notes)


# ── types ────────────────────────────────────────────────────────────────────


class Answers(Questions):
    def __init__(self, model_type: str | None = None, alias: str | None = None) -> None:
        self.asked: list[str] = []
        self._type, self._alias = model_type, alias

    def model_type(self, examined):
        self.asked.append("type")
        return self._type

    def alias(self, entry, proposed):
        self.asked.append(f"alias {proposed}")
        return self._alias


def test_a_type_that_nothing_tells_is_asked_for(take_one, samples, disk, registry):
    path = disk / "net.onnx"
    path.write_bytes(samples.onnx())
    with pytest.raises(UsageError, match="what type") as caught:
        take_one(path)
    assert "--type" in caught.value.hint_text
    assert list(registry.incoming.iterdir()) == []
    person = Answers("bottomup", "mine")
    entry = take_one(path, questions=person).entry
    assert person.asked == ["type", "alias net"]
    assert (entry.record.model_type, entry.alias) == ("bottomup", "mine")
    assert entry.record.full_hash is None
    assert entry.record.metrics.epochs is None


def test_a_given_type_wins(take_one, samples, disk):
    assert take_one(samples.folder(disk / "a"), model_type="bottomup").entry.record.model_type == (
        "bottomup"
    )


def test_without_a_configuration_the_same_content_is_found_again(take_one, samples, disk):
    for name in ("one.onnx", "two.onnx"):
        (disk / name).write_bytes(samples.onnx())
    first = take_one(disk / "one.onnx", model_type="centroid")
    second = take_one(disk / "two.onnx", model_type="centroid")
    assert second.known
    assert second.entry.id == first.entry.id


# ── archives ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("form", ["zip", "tar", "gztar", "bztar", "xztar"])
def test_an_archive_is_unpacked_into_the_library(take_one, samples, disk, registry, form):
    samples.folder(disk / "in" / "my model")
    path = Path(shutil.make_archive(str(disk / "archive"), form, disk / "in"))
    imported = take_one(path)
    path.unlink()
    assert imported.entry.alias == "my-model"
    assert registry.checkpoint_path(imported.entry.id).exists()
    assert not any(file.link for file in imported.entry.record.files)
    assert list(registry.incoming.iterdir()) == []
    assert take_one(disk / "in" / "my model").known


def test_an_archive_of_files_is_called_as_itself(take_one, samples, disk):
    samples.folder(disk / "in")
    path = Path(shutil.make_archive(str(disk / "Fly.v3"), "gztar", disk / "in"))
    assert take_one(path).entry.alias == "Fly.v3"


def test_several_models_in_an_archive(take_all, take_one, samples, disk, registry):
    for number in (1, 2):
        samples.folder(disk / "in" / f"m{number}", seed=number)
    path = Path(shutil.make_archive(str(disk / "both"), "zip", disk / "in"))
    with pytest.raises(DataError) as caught:
        take_one(path)
    assert str(registry.incoming) not in caught.value.message
    results = take_all(path, recursive=True)
    assert [result.entry.alias for result in results] == ["m1", "m2"]


def test_an_archive_without_a_model(take_one, disk, registry):
    with zipfile.ZipFile(disk / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(NotFound, match="no model in"):
        take_one(disk / "a.zip")
    assert list(registry.incoming.iterdir()) == []


# ── at once, and interrupted ─────────────────────────────────────────────────


@pytest.mark.parametrize("config", [True, False])
def test_two_imports_at_once_give_one_model(samples, disk, open_registry, config):
    folder = samples.folder(disk / "a")
    if not config:
        (folder / "training_config.yaml").unlink()
    results: list[object] = []
    barrier = threading.Barrier(4)

    def run(number: int) -> None:
        registry = open_registry(f"index{number}")
        barrier.wait()
        results.extend(Importer(registry, Wishes(model_type="centroid")).run([folder]))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.known for result in results) == [False, True, True, True]
    assert len({result.entry.id for result in results}) == 1


@pytest.mark.parametrize("copy", [False, True])
def test_an_interrupted_import_leaves_nothing(take_all, samples, disk, registry, copy):
    folder = samples.folder(disk / "a")

    def interrupt(stage, name, done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take_all(folder, copy=copy, progress=interrupt)
    assert registry.list().entries == ()
    assert list(registry.incoming.iterdir()) == []


@contextlib.contextmanager
def mounted(path: Path, options: str) -> Iterator[Path]:
    """A small file system of its own."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    try:
        failed = subprocess.run(command, capture_output=True, check=False).returncode
    except FileNotFoundError:
        failed = 1
    if failed:
        pytest.skip("this user can't mount a file system")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.mark.parametrize("copy", [False, True])
def test_a_read_only_library(samples, disk, tmp_path, copy):
    folder = samples.folder(disk / "a")
    with (
        mounted(tmp_path / "ro", "ro,size=1m") as place,
        Registry(place / "models", index_dir=tmp_path / "i") as registry,
    ):
        (result,) = Importer(registry, Wishes(copy=copy)).run([folder])
    assert isinstance(result.error, PathNotPermitted)
    assert "read-only" in result.error.message


@pytest.mark.parametrize("form", ["copy", "archive", "link"])
def test_a_full_disk_leaves_the_library_as_it_was(samples, disk, tmp_path, form):
    first = samples.folder(disk / "first", seed=1)
    second = samples.folder(disk / "second", seed=2)
    (second / "labels.slp").write_bytes(os.urandom(3 << 20))
    archive = Path(shutil.make_archive(str(disk / "second"), "zip", disk / "second"))
    with mounted(tmp_path / "small", "size=2m") as place:
        with Registry(place / "models", index_dir=tmp_path / "i") as registry:
            assert not isinstance(next(Importer(registry, Wishes(copy=True)).run([first])), Skipped)
            if form == "link":
                (place / "ballast").write_bytes(bytes(shutil.disk_usage(place).free))
            path = archive if form == "archive" else second
            try:
                (result,) = Importer(registry, Wishes(copy=form == "copy")).run([path])
                error = result.error
            except OutOfSpace as caught:
                error = caught
            assert isinstance(error, OutOfSpace)
            assert list((place / "models" / ".incoming").iterdir()) == []
        with Registry(place / "models", index_dir=tmp_path / "i2") as registry:
            assert [entry.alias for entry in registry.list().entries] == ["first"]


def test_a_file_system_without_links_says_what_to_do(take_all, samples, disk, monkeypatch):
    def refuse(self: Path, target: object, **_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    (result,) = take_all(samples.folder(disk / "a"))
    assert "--copy" in result.error.hint_text
    (result,) = take_all(disk / "a", copy=True)
    assert not result.known


def test_a_home_and_a_path_that_are_links(samples, disk, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "home").symlink_to("real")
    samples.folder(disk / "a")
    (tmp_path / "to disk").symlink_to(disk)
    with Registry(tmp_path / "home" / "models", index_dir=tmp_path / "i") as registry:
        (result,) = Importer(registry, Wishes()).run([tmp_path / "to disk" / "a"])
        assert registry.checkpoint_path(result.entry.id).exists()
        links = {file.link for file in result.entry.record.files}
        assert str(disk / "a" / "best.ckpt") in links
        (again,) = Importer(registry, Wishes()).run([disk / "a"])
    assert again.known


# ── folders of the library ───────────────────────────────────────────────────


def test_a_folder_of_the_library_without_a_record_is_adopted(take_one, samples, registry):
    registry.incoming.mkdir(exist_ok=True)
    folder = samples.folder(registry.models_dir / "centroid_0123abcd")
    imported = take_one(folder)
    assert imported.way == "adopt"
    assert imported.entry.id == "0123abcd"
    assert imported.entry.directory == folder
    assert not any(file.link for file in imported.entry.record.files)
    with pytest.raises(UsageError, match="already"):
        take_one(folder)


# ── real models ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["centroid", "centered_instance"])
def test_a_real_model_is_imported(take_one, registry, name):
    folder = SHARED / f"minimal_instance_{name}"
    if not folder.exists():
        pytest.skip("the real recordings are not beside this checkout")
    record = take_one(folder).entry.record
    assert record.model_type == name
    assert record.skeleton == ("A", "B")
    assert record.training.engine == "sleap-nn"
    assert record.metrics.best_val_loss < 1e-4
    assert safety_of(record).tier == "scanned"
    assert record.completed_at < datetime.now(UTC)


def test_a_model_of_sleap_1_3_is_imported(take_one, samples, disk):
    pytest.importorskip("h5py", reason="h5py is not installed")
    folder = disk / "240613_143522.centroid.n=100"
    folder.mkdir()
    samples.hdf5(folder / "best_model.h5")
    heads = {"centroid": {"anchor_part": None}, "single_instance": None}
    profile = {
        "data": {"labels": {"skeletons": []}},
        "model": {"backbone": {"unet": {"filters": 16}}, "heads": heads},
        "optimization": {"epochs": 200, "initial_learning_rate": 1e-4},
        "outputs": {"run_name": "centroid"},
        "sleap_version": "1.3.3",
    }
    (folder / "training_config.json").write_bytes(msgspec.json.encode(profile))
    (folder / "training_log.csv").write_text("epoch,loss,lr,val_loss\n0,0.5,1,0.4\n1,0.3,1,0.2\n")
    record = take_one(folder).entry.record
    assert record.model_type == "centroid"
    assert record.checkpoint == "best_model.h5"
    assert (record.training.engine, record.training.engine_version) == ("sleap", "1.3.3")
    assert record.metrics.best_val_loss == 0.2
    assert safety_of(record).tier == "safe"


def test_a_folder_with_one_link_into_the_library_is_imported(take_one, samples, disk):
    first = take_one(samples.folder(disk / "fly"), copy=True).entry
    mixed = samples.folder(disk / "mixed")
    (mixed / "a_first.txt").symlink_to(first.directory / "best.ckpt")
    entry = take_one(mixed).entry
    assert entry.id != first.id
    assert {Path(file.link).parent for file in entry.record.files} >= {mixed.resolve()}


def test_the_folder_of_a_deleted_model_is_imported_again(take_one, samples, disk, registry):
    entry = take_one(samples.folder(disk / "fly"), copy=True).entry
    with pytest.raises(UsageError, match="in the library already"):
        take_one(entry.directory)
    registry.delete(entry.id, files=False)
    back = take_one(entry.directory).entry
    assert (back.id, back.directory) == (entry.id, entry.directory)
    assert back.record.files == entry.record.files
    assert registry.checkpoint_path(back.id).is_file()


@pytest.mark.parametrize("copy", [False, True])
def test_a_folder_that_moved_mends_its_model(take_one, samples, disk, registry, copy):
    first = take_one(samples.folder(disk / "fly"))
    registry.update(first.entry.id, lambda old: msgspec.structs.replace(old, status="missing"))
    (disk / "fly").rename(disk / "moved")
    again = take_one(disk / "moved", copy=copy)
    files = first.entry.record.files
    assert (again.known, again.entry.id, again.mended) == (True, first.entry.id, len(files))
    assert again.entry.record.status == "imported"
    checkpoint = registry.checkpoint_path(again.entry.id)
    assert checkpoint.is_symlink() == (not copy)
    assert (disk / "moved" / "best.ckpt").read_bytes() == checkpoint.read_bytes()
    assert take_one(disk / "moved", copy=copy).mended == 0


def test_copies_that_are_asked_for_take_the_place_of_links(take_one, samples, disk, registry):
    first = take_one(samples.folder(disk / "fly"))
    again = take_one(disk / "fly", copy=True)
    assert (again.known, again.mended) == (True, len(first.entry.record.files))
    content = (disk / "fly" / "best.ckpt").read_bytes()
    shutil.rmtree(disk / "fly")
    assert registry.checkpoint_path(first.entry.id).read_bytes() == content
    assert all(file.link is None for file in again.entry.record.files)


def test_a_file_of_somebody_in_a_links_place_is_left_alone(take_one, samples, disk, registry):
    first = take_one(samples.folder(disk / "fly"))
    mine = first.entry.directory / "best.ckpt"
    mine.unlink()
    mine.write_text("mine")
    again = take_one(disk / "fly")
    assert (again.known, again.mended) == (True, 0)
    assert mine.read_text() == "mine"
