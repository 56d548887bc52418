"""Bringing single files from a worker: two real libraries, and no network between them."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from blake3 import blake3

from sleap_rtc.client.asking import WorkerLibrary
from sleap_rtc.client.mending import fetch_missing
from sleap_rtc.domain.ids import recipe
from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.domain.packages import ref
from sleap_rtc.errors import DataError, UnknownModel
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.packing import pack
from sleap_rtc.library.registry import Registry
from sleap_rtc.library.repair import examine
from sleap_rtc.protocol.library import LibraryChanged, PartTold, WantPart
from sleap_rtc.transports.local import LocalSource
from sleap_rtc.worker.library_answers import LibraryAnswers


class Lab:
    def __init__(self, root, record_of, files_in) -> None:
        self.root, self.record_of, self.files_in = root, record_of, files_in
        self.cache = HashCache(root / "hashes")
        self.mine = Registry(root / "mine" / "models", index_dir=root / "mine" / "index")
        self.theirs = Registry(root / "theirs" / "models", index_dir=root / "theirs" / "index")
        self.answers = LibraryAnswers(self.theirs, cache=self.cache)
        self.library = WorkerLibrary("gpu-1")
        self.library.link = self
        self.sent: list[str] = []
        self.lie = lambda packed: packed

    async def request(self, body, *, within_s=0):
        if not isinstance(body, WantPart):
            return self.answers.answer(body)
        packed = self.lie(self.answers.part(body).packed)
        self.sent += [file.path for file in packed.package.files]
        for source in tuple(self.library.sources.current.values()):
            self.library.sources.remove(source)
        self.library.sources.add(LocalSource(packed, name="gpu-1"))
        return PartTold(package=ref(packed.package))

    def want_blocks(self) -> None:
        pass

    def put(self, registry, name="run", package=None, **contents):
        folder = registry.incoming / name
        files = self.files_in(folder, **contents)
        made = pack({file.path: folder / file.path for file in files}).package.id
        record = self.record_of(
            name, status="completed", files=files, package=package or made, of=name
        )
        return registry.place(folder, record)

    async def mend(self, entry):
        entry = self.mine.get(entry.id)
        faults = examine(entry, self.cache)
        return await fetch_missing(self.library, self.mine, entry, faults)


@pytest.fixture
def lab(tmp_path, record_of, files_in):
    made = Lab(tmp_path, record_of, files_in)
    with made.mine, made.theirs:
        yield made


@pytest.fixture
def record_of():
    def make(name, *, of, **changes):
        made = recipe(model_type="centroid", backbone={}, run_name=name, dataset_hash=of)
        return ModelRecord(
            id=made.model_id,
            name=name,
            model_type="centroid",
            source="worker-training",
            created_at=datetime(2026, 3, 1, tzinfo=UTC),
            full_hash=made.full_hash,
            **changes,
        )

    return make


@pytest.fixture
def files_in():
    def write(folder, **contents):
        listed = []
        for name, text in contents.items():
            path = name.replace("__", "/").replace("_ckpt", ".ckpt")
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
            digest = blake3(text.encode()).hexdigest()
            listed.append(ModelFile(path=path, size=len(text), blake3=digest))
        return tuple(listed)

    return write


async def test_only_what_is_missing_travels(lab) -> None:
    lab.put(lab.theirs, best_ckpt="weights", logs__log="epoch", config="c: 1")
    entry = lab.put(lab.mine, best_ckpt="weights", logs__log="epoch", config="c: 1")
    (entry.directory / "logs" / "log").unlink()
    (entry.directory / "config").write_text("C: 1")
    assert sorted(await lab.mend(entry)) == ["config", "logs/log"]
    assert lab.sent == ["config", "logs/log"]
    assert examine(entry, lab.cache) == ()
    assert list(lab.mine.incoming.iterdir()) == []


async def test_one_content_in_two_places(lab) -> None:
    contents = {"a": "same", "b": "same", "c": "other"}
    lab.put(lab.theirs, **contents)
    entry = lab.put(lab.mine, **contents)
    (entry.directory / "a").unlink()
    (entry.directory / "b").write_text("SAME")
    assert sorted(await lab.mend(entry)) == ["a", "b"]
    assert len(lab.sent) == 1
    assert examine(entry, lab.cache) == ()


async def test_the_same_content_under_another_id(lab) -> None:
    lab.put(lab.theirs, "theirs", best_ckpt="weights")
    entry = lab.put(lab.mine, "mine", best_ckpt="weights")
    (entry.directory / "best.ckpt").unlink()
    assert await lab.mend(entry) == ("best.ckpt",)


async def test_a_worker_that_has_none_of_it(lab) -> None:
    entry = lab.put(lab.mine, best_ckpt="weights")
    (entry.directory / "best.ckpt").unlink()
    with pytest.raises(UnknownModel):
        await lab.mend(entry)
    there = lab.put(lab.theirs, best_ckpt="weights")
    (there.directory / "best.ckpt").write_text("WEIGHTS")
    lab.library.noticed(LibraryChanged())
    assert await lab.mend(entry) == ()
    assert not (entry.directory / "best.ckpt").exists()


async def test_a_worker_that_sends_other_content(lab) -> None:
    lab.put(lab.theirs, best_ckpt="weights")
    entry = lab.put(lab.mine, best_ckpt="weights")
    (entry.directory / "best.ckpt").unlink()
    evil = lab.root / "evil"
    lab.files_in(evil, best_ckpt="WEIGHTS")
    lab.lie = lambda _: pack({"best.ckpt": evil / "best.ckpt"})
    assert await lab.mend(entry) == ()
    assert not (entry.directory / "best.ckpt").exists()

    # Other content than the package that it announced is noticed block by block.
    def changed(packed):
        fake = pack({"best.ckpt": evil / "best.ckpt"})
        return msgspec.structs.replace(packed, sources=fake.sources, root=None)

    lab.lie = changed
    with pytest.raises(DataError):
        await lab.mend(entry)
    assert not (entry.directory / "best.ckpt").exists()
