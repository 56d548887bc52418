"""Two processes at one model: at every step of the one, the other does all of its work."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.errors import NotFound
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.library import restoring
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.registry import Registry
from sleap_rtc.testing.disk import WatchedDisk

pytestmark = pytest.mark.slow

RecordOf = Callable[..., ModelRecord]
WEIGHTS = "weights of the model"


class Meeting(WatchedDisk):
    """Before the n-th change of what it watches, somebody else does something."""

    def __init__(self, root: Path, at: int, other: Callable[[], object]) -> None:
        super().__init__(root)
        self.met = False
        self._at, self._other = at, other

    def _alive(self) -> None:
        if not self.met and len(self.changes) >= self._at:
            self.met = True
            self._other()


class Scene:
    """A library with one model, which two registries share as two processes would."""

    def __init__(self, root: Path, clock: Any, record_of: RecordOf, files_in: Any) -> None:
        self.root = root
        self.record_of, self.files_in = record_of, files_in
        self.one = Registry(root / "models", clock=clock, index_dir=root.parent / "one")
        self.other = Registry(root / "models", clock=clock, index_dir=root.parent / "other")
        self.model = self.bring(self.one).id

    def bring(self, registry: Registry) -> Entry:
        """Import it, for the first time or once more."""
        folder = registry.claims.new_folder()
        files = self.files_in(folder, best_ckpt=WEIGHTS, sub__config="c")
        record = self.record_of(status="completed", files=files, checkpoint="best.ckpt")
        return registry.place(folder, record)

    def delete(self, registry: Registry) -> None:
        with contextlib.suppress(NotFound):
            registry.delete(self.model)

    def check(self) -> Entry | None:
        """It is there as a whole, or deleted; and its files are somewhere."""
        self.other.sweep()  # finishes what it takes for unfinished
        copies = [p for p in self.root.rglob("best.ckpt") if p.read_text() == WEIGHTS]
        assert copies
        try:
            entry = self.other.get(self.model)
        except NotFound:
            return None
        for file in entry.record.files:
            data = (entry.directory / file.path).read_bytes()
            assert blake3(data).hexdigest() == file.blake3, file.path
        return entry

    def close(self) -> None:
        for registry in (self.one, self.other):
            registry._index.close()


@pytest.fixture
def scenes(
    tmp_path: Path, clock: Any, record_of: RecordOf, files_in: Any
) -> Iterator[Callable[[], Scene]]:
    made: list[Scene] = []

    def make() -> Scene:
        root = tmp_path / f"scene-{len(made)}" / "home"
        root.mkdir(parents=True)
        made.append(Scene(root, clock, record_of, files_in))
        return made[-1]

    yield make
    for scene in made:
        scene.close()


def test_a_model_that_is_imported_again_while_it_is_deleted_keeps_its_new_files(
    scenes: Callable[[], Scene],
) -> None:
    met, at = True, 0
    came_back = 0
    while met:
        scene = scenes()
        scene.one.set_alias("fly", scene.model)
        placed: list[tuple[Entry, bool]] = []

        def again(scene: Scene = scene, placed: list[Any] = placed) -> None:
            before = scene.one.known(scene.model, "centroid")
            deleted = before is not None and before.deleted_at is not None
            placed.append((scene.bring(scene.other), deleted))
            scene.other.set_alias("fly", scene.model)

        with Meeting(scene.root, at, again) as disk:
            scene.delete(scene.one)
        met = disk.met
        entry = scene.check()
        if placed and placed[0][1]:
            assert entry is not None, f"what was imported at step {at} is gone"
            assert entry.record.deleted_at is None
            came_back += 1
        at += 1
    assert came_back > 3


def test_a_model_that_is_deleted_while_it_is_imported_again_is_whole_or_deleted(
    scenes: Callable[[], Scene],
) -> None:
    met, at = True, 0
    while met:
        scene = scenes()
        scene.delete(scene.one)
        with Meeting(scene.root, at, functools.partial(scene.delete, scene.other)) as disk:
            scene.bring(scene.one)
        met = disk.met
        scene.check()
        at += 1
    assert at > 5


@pytest.mark.parametrize("overdue", [False, True])
def test_a_model_that_is_brought_back_while_others_work_is_whole_or_gone(
    scenes: Callable[[], Scene], clock: Any, tmp_path: Path, overdue: bool
) -> None:
    cache = HashCache(tmp_path / "hashes")
    met, at, back = True, 0, 0
    while met:
        scene = scenes()
        scene.delete(scene.one)
        (one,) = restoring.find(scene.one, scene.model)
        if overdue:
            clock.go_on(days=31)
            other: Callable[[], object] = scene.other.sweep
        else:
            other = functools.partial(scene.bring, scene.other)
        with (
            Meeting(scene.root, at, other) as disk,
            contextlib.suppress(NotFound),  # which says that it is gone, or there already
        ):
            restoring.restore(scene.one, one, cache)
            back += 1
        met = disk.met
        if overdue:
            try:
                entry = scene.other.get(scene.model)
            except NotFound:
                pass
            else:
                for file in entry.record.files:
                    assert (entry.directory / file.path).stat().st_size == file.size
        else:
            assert scene.check() is not None
        at += 1
    assert back > 0
    assert at > 5


def test_who_sweeps_while_a_model_comes_back_takes_nothing_of_it(
    scenes: Callable[[], Scene],
) -> None:
    met, at = True, 0
    while met:
        scene = scenes()
        scene.delete(scene.one)
        with Meeting(scene.root, at, lambda scene=scene: scene.other.sweep()) as disk:
            scene.bring(scene.one)
        met = disk.met
        assert scene.check() is not None
        at += 1
    assert at > 5
