"""What a worker says of its library: typed, bounded, and never of what else is on its disk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from sleap_rtc.domain.ids import ModelId
from sleap_rtc.domain.models import Location, Metrics, ModelFile, ModelRecord, Training
from sleap_rtc.domain.packages import package, parse
from sleap_rtc.errors import FilesMissing, LinkLost, NoLibrary, UnknownModel, UsageError
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.codec import MAX_MESSAGE
from sleap_rtc.protocol.library import (
    AskModel,
    CheckModels,
    LibraryChanged,
    ListModels,
    ModelInfoTold,
    ModelsTold,
    WantPart,
    fit_record,
)
from sleap_rtc.protocol.link import Reply, frames
from sleap_rtc.worker import library_answers
from sleap_rtc.worker.library_answers import LibraryAnswers, listed_model

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
WORST = "\x01"
"""A character that takes six bytes in JSON."""


class Lab:
    """A worker's library, and what answers for it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.registry = Registry(root / "models", index_dir=root / "index")
        self.answers = LibraryAnswers(self.registry, cache=HashCache(root / "hashes"))

    def model(self, number: int = 1, *, files: dict[str, bytes] | None = None, **changes: Any):
        given = {
            "id": ModelId(f"{number:08x}"),
            "name": f"run {number}",
            "model_type": "centroid",
            "status": "completed",
            "source": "worker-training",
            "created_at": NOW,
        } | changes
        contents = {"best.ckpt": b"weights"} if files is None else files
        folder = self.registry.incoming / f"made-{number}"
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        listed = tuple(
            ModelFile(path=name, size=len(content), blake3=blake3(content).hexdigest())
            for name, content in contents.items()
        )
        if not listed:
            return self.registry.register(ModelRecord(**given))
        return self.registry.place(folder, ModelRecord(files=listed, **given))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    with made.registry:
        yield made


def sent(body: ModelsTold | ModelInfoTold) -> Any:
    """The answer as the other side reads it, which it can only if it is within all bounds."""
    raw = frames.encode(Reply(id="r" * 64, body=body))
    return frames.decode(raw, peer="a worker").body


def all_pages(lab: Lab, query: ListModels) -> list[str]:
    from msgspec.structs import replace  # noqa: PLC0415 - only here

    ids: list[str] = []
    while True:
        page = sent(lab.answers.answer(query))
        ids += [model.id for model in page.models]
        if page.cursor is None:
            return ids
        query = replace(query, cursor=page.cursor)


def test_an_empty_library_has_an_empty_page(lab) -> None:
    assert sent(lab.answers.list(ListModels(count=True))) == ModelsTold(models=(), more=0)
    assert not lab.registry.models_dir.exists()


def test_a_list_with_filters_sort_and_pages(lab) -> None:
    for number in range(1, 8):
        lab.model(
            number,
            metrics=Metrics(best_val_loss=1 / number),
            tags=("odd",) if number % 2 else (),
        )
    lab.registry.set_alias("flies", "00000003")
    first = sent(lab.answers.list(ListModels(sort="loss", limit=3, count=True)))
    assert [model.id for model in first.models] == ["00000007", "00000006", "00000005"]
    assert first.more == 4
    assert len(all_pages(lab, ListModels(sort="loss", limit=3))) == 7
    (found,) = sent(lab.answers.list(ListModels(text="flies"))).models
    assert (found.alias, found.files, found.size) == ("flies", 1, 7)
    assert found.path == str(lab.registry.models_dir / "centroid_00000003")
    odd = sent(lab.answers.list(ListModels(tags=("odd",), types=("centroid",), where="local")))
    assert len(odd.models) == 4
    assert sent(lab.answers.list(ListModels(at="nobody"))).models == ()


@pytest.mark.parametrize(
    ("asked", "known"),
    [
        (ListModels(statuses=("archived",)), "completed"),
        (ListModels(sources=("floppy",)), "hub"),
        (ListModels(where="orbit"), "both"),
        (ListModels(sort="altitude"), "loss"),
    ],
)
def test_a_word_that_is_not_known_is_refused_with_those_that_are(lab, asked, known) -> None:
    with pytest.raises(UsageError) as raised:
        lab.answers.answer(asked)
    assert known in raised.value.hint_text


