"""Every operation, killed before each of its changes, and with the power cut after each.

Then the library opens with the old or the new state, its files are whole, and
the operation can be done again.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3
from msgspec.structs import replace

from sleap_rtc.domain.models import Metrics, ModelRecord, Training
from sleap_rtc.errors import NotFound
from sleap_rtc.library import bulk, christening, manifest, placing, portable
from sleap_rtc.library.finder import Unreadable
from sleap_rtc.library.registry import Registry
from sleap_rtc.testing.disk import Killed, Loses, WatchedDisk

pytestmark = pytest.mark.slow

RecordOf = Callable[..., ModelRecord]


class State(msgspec.Struct, frozen=True):
    """What a reader sees."""

    models: dict[str, tuple[ModelRecord, str | None]]
    names: dict[str, tuple[str, ...]]
    manifest: tuple[str, ...] | None


class Library:
    """A library in a folder that is copied for each turn."""

    def __init__(self, tmp_path: Path, clock: Any, record_of: RecordOf, files_in: Any) -> None:
        self.template = tmp_path / "template"
        self.record_of = record_of
        self.files_in = files_in
        self._tmp = tmp_path
        self._clock = clock
        self._turns = 0

    @contextlib.contextmanager
    def opened(self, root: Path) -> Iterator[Registry]:
        registry = Registry(root / "models", clock=self._clock, index_dir=self._tmp / "index")
        try:
            yield registry
        finally:
            registry._index.close()  # without the manifest: it is a change of its own

    def fill(self) -> None:
        """Models a (placed, called fly), b (in training), c (deleted) and f (interrupted)."""
        with self.opened(self.template) as registry:
            a = registry.place(*self.staged(registry, "a"))
            registry.set_alias("fly", a.id)
            registry.register(self.record_of("b", training=Training(job="job")))
            registry.mark_interrupted(registry.register(self.record_of("f")).id, None, 3)
            registry.delete(registry.place(*self.staged(registry, "c")).id)
            self.staged(registry, "b")
            self.staged(registry, "d")
            self.staged(registry, "c")
            self.put(registry.models_dir / self.record_of("e").directory, "e")

    def staged(self, registry: Registry, name: str) -> tuple[Path, ModelRecord]:
        """A folder to be placed, as whoever received it leaves it: synced."""
        folder = registry.incoming / f"staged-{name}"
        return folder, self.put(folder, name)

    def put(self, folder: Path, name: str) -> ModelRecord:
        """A model's files, synced, and its record."""
        files = self.files_in(folder, best_ckpt=f"weights {name}", sub__config="c")
        for path in (*folder.rglob("*"), folder, folder.parent):
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
        return self.record_of(name, status="completed", files=files, checkpoint="best.ckpt")

    def id_of(self, name: str) -> str:
        return self.record_of(name).id

    def folder(self) -> Path:
        self._turns += 1
        folder = self._tmp / f"turn-{self._turns}"
        folder.mkdir()
        return folder

    def copy(self) -> Path:
        folder = self.folder()
        shutil.copytree(self.template, folder, symlinks=True, dirs_exist_ok=True)
        return folder

    def state(self, root: Path) -> State:
        """What is there for a reader; all of it is whole."""
        models = {}
        with self.opened(root) as registry:
            for entry in registry.walk():
                assert not isinstance(entry, Unreadable), entry
                if entry.record.status != "missing":
                    placing.check_files(entry.directory, entry.record, links=True)
                    for file in entry.record.files:
                        data = (entry.directory / file.path).read_bytes()
                        assert blake3(data).hexdigest() == file.blake3
                models[str(entry.id)] = entry.record, entry.alias
            names = {
                alias.name: tuple(map(str, alias.models))
                for alias in registry.list_aliases()
                if all(registry.exists(model) for model in alias.models)
            }
        path = root / "models" / "manifest.json"
        kept = tuple(manifest.read(path).models) if path.exists() else None
        return State(models=models, names=names, manifest=kept)


@pytest.fixture
def library(tmp_path: Path, clock: Any, record_of: RecordOf, files_in: Any) -> Library:
    made = Library(tmp_path, clock, record_of, files_in)
    made.fill()
    return made


def register(library: Library, registry: Registry) -> object:
    return registry.register(library.record_of("new", training=Training(job="new")))


def place(library: Library, registry: Registry) -> object:
    return registry.place(*_staged(library, registry, "d"))


def bring_back(library: Library, registry: Registry) -> object:
    return registry.place(*_staged(library, registry, "c"))


def adopt_files(library: Library, registry: Registry) -> object:
    return registry.adopt_files(library.id_of("b"), *_staged(library, registry, "b"))


def settle(library: Library, registry: Registry) -> object:
    return registry.settle(library.put(library.folder(), "e"))


def update(library: Library, registry: Registry) -> object:
    return registry.update("fly", lambda old: replace(old, notes="x", tags=("y",)))


def mark_training(library: Library, registry: Registry) -> object:
    return registry.mark_training(library.id_of("f"))


def mark_completed(library: Library, registry: Registry) -> object:
    return registry.mark_completed(library.id_of("b"), Metrics(epochs=3))


def mark_interrupted(library: Library, registry: Registry) -> object:
    return registry.mark_interrupted(library.id_of("b"), None, 3)


