"""Which models a job on a worker means, by what both sides have."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sleap_rtc.client.locating import locate, offered_here
from sleap_rtc.domain.models import ModelFile, ModelRecord, Training
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.errors import FilesMissing, UnknownModel, UsageError
from sleap_rtc.files.packing import pack
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.link import FindModel, ModelTold

OTHER = "ab" * 32


class Worker:
    """The link to a worker that has these models, by what it calls them."""

    name = "gpu-1"

    def __init__(self, *models: ModelRecord, pairs: tuple[str, ...] = (), **named: ModelRecord):
        self.models = {model.id: model for model in models} | named
        self.pairs = pairs
        self.asked: list[str] = []

    async def request(self, body: FindModel, **_: Any) -> ModelTold:
        self.asked.append(body.name)
        if body.name in self.pairs:
            raise UsageError(message=f"{body.name} is not one model.")
        found = self.models.get(body.name)
        if found is None:
            raise UnknownModel(name=body.name)
        package = None
        if found.package is not None:
            package = PackageRef(id=found.package, size=1, files=1, listing=50)
        return ModelTold(record=found, alias=body.name, package=package)


@pytest.fixture
def library(tmp_path: Path):
    with Registry(tmp_path / "models", index_dir=tmp_path / "index") as registry:
        yield registry


def record(number: int, **changes: Any) -> ModelRecord:
    made = ModelRecord(
        id=f"0a1b2c{number:02d}",
        name="run",
        model_type="centroid",
        status="completed",
        source="worker-pull",
        created_at=datetime.now(UTC),
        training=Training(engine="tiny"),
    )
    return msgspec.structs.replace(made, **changes)


def place(
    library: Registry, number: int = 1, *, engine: str = "tiny", model_type: str = "centroid"
) -> Entry:
    staged = library.incoming / f"staged-{number}"
    staged.mkdir()
    (staged / "best.npz").write_bytes(b"content %d" % number)
    packed = pack({"best.npz": staged / "best.npz"}, root=staged)
    size, hashed = packed.package.files[0].size, packed.file_hashes["best.npz"]
    whole = record(
        number,
        model_type=model_type,
        checkpoint="best.npz",
        files=(ModelFile(path="best.npz", size=size, blake3=hashed),),
        package=packed.package.id,
        training=Training(engine=engine),
    )
    return library.place(staged, whole)


async def test_a_model_that_both_have_isnt_offered(library):
    entry = place(library)
    [found] = await locate([entry.id], registry=library, link=Worker(entry.record))
    assert found.there
    assert (found.ref.id, found.ref.package) == (entry.id, entry.record.package)
    assert (found.ref.offered, found.other) == (None, None)
    assert (found.engine, found.model_type) == ("tiny", "centroid")


async def test_a_model_that_the_worker_lacks_is_offered(library):
    entry = place(library)
    library.set_alias("flies", entry.id)
    [found] = await locate(["flies"], registry=library, link=Worker())
    assert not found.there
    assert found.label == "flies"
    assert found.ref.offered is not None
    assert found.ref.offered.id == entry.record.package
    assert offered_here(library.get("flies")) == found


async def test_what_the_worker_has_under_that_id_with_other_content_doesnt_count(library):
    entry = place(library)
    theirs = msgspec.structs.replace(entry.record, package=OTHER)
    [found] = await locate([entry.id], registry=library, link=Worker(theirs))
    assert found.ref.package == entry.record.package
    assert found.ref.offered is not None


async def test_a_name_that_means_another_model_there_is_told(library):
    entry = place(library)
    library.set_alias("flies", entry.id)
    theirs = record(7, package=OTHER)
    [found] = await locate(["flies"], registry=library, link=Worker(entry.record, flies=theirs))
    assert found.ref.id == entry.id
    assert found.other == theirs
    same = Worker(entry.record, flies=entry.record)
    [found] = await locate(["flies"], registry=library, link=same)
    assert found.other is None
    pair = Worker(entry.record, pairs=("flies",))
    [found] = await locate(["flies"], registry=library, link=pair)
    assert found.other is None


async def test_a_model_that_only_the_worker_has_is_meant_by_its_content(library):
    theirs = record(7, package=OTHER)
    [found] = await locate(["flies"], registry=library, link=Worker(flies=theirs))
    assert (found.label, found.ref.id, found.ref.package) == ("flies", theirs.id, OTHER)
    assert found.there
    assert found.ref.offered is None


async def test_a_model_whose_files_never_came_home_is_used_where_it_was_trained(library):
    known = library.register(record(1, status="completed"))
    theirs = record(1, package=OTHER)
    [found] = await locate([known.id], registry=library, link=Worker(theirs))
    assert (found.ref.package, found.ref.offered, found.there) == (OTHER, None, True)
    with pytest.raises(FilesMissing, match="all of them, here") as raised:
        await locate([known.id], registry=library, link=Worker())
    assert "gpu-1 hasn't got them either" in raised.value.hint_text


async def test_files_that_are_gone_here_are_not_replaced_by_other_content(library):
    entry = place(library)
    (entry.directory / "best.npz").unlink()
    [found] = await locate([entry.id], registry=library, link=Worker(entry.record))
    assert found.there
    theirs = msgspec.structs.replace(entry.record, package=OTHER)
    with pytest.raises(FilesMissing):
        await locate([entry.id], registry=library, link=Worker(theirs))


async def test_what_nobody_has_is_named(library):
    with pytest.raises(UnknownModel, match="flies") as raised:
        await locate(["flies"], registry=library, link=Worker())
    assert "gpu-1 hasn't got it either" in raised.value.hint_text
    with pytest.raises(FilesMissing, match="on gpu-1 too"):
        await locate(["flies"], registry=library, link=Worker(flies=record(7)))
    with pytest.raises(UsageError, match="needs a model"):
        await locate([], registry=library, link=Worker())


async def test_a_pair_is_two_models_of_one_engine(library):
    one, two = place(library, 1), place(library, 2, model_type="centered_instance")
    library.set_alias("flies", one.id, two.id)
    worker = Worker(one.record)
    found = await locate(["flies"], registry=library, link=worker)
    assert [model.ref.id for model in found] == [one.id, two.id]
    assert [model.there for model in found] == [True, False]
    other = place(library, 3, engine="sleap-nn")
    with pytest.raises(UsageError, match="can't run together"):
        await locate([one.id, other.id], registry=library, link=worker)