@pytest.mark.parametrize("cursor", ["x", "AAAA", "é", "kgE="])
def test_a_cursor_that_nobody_gave(lab, cursor) -> None:
    with pytest.raises(UsageError):
        lab.answers.list(ListModels(cursor=cursor))


def worst(**changes: Any) -> ModelRecord:
    """A record in which everything is as long as it may be."""
    places = tuple(
        Location(kind="worker", name=WORST * 1000, last_seen=NOW, path=WORST * 4096)
        for _ in range(20)
    )
    given = {
        "id": ModelId("0a1b2c3d"),
        "name": WORST * 1000,
        "model_type": "c" * 64,
        "status": "failed",
        "source": "worker-training",
        "created_at": NOW,
        "canonical": WORST * 100_000,
        "tags": tuple(f"{number:03d}" + WORST * 61 for number in range(100)),
        "notes": WORST * 1000,
        "locations": places,
        "failure": WORST * 8000,
        "skeleton": (WORST * 2000,) * 50,
        "training": Training(hyperparameters={"x": WORST * 50_000}, dataset_name=WORST * 1000),
        "unknown": {"later": WORST * 50_000},
    }
    return ModelRecord(**given | changes)


def test_the_longest_record_still_fits_a_page(tmp_path) -> None:
    entry = Entry(record=worst(), alias="a" * 64, folder="/" + WORST * 1000)
    told = sent(ModelsTold(models=(listed_model(entry),), cursor="x" * 8_192))
    assert told.models[0].path
    far = Entry(record=worst(), alias=None, folder="/" + "x" * 2000)
    assert listed_model(far).path == ""


def test_pages_of_long_records_are_cut_where_a_message_ends(lab) -> None:
    for number in range(1, 6):
        lab.model(number, tags=worst().tags, name="n" * 1000)
    page = sent(lab.answers.list(ListModels(count=True)))
    assert len(page.models) == 1
    assert page.more == 4
    assert sorted(all_pages(lab, ListModels())) == [f"{n:08x}" for n in range(1, 6)]


def test_everything_about_a_model_file_by_file(lab) -> None:
    files = {f"{number:04d}.bin": b"x" for number in range(1500)}
    entry = lab.model(1, files=files, canonical="{}", tags=("mice",))
    lab.registry.set_alias("flies", entry.id)
    (entry.directory / "0001.bin").unlink()
    (entry.directory / "0002.bin").write_bytes(b"xyz")
    found, first = [], 0
    while True:
        told = sent(lab.answers.info(AskModel(name="flies", first=first)))
        assert (told.files, told.size, told.first) == (1500, 1500, first)
        found += told.told
        first += len(told.told)
        if first >= told.files:
            break
    assert told.record.tags == ("mice",)
    assert (told.record.files, told.record.canonical, told.cut) == ((), None, False)
    assert (told.alias, told.path) == ("flies", str(entry.directory))
    assert tuple(each.file for each in found) == entry.record.files
    assert [each.state for each in found[:4]] == ["there", "missing", "changed", "there"]
    past = sent(lab.answers.info(AskModel(name=entry.id, first=9_999)))
    assert (past.told, past.first) == ((), 1500)


@pytest.mark.parametrize(
    "record",
    [worst(), worst(training=Training(), unknown={}, skeleton=()), worst(tags=(), notes="kept")],
)
def test_a_record_that_no_message_holds_is_told_shortened(record) -> None:
    slim, cut = fit_record(record, library_answers.RECORD_ROOM)
    assert cut
    assert slim.id == record.id
    sent(ModelInfoTold(record=slim, path="/" + WORST * 1000, alias="a" * 129))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 3000), st.integers(0, 40), st.integers(0, 8000))
def test_a_record_of_any_length_fits(points, places, failure) -> None:
    record = worst(
        skeleton=(WORST * 20,) * min(points, 1000),
        locations=worst().locations[:1] * places,
        failure=WORST * failure,
    )
    slim, _ = fit_record(record, library_answers.RECORD_ROOM)
    assert len(frames.encode(Reply(id="r", body=ModelInfoTold(record=slim)))) < MAX_MESSAGE