def mark_failed(library: Library, registry: Registry) -> object:
    return registry.mark_failed(library.id_of("b"), "no memory")


def set_alias(library: Library, registry: Registry) -> object:
    return registry.set_alias("bee", library.id_of("b"))


def rename_alias(library: Library, registry: Registry) -> object:
    return registry.set_alias("wasp", library.id_of("a"))


def move_alias(library: Library, registry: Registry) -> object:
    return registry.set_alias("fly", library.id_of("b"), force=True)


def remove_alias(library: Library, registry: Registry) -> object:
    return registry.remove_alias("fly")


def delete(library: Library, registry: Registry) -> object:
    return registry.delete(library.id_of("a"))


def delete_record(library: Library, registry: Registry) -> object:
    return registry.delete(library.id_of("a"), files=False)


def sweep(library: Library, registry: Registry) -> object:
    library._clock.go_on(days=31)
    try:
        return registry.sweep()
    finally:
        library._clock.go_on(days=-31)


def write_manifest(library: Library, registry: Registry) -> object:
    return registry.write_manifest()


def import_registry(library: Library, registry: Registry, names: str = "x") -> object:
    records = [library.record_of(name) for name in ("x", "y")]
    raw = {record.id: manifest.values.to_plain(record) for record in records}
    document = {"version": "2.0", "models": raw, "aliases": {}}
    document["aliases"] = {f"e{r.name}": r.id for r in records if r.name in names}
    contents = manifest.parse(msgspec.json.encode(document), what="m.json")
    return portable.take_in(registry, contents, source="m.json")


def import_together(library: Library, registry: Registry) -> object:
    """As many models are taken in and named: with one sync for all of them."""

    def sync(fd: int) -> bool:
        # What the system does by itself is not watched; the same, one by one, is.
        folder = Path(f"/proc/self/fd/{fd}").readlink()
        for below, _, names in os.walk(folder, topdown=False):
            for path in (*(Path(below, name) for name in names), Path(below)):
                _sync(path)
        return True

    def sync_names(fd: int) -> bool:
        for hint in registry.models_dir.glob("*/.record/alias-e?"):
            _sync(hint.parent)
        return sync(fd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "sync_file_system", sync)
        patch.setattr(bulk, "TOGETHER", 2)
        patch.setattr(christening, "sync_file_system", sync_names)
        patch.setattr(christening, "TOGETHER", 2)
        return import_registry(library, registry, "xy")


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _staged(library: Library, registry: Registry, name: str) -> tuple[Path, ModelRecord]:
    """What was staged beforehand, or is gone since it was placed; and its record."""
    folder = registry.models_dir / ".incoming" / f"staged-{name}"
    return folder, library.put(library.folder(), name)


# How many states a reader may see, the old and the new one among them.
OPERATIONS = [
    (register, 2),
    (place, 2),
    (bring_back, 2),
    (adopt_files, 2),
    (settle, 2),
    (update, 2),
    (mark_training, 2),
    (mark_completed, 2),
    (mark_interrupted, 2),
    (mark_failed, 2),
    (set_alias, 2),
    (rename_alias, 3),  # the new name is there before the old one goes
    (move_alias, 2),
    (remove_alias, 2),
    (delete, 2),
    (delete_record, 2),
    (sweep, 1),
    (write_manifest, 2),
    (import_registry, 4),
    (import_together, 5),
]
by_name = pytest.mark.parametrize(
    ("operation", "states"), OPERATIONS, ids=[operation.__name__ for operation, _ in OPERATIONS]
)


@by_name
def test_a_kill_before_any_change(library: Library, operation: Any, states: int) -> None:
    seen = [library.state(library.template)]
    number, finished = 0, False
    while not finished:
        root = library.copy()
        with (
            library.opened(root) as registry,
            WatchedDisk(root, kill_at=number),
            contextlib.suppress(Killed),
        ):
            operation(library, registry)
            finished = True
        state = library.state(root)
        if state != seen[-1]:
            assert state not in seen, f"before change {number} an older state came back"
            seen.append(state)
        with library.opened(root) as registry, contextlib.suppress(NotFound):
            operation(library, registry)
        again = library.state(root)
        if not finished:
            last = again
            shutil.rmtree(root)
        number += 1
    assert len(seen) == states
    assert last == seen[-1] == library.state(root), "done again, it ends elsewhere"


@by_name
@pytest.mark.parametrize("loses", ["unsynced", "data"])
def test_a_power_cut_after_any_change(
    library: Library, operation: Any, states: int, loses: Loses
) -> None:
    root = library.copy()
    with library.opened(root) as registry, WatchedDisk(root) as disk:
        operation(library, registry)
    allowed = [library.state(library.template)]
    for number in range(len(disk.changes) + 1):
        found = library.folder()
        disk.after_power_cut(number, found, loses=loses)
        state = library.state(found)
        if state not in allowed:
            allowed.append(state)
        with library.opened(found) as registry, contextlib.suppress(NotFound):
            operation(library, registry)
        assert library.state(found) == library.state(root)
        shutil.rmtree(found)
    assert len(allowed) <= states
    assert allowed[-1] == library.state(root), "it was done, and is lost"
