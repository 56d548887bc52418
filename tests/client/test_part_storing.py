"""What a job brings is stored, and that is remembered."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sleap_rtc.client import part_storing, storing
from sleap_rtc.client.composing import new_job_id
from sleap_rtc.client.part_storing import store_again, store_part
from sleap_rtc.client.parts import Part, files_of
from sleap_rtc.client.storing import Stored
from sleap_rtc.client.transfers import Transfers
from sleap_rtc.config import Settings, load
from sleap_rtc.domain.packages import ref
from sleap_rtc.errors import Cancelled, NotFound, Offline, SourceChanged, StorageUnreachable
from sleap_rtc.files.packing import pack
from sleap_rtc.jobs.spec import JobSpec, ModelRef, TrackSpec
from sleap_rtc.transfer.progress import Progress


class Storage:
    """Stands for the room's storage: what is stored there is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fails: Exception | None = None
        self.stored: list[str] = []
        monkeypatch.setattr(storing, "store_files", self._store_files)
        monkeypatch.setattr(part_storing, "RoomStorage", lambda *_: self)

    def open(self) -> Storage:
        return self

    def close(self) -> None:
        pass

    def _store_files(self, _store, _packed, files, *, on_progress, **_) -> Stored:
        on_progress("v.mp4", Progress(phase="storing", done=3, total=8, rate=0.0))
        if self.fails is not None:
            raise self.fails
        self.stored = [file.name for file in files]
        return Stored(keys={}, sent=8, there=0)


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Storage:
    return Storage(monkeypatch)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "v.mp4"
    path.write_bytes(b"pictures")
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load({"home": tmp_path / "home"})


class Store:
    """Stores one part of a job."""

    def __init__(self, storage: Storage, settings: Settings, video: Path) -> None:
        packed = pack({"videos/0/v.mp4": video})
        self.part = Part(packed=packed, files=files_of(packed))
        work = TrackSpec(
            models=(ModelRef(id="0a1b2c3d", package="e" * 64),), videos=("videos/0/v.mp4",)
        )
        inputs = ref(packed.package)
        self.spec = JobSpec(
            id=new_job_id(), engine="tiny", work=work, inputs=inputs, room="a" * 32, name="v.mp4"
        )
        self.storage, self.settings = storage, settings
        self.transfers = Transfers(settings.home / "transfers")

    def __call__(self, *, replaced: bool = False, **changes: Any) -> Stored:
        given = {"spec": self.spec, "settings": self.settings, "replaced": replaced} | changes
        return store_part(self.storage, self.part, self.part.files, **given)

    def again(self, **changes: Any) -> Stored:
        settings = SimpleNamespace(
            offline=changes.get("offline", False),
            home=self.settings.home,
            **{
                name: getattr(self.settings, name)
                for name in ("max_concurrent_parts", "multipart_chunk_size", "limit_rate")
            },
        )
        room = SimpleNamespace(server="https://lab.example")
        client = SimpleNamespace(
            settings=settings,
            transfers=self.transfers,
            devices=SimpleNamespace(room=lambda _: room),
            cache=None,
        )
        [transfer] = self.transfers.all()
        return store_again(client, transfer)


@pytest.fixture
def store(storage: Storage, settings: Settings, video: Path) -> Store:
    return Store(storage, settings, video)


def test_what_is_stored_is_remembered_as_done(store: Store) -> None:
    assert store().sent == 8
    [kept] = store.transfers.all()
    assert (kept.direction, kept.state, kept.label, kept.model) == ("store", "done", "v.mp4", "")


def test_a_model_of_a_job_is_called_by_its_id(store: Store) -> None:
    brought = ModelRef(id="0a1b2c3d", package=store.part.packed.package.id)
    work = TrackSpec(models=(brought,), videos=("videos/0/v.mp4",))
    spec = JobSpec(
        id=new_job_id(), engine="tiny", work=work, inputs=store.spec.inputs, room="a" * 32
    )
    store(spec=spec)
    [kept] = store.transfers.all()
    assert (kept.label, kept.model) == ("0a1b2c3d", "0a1b2c3d")


@pytest.mark.parametrize(
    ("error", "replaced", "state"),
    [
        (StorageUnreachable(store="there", why="it broke"), False, "cut"),
        (StorageUnreachable(store="there", why="it broke"), True, "cancelled"),
        (Cancelled(what="It"), True, "cut"),
        (KeyboardInterrupt(), True, "cut"),
    ],
)
def test_what_was_cut_is_remembered_unless_another_way_is_taken(
    store: Store, error: BaseException, replaced: bool, state: str
) -> None:
    store.storage.fails = error  # type: ignore[assignment]
    with pytest.raises(type(error)):
        store(replaced=replaced)
    [kept] = store.transfers.all()
    assert (kept.state, kept.done) == (state, 3)


def test_it_goes_on_from_what_is_remembered(store: Store, video: Path) -> None:
    store.storage.fails = StorageUnreachable(store="there", why="it broke")
    with pytest.raises(StorageUnreachable):
        store()
    store.storage.fails = None
    with pytest.raises(Offline, match=r"https://lab\.example is not asked"):
        store.again(offline=True)
    content = video.read_bytes()
    video.write_bytes(b"others")
    with pytest.raises(SourceChanged, match=r"v\.mp4"):
        store.again()
    video.unlink()
    with pytest.raises(NotFound):
        store.again()
    assert store.storage.stored == []
    video.write_bytes(content)
    assert store.again().sent == 8
    [kept] = store.transfers.all()
    assert (kept.state, kept.attempts) == ("done", 2)
    assert store.storage.stored == ["videos/0/v.mp4"]