def test_where_links_lead_to_is_not_told(lab, tmp_path) -> None:
    secret = tmp_path / "home of somebody" / "best.ckpt"
    secret.parent.mkdir()
    secret.write_bytes(b"weights")
    folder = lab.registry.incoming / "linked"
    folder.mkdir()
    (folder / "best.ckpt").symlink_to(secret)
    file = ModelFile(
        path="best.ckpt",
        size=7,
        blake3=blake3(b"weights").hexdigest(),
        link=os.path.realpath(secret),
    )
    record = ModelRecord(
        id=ModelId("0a1b2c3d"),
        name="run",
        model_type="centroid",
        status="imported",
        source="local-import",
        created_at=NOW,
        files=(file,),
    )
    lab.registry.place(folder, record, links=True)
    (told,) = sent(lab.answers.info(AskModel(name="0a1b2c3d"))).told
    assert (told.file.link, told.state) == (None, "there")
    part = lab.answers.part(WantPart(model="0a1b2c3d", hashes=(file.blake3,)))
    assert part.read(0, 0) == b"weights"
    part.close()


def test_names_that_are_no_model(lab, tmp_path) -> None:
    lab.model(1)
    lab.model(2, model_type="centered_instance")
    lab.registry.set_alias("flies", "00000001", "00000002")
    (tmp_path / "secret.txt").touch()
    for name in ("0badcafe", "nobody", str(tmp_path / "secret.txt"), str(tmp_path / "gone"), "\0"):
        with pytest.raises(UnknownModel):
            lab.answers.info(AskModel(name=name))
    with pytest.raises(UsageError) as raised:
        lab.answers.info(AskModel(name="flies"))
    assert "flies:centered_instance" in raised.value.hint_text
    names = ("00000001", "flies", "flies:centroid", "nobody", "../x", str(tmp_path))
    assert lab.answers.check(CheckModels(names=names)).exist == (
        *(True, True, True),
        *(False, False, False),
    )


def test_a_part_of_a_model(lab) -> None:
    entry = lab.model(1, files={"best.ckpt": b"weights", "log.csv": b"epoch", "a/b.yaml": b"c: 1"})
    by_path = {file.path: file.blake3 for file in entry.record.files}
    asked = WantPart(model=entry.id, hashes=(by_path["a/b.yaml"], by_path["log.csv"], "0" * 64))
    part = lab.answers.part(asked)
    files = parse(part.listing).files
    assert [file.path for file in files] == ["a/b.yaml", "log.csv"]
    assert package(files).id == part.packed.package.id
    part.close()
    (entry.directory / "log.csv").write_bytes(b"EPOCH")
    with pytest.raises(FilesMissing):
        lab.answers.part(WantPart(model=entry.id, hashes=(by_path["log.csv"],)))
    with pytest.raises(UnknownModel):
        lab.answers.part(WantPart(model="0badcafe", hashes=asked.hashes))


def test_a_library_that_cannot_be_read_is_said_to_be_so(tmp_path) -> None:
    (tmp_path / "models").write_text("a file in its place")
    broken = Lab(tmp_path)
    with broken.registry, pytest.raises(NoLibrary) as raised:
        broken.answers.list(ListModels())
    assert str(tmp_path) not in raised.value.message


# ── telling of changes ───────────────────────────────────────────────────────


class Peer:
    """A channel that keeps what it is told."""

    def __init__(self, *, lost: bool = False) -> None:
        self.told: asyncio.Queue[LibraryChanged] = asyncio.Queue()
        self.lost = lost

    async def tell(self, body: LibraryChanged) -> None:
        if self.lost:
            raise LinkLost(peer="laptop", why="gone")
        self.told.put_nowait(body)


async def test_watchers_are_told_of_changes_by_anybody(lab, monkeypatch) -> None:
    monkeypatch.setattr(library_answers, "LOOK_EVERY_S", 0.01)
    one, gone = Peer(), Peer(lost=True)
    lab.answers.watch("gone", gone)
    lab.answers.watch("one", one)
    entry = await asyncio.to_thread(lab.model, 1)
    async with asyncio.timeout(60):
        told = await one.told.get()
    assert told.models == (entry.id,)
    lab.answers.unwatch("gone")
    lab.answers.unwatch("one")
    lab.answers.unwatch("one")
    assert lab.answers._watching is None


async def test_very_many_changes_are_told_as_any(lab, monkeypatch) -> None:
    monkeypatch.setattr(library_answers, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(library_answers, "MAX_PAGE", 0)
    peer = Peer()
    lab.answers.watch("one", peer)
    await asyncio.to_thread(lab.model, 1)
    async with asyncio.timeout(60):
        assert (await peer.told.get()).models == ()
    lab.answers.unwatch("one")
