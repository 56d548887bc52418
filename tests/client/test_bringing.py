"""Bringing a model home from a source on this machine; over real links: tests/endtoend."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from blake3 import blake3

from sleap_rtc.client.bringing import bring_model, bring_output, expect_model, follow_model
from sleap_rtc.domain.models import Metrics, ModelFile, ModelRecord, Training, Trust, safety_of
from sleap_rtc.domain.packages import ref
from sleap_rtc.errors import DataError
from sleap_rtc.files.packing import pack
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.link import Accepted, WantFiles
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.local import LocalSource

CONTENT = {"best.npz": b"weights" * 1000, "logs/training_log.csv": b"epoch\n"}
JOB = "00000000-03e9-7404-8101-010101010101"


class Worker:
    """What a link is here: something that grants what is asked for."""

    name = "gpu-1"

    def __init__(self) -> None:
        self.asked: list[object] = []

    async def request(self, body, **_):
        self.asked.append(body)
        return Accepted()

    def want_blocks(self) -> None:
        pass


@pytest.fixture
def library(tmp_path):
    with Registry(tmp_path / "models", index_dir=tmp_path / "index") as registry:
        yield registry


@pytest.fixture
def packed(tmp_path):
    places = {}
    for name, content in CONTENT.items():
        places[name] = tmp_path / "worker" / name
        places[name].parent.mkdir(parents=True, exist_ok=True)
        places[name].write_bytes(content)
    return pack(places)


@pytest.fixture
def record(packed):
    files = tuple(
        ModelFile(path=name, size=len(content), blake3=blake3(content).hexdigest())
        for name, content in CONTENT.items()
    )
    return ModelRecord(
        id="0a1b2c3d",
        name="run",
        model_type="centroid",
        status="completed",
        source="worker-training",
        created_at=datetime(2026, 4, 1, tzinfo=UTC),
        checkpoint="best.npz",
        files=files,
        package=packed.package.id,
        metrics=Metrics(best_val_loss=0.1),
        training=Training(job=JOB),
    )


async def bring(library, packed, record, *, name=None):
    worker = Worker()
    sources = Sources(LocalSource(packed, name="gpu-1"))
    entry = await bring_model(worker, sources, library, record, ref(packed.package), name=name)
    assert worker.asked == [WantFiles(package=ref(packed.package), model=record.id)]
    return entry


async def test_a_model_that_was_expected_gets_its_files(library, packed, record):
    training = msgspec.structs.replace(record, status="training", metrics=Metrics())
    expected = expect_model(library, training, worker="gpu-1")
    assert expected.record.files == ()
    assert expect_model(library, training, worker="gpu-1").id == expected.id
    told = follow_model(library, expected.id, record, worker="gpu-1")
    assert (told.record.status, told.record.metrics.best_val_loss) == ("completed", 0.1)
    entry = await bring(library, packed, record, name=expected.id)
    assert entry.id == expected.id
    assert (entry.directory / "best.npz").read_bytes() == CONTENT["best.npz"]
    assert entry.record.source == "worker-pull"
    assert entry.record.downloaded_at is not None
    assert [(at.kind, at.name) for at in entry.record.locations] == [("worker", "gpu-1")]


async def test_a_record_without_its_list_of_files_gets_it_from_the_package(library, packed, record):
    entry = await bring(library, packed, msgspec.structs.replace(record, files=()))
    by_path = {file.path: (file.size, file.blake3) for file in entry.record.files}
    assert by_path == {file.path: (file.size, file.blake3) for file in record.files}
    assert library.checkpoint_path(entry.id).read_bytes() == CONTENT["best.npz"]


async def test_how_far_it_may_be_trusted_is_not_the_workers_word(library, packed, record):
    said = tuple(msgspec.structs.replace(file, safety="safe") for file in record.files)
    trust = Trust(at=record.created_at, files=("best.npz",))
    told = msgspec.structs.replace(record, files=said, trust=trust)
    entry = await bring(library, packed, told)
    assert entry.record.trust is None
    assert safety_of(entry.record).tier == "unknown"  # these bytes are no weights at all


async def test_a_record_of_other_files_is_refused_and_nothing_is_placed(library, packed, record):
    other = msgspec.structs.replace(record, package="2" * 64)
    with pytest.raises(DataError, match="of other files"):
        await bring_model(Worker(), Sources(), library, other, ref(packed.package), name=None)
    fewer = msgspec.structs.replace(record, files=record.files[:1])
    with pytest.raises(DataError, match="lists other files"):
        await bring(library, packed, fewer)
    assert library.list().entries == ()


async def test_what_a_person_wrote_stays_when_news_come(library, record):
    training = msgspec.structs.replace(record, status="training")
    name = expect_model(library, training, worker="gpu-1").id
    library.update(name, lambda old: msgspec.structs.replace(old, notes="mine", tags=("flies",)))
    told = follow_model(library, name, record, worker="gpu-1").record
    assert (told.notes, told.tags, told.status) == ("mine", ("flies",), "completed")


async def test_predictions_come_into_a_new_folder_once(tmp_path, packed):
    worker, target = Worker(), tmp_path / "new" / "predictions"
    for _ in range(2):
        made = await bring_output(
            worker,
            Sources(LocalSource(packed, name="gpu-1")),
            ref(packed.package),
            job=JOB,
            incoming=tmp_path / "incoming",
            target=target,
        )
    assert made == target
    assert (target / "logs" / "training_log.csv").read_bytes() == b"epoch\n"
    assert worker.asked == [WantFiles(package=ref(packed.package), job=JOB)]
