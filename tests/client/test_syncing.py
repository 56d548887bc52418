"""Comparing libraries: two real ones, and the worker's own answers, without a network between."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from msgspec.structs import replace

from sleap_rtc.client.asking import WorkerLibrary
from sleap_rtc.client.bringing import expect_model
from sleap_rtc.client.syncing import SEEN_EVERY, Synced, known_workers, sync_worker
from sleap_rtc.domain.models import Location, Metrics, ModelFile, ModelRecord
from sleap_rtc.errors import LinkLost, UnknownModel
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.library import AskModel
from sleap_rtc.worker.library_answers import LibraryAnswers

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Side:
    """A library, and how models come into it."""

    def __init__(self, root: Path) -> None:
        self.registry = Registry(root / "models", index_dir=root / "index")
        self.cache = HashCache(root / "hashes")

    def put(self, number: int, content: str | None = "", **changes: Any) -> ModelRecord:
        given = {
            "id": f"{number:08x}",
            "name": f"run {number}",
            "model_type": "centroid",
            "status": "completed",
            "source": "worker-training",
            "created_at": NOW - timedelta(days=number),
        } | changes
        if content is None:
            return self.registry.register(ModelRecord(**given)).record
        content = content or f"weights {number}"
        folder = self.registry.incoming / f"put-{number}"
        folder.mkdir()
        (folder / "best.ckpt").write_text(content)
        digest = blake3(content.encode()).hexdigest()
        files = (ModelFile(path="best.ckpt", size=len(content), blake3=digest),)
        record = ModelRecord(files=files, package=blake3(digest.encode()).hexdigest(), **given)
        return self.registry.place(folder, record).record

    def get(self, name: str) -> ModelRecord:
        return self.registry.get(name).record


class Link:
    """Straight to what the worker answers."""

    def __init__(self, worker: Side) -> None:
        self.answers = LibraryAnswers(worker.registry, cache=worker.cache)
        self.asked: list[Any] = []
        self.fails: dict[str, Exception] = {}

    async def request(self, body: Any, *, within_s: float = 0) -> Any:
        self.asked.append(body)
        if isinstance(body, AskModel) and body.name in self.fails:
            raise self.fails[body.name]
        return self.answers.answer(body)

    def want_blocks(self) -> None:
        pass


class Lab:
    def __init__(self, root: Path) -> None:
        self.mine, self.theirs = Side(root / "mine"), Side(root / "theirs")
        self.link = Link(self.theirs)

    async def sync(self, *, now: datetime = NOW) -> Synced:
        library = WorkerLibrary("gpu-1")
        library.link = self.link
        self.link.asked.clear()
        return await sync_worker(library, self.mine.registry, now=now)

    def at(self, model: str) -> list[tuple[str, str]]:
        return [(at.name, at.path) for at in self.mine.get(model).locations]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    with made.mine.registry, made.theirs.registry:
        yield made


def kinds(synced: Synced) -> list[tuple[str, str]]:
    return [(step.kind, step.model) for step in synced.steps]


async def test_what_both_have_is_said_to_be_there(lab) -> None:
    lab.theirs.put(1)
    lab.mine.put(1, notes="mine")
    first = await lab.sync()
    assert kinds(first) == [("updated", "00000001")]
    there = str(lab.theirs.registry.models_dir / "centroid_00000001")
    assert lab.at("00000001") == [("gpu-1", there)]
    assert lab.mine.get("00000001").notes == "mine"
    assert len(lab.link.asked) == 1  # the list said everything
    # Again it is nothing new, and nothing is written; later it is seen again.
    before = lab.mine.get("00000001")
    assert (await lab.sync(now=NOW + SEEN_EVERY / 2)).same == 1
    assert lab.mine.get("00000001") == before
    later = NOW + SEEN_EVERY
    again = await lab.sync(now=later)
    assert (again.steps, again.same) == ((), 1)
    assert lab.mine.get("00000001").locations[0].last_seen == later
    assert known_workers(lab.mine.registry) == {"gpu-1": later}


async def test_what_only_the_worker_has_is_known_here_from_now_on(lab) -> None:
    lab.theirs.put(1, tags=("mice",), metrics=Metrics(best_val_loss=0.5))
    lab.theirs.put(2, content=None, status="training")
    synced = await lab.sync()
    assert sorted(kinds(synced)) == [("added", "00000001"), ("added", "00000002")]
    known = lab.mine.get("00000001")
    assert (known.files, known.package, known.source) == ((), None, "worker-pull")
    assert (known.tags, known.metrics.best_val_loss) == (("mice",), 0.5)
    assert [at.name for at in known.locations] == ["gpu-1"]
    assert lab.mine.get("00000002").status == "training"
    assert (await lab.sync()).steps == ()


async def test_what_was_deleted_here_stays_so(lab) -> None:
    lab.theirs.put(1)
    await lab.sync()
    lab.mine.registry.delete("00000001")
    assert kinds(await lab.sync()) == [("deleted", "00000001")]
    with pytest.raises(UnknownModel):
        lab.mine.get("00000001")


async def test_the_same_id_with_other_content_is_another_model(lab) -> None:
    lab.theirs.put(1, "theirs", full_hash="1" * 64, created_at=NOW)
    lab.mine.put(1, "mine", full_hash="2" * 64)
    synced = await lab.sync()
    assert kinds(synced) == [("added", "00000001-2")]
    assert "00000001-2" in synced.steps[0].why
    assert lab.mine.get("00000001").locations == ()
    assert (await lab.sync()).steps == ()


async def test_the_same_content_under_another_id_is_the_same_model(lab) -> None:
    lab.theirs.put(1, "same")
    lab.mine.put(2, "same")
    assert kinds(await lab.sync()) == [("updated", "00000002")]
    # And of two there with this content, the one that it is is it.
    lab.theirs.put(2, "same")
    await lab.sync()
    for _ in range(2):
        assert (await lab.sync()).same == 2
        assert lab.at("00000002")[0][1].endswith("centroid_00000002")


async def test_a_training_that_went_on_without_us(lab) -> None:
    record = lab.theirs.put(1, content=None, status="training")
    expect_model(lab.mine.registry, record, worker="gpu-1")
    lab.mine.registry.update("00000001", lambda old: replace(old, notes="mine"))
    await lab.sync()
    lab.theirs.registry.mark_completed("00000001", Metrics(best_val_loss=0.25))
    synced = await lab.sync()
    assert [(step.kind, step.why) for step in synced.steps] == [
        ("updated", "it is completed there")
    ]
    known = lab.mine.get("00000001")
    assert (known.status, known.metrics.best_val_loss, known.notes) == ("completed", 0.25, "mine")
    assert lab.at("00000001")[0][1] != ""
    assert (await lab.sync()).steps == ()


async def test_what_is_gone_is_no_longer_said_to_be_there(lab) -> None:
    for number in (1, 2, 3):
        lab.theirs.put(number)
    lab.mine.put(1)
    other = Location(kind="worker", name="gpu-2", last_seen=NOW)
    await lab.sync()
    lab.mine.registry.update(
        "00000003", lambda old: replace(old, locations=(*old.locations, other))
    )
    for number in (1, 2, 3):
        lab.theirs.registry.delete(f"0000000{number}")
    synced = await lab.sync()
    assert sorted(kinds(synced)) == [("missing", f"0000000{n}") for n in (1, 2, 3)]
    assert lab.at("00000001") == []
    assert lab.mine.get("00000001").status == "completed"  # its files are here
    assert lab.mine.get("00000002").status == "missing"
    assert lab.at("00000003") == [("gpu-2", "")]
    assert lab.mine.get("00000003").status == "completed"
    # And when it is there again, it is no longer missing.
    lab.theirs.put(2)
    assert kinds(await lab.sync()) == [("updated", "00000002")]
    assert lab.mine.get("00000002").status == "completed"


async def test_of_a_list_that_is_not_whole_nothing_is_called_missing(lab, monkeypatch) -> None:
    from sleap_rtc.client import asking  # noqa: PLC0415 - to change it

    for number in (1, 2, 3):
        lab.theirs.put(number)
    await lab.sync()
    lab.theirs.registry.delete("00000003")
    monkeypatch.setattr(asking, "MOST_MODELS", 1)
    synced = await lab.sync()
    assert (synced.steps, synced.more) == ((), 1)
    assert lab.at("00000003") != []


async def test_one_bad_record_does_not_spoil_the_rest(lab) -> None:
    for number in (1, 2):
        lab.theirs.put(number)
    from sleap_rtc.errors import DataError  # noqa: PLC0415 - only here

    lab.link.fails["00000001"] = DataError(what="The record", why="it is odd")
    synced = await lab.sync()
    assert sorted(kinds(synced)) == [("added", "00000002"), ("refused", "00000001")]
    lab.theirs.put(3)
    lab.link.fails = {"00000003": UnknownModel(name="00000003")}  # it went away meanwhile
    assert (await lab.sync()).steps != ()


async def test_a_cut_ends_it_and_what_was_done_stays(lab) -> None:
    for number in (1, 2):
        lab.theirs.put(number)
    lab.link.fails["00000002"] = LinkLost(peer="gpu-1", why="cut")
    with pytest.raises(LinkLost):
        await lab.sync()
    assert lab.at("00000001") != []
