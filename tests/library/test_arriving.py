"""Models that come from elsewhere, into a real library."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

import pytest
from blake3 import blake3
from msgspec.structs import replace

from sleap_rtc.domain.ids import recipe
from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.errors import AlreadyExists, Conflict, IllegalTransition, UnknownModel, UnsafePath
from sleap_rtc.files.packing import pack
from sleap_rtc.library.arriving import arrive, weigh
from sleap_rtc.library.registry import Registry

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def registry(tmp_path):
    with Registry(tmp_path / "models", index_dir=tmp_path / "index") as made:
        yield made


@pytest.fixture
def coming(registry):
    """Makes a model that has arrived: its record and the folder with its files."""

    def make(name="run", *, born=0, at=None, **contents):
        made = recipe(model_type="centroid", backbone={}, run_name=name, dataset_hash="0" * 64)
        folder = registry.claims.new_folder()
        files = []
        for path, text in (contents or {"best": "weights"}).items():
            (folder / path).write_text(text)
            digest = blake3(text.encode()).hexdigest()
            files.append(ModelFile(path=path, size=len(text), blake3=digest))
        record = ModelRecord(
            id=made.model_id,
            name=name,
            model_type="centroid",
            status="completed",
            source="client-upload",
            created_at=NOW + timedelta(seconds=born),
            full_hash=made.full_hash,
            files=tuple(files),
            package=pack({file.path: folder / file.path for file in files}).package.id,
        )
        return replace(record, **(at or {})), folder

    return make


def in_library(registry) -> dict[str, str]:
    """What is in the library: id → its files' content."""
    return {
        entry.id: "".join((entry.directory / file.path).read_text() for file in entry.record.files)
        for entry in registry.walk()
    }


def test_a_new_one_is_placed_and_known_from_then_on(registry, coming) -> None:
    record, folder = coming()
    assert weigh(registry, record).verdict == "new"
    assert arrive(registry, record, folder).how == "added"
    again, folder = coming()
    assert weigh(registry, again).verdict == "same"
    arrived = arrive(registry, again, folder)
    assert (arrived.how, arrived.entry.id) == ("known", record.id)
    assert list(registry.incoming.iterdir()) == []


def test_the_same_content_under_another_id_is_known(registry, coming) -> None:
    record, folder = coming("first")
    registry.place(folder, record)
    other, folder = coming("second")
    assert other.id != record.id
    found = weigh(registry, other)
    assert (found.verdict, found.entry.id) == ("same", record.id)
    assert arrive(registry, other, folder).entry.id == record.id
    assert in_library(registry) == {record.id: "weights"}


def test_a_record_without_files_gets_them(registry, coming) -> None:
    record, folder = coming()
    registry.register(replace(record, files=(), package=None, notes="mine"))
    assert weigh(registry, record).verdict == "bare"
    arrived = arrive(registry, record, folder)
    assert (arrived.how, arrived.entry.record.notes) == ("completed", "mine")
    assert in_library(registry) == {record.id: "weights"}


def test_one_whose_files_were_lost_is_what_it_was(registry, coming) -> None:
    record, folder = coming(at={"status": "imported"})
    entry = registry.place(folder, record)
    (entry.directory / "best").unlink()
    registry.update(entry.id, lambda old: replace(old, status="missing"))
    again, folder = coming()
    assert weigh(registry, again).verdict == "bare"
    arrived = arrive(registry, again, folder)
    assert (arrived.how, arrived.entry.record.status) == ("completed", "completed")
    assert in_library(registry) == {record.id: "weights"}


@pytest.mark.parametrize(("status", "how"), [("interrupted", "completed"), ("failed", "failed")])
def test_how_its_training_ended_may_be_news(registry, coming, status, how) -> None:
    record, folder = coming()
    registry.register(replace(record, files=(), package=None, status="training"))
    if status == "interrupted":
        registry.mark_interrupted(record.id, None, 2)
    else:
        registry.mark_failed(record.id, "no")
    assert arrive(registry, record, folder).entry.record.status == how


def test_one_that_is_being_trained_is_left_alone(registry, coming) -> None:
    record, folder = coming()
    registry.register(replace(record, files=(), package=None, status="training"))
    with pytest.raises(Conflict, match="is being trained"):
        arrive(registry, record, folder)
    assert (folder / "best").exists()


class TestAnother:
    @pytest.fixture
    def here(self, registry, coming):
        record, folder = coming(best="old", more="x")
        entry = registry.place(folder, record)
        registry.set_alias("fly", entry.id)
        return entry

    def test_is_refused_by_default(self, registry, coming, here) -> None:
        record, folder = coming(born=1)
        assert weigh(registry, record).verdict == "other"
        with pytest.raises(AlreadyExists):
            arrive(registry, record, folder)
        assert in_library(registry) == {here.id: "oldx"}
        assert (folder / "best").exists()

    def test_both_are_kept(self, registry, coming, here) -> None:
        record, folder = coming(born=1)
        arrived = arrive(registry, record, folder, if_exists="keep-both")
        assert (arrived.how, arrived.entry.id) == ("renamed", f"{here.id}-2")
        assert arrived.entry.record.same_recipe_as == here.id
        assert in_library(registry) == {here.id: "oldx", f"{here.id}-2": "weights"}
        assert weigh(registry, record).entry.id == f"{here.id}-2"

    def test_one_takes_the_others_place_and_name(self, registry, coming, here) -> None:
        record, folder = coming(born=1)
        arrived = arrive(registry, record, folder, if_exists="overwrite")
        assert (arrived.how, arrived.entry.id, arrived.entry.alias) == ("replaced", here.id, "fly")
        assert in_library(registry) == {here.id: "weights"}
        assert registry.get("fly").record.package == record.package
        assert (arrived.trash / "best").read_text() == "old"
        assert (arrived.trash / ".record").is_dir()
        assert [entry.id for entry in registry.list().entries] == [here.id]
        assert registry.list().entries[0].record.package == record.package

    def test_killed_between_the_renames_it_is_placed_by_the_same_call(
        self, registry, coming, here, monkeypatch
    ) -> None:
        record, folder = coming(born=1)

        def killed(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("sleap_rtc.library.arriving.place_directory", killed)
            with pytest.raises(KeyboardInterrupt):
                arrive(registry, record, folder, if_exists="overwrite")
        assert in_library(registry) == {}
        [trash] = (registry.models_dir / ".trash").iterdir()
        assert (trash / "best").read_text() == "old"
        assert arrive(registry, record, folder, if_exists="overwrite").how == "added"
        assert in_library(registry) == {here.id: "weights"}
        assert registry.get("fly").id == here.id

    def test_one_that_a_job_may_go_on_with_stays(self, registry, coming) -> None:
        record, folder = coming("other", at={"status": "interrupted"}, best="half")
        entry = registry.place(folder, record)
        newer, folder = coming("other", born=1)
        with pytest.raises(Conflict, match="a job still needs it"):
            arrive(registry, newer, folder, if_exists="overwrite")
        assert in_library(registry)[entry.id] == "half"

    def test_one_of_another_type_stays(self, registry, coming, here) -> None:
        record, folder = coming(born=1, at={"model_type": "bottomup"})
        with pytest.raises(Conflict, match="is a centroid"):
            arrive(registry, record, folder, if_exists="overwrite")

    def test_a_strangers_own_revisions_are_dropped(self, registry, coming, here) -> None:
        record, folder = coming(born=1)
        (folder / ".record").mkdir()
        (folder / ".record" / "99999999.json").write_text("{}")
        (folder / "model.json").write_text("{}")
        arrived = arrive(registry, record, folder, if_exists="overwrite")
        assert not (arrived.entry.directory / ".record" / "99999999.json").exists()
        assert registry.get(here.id).record.package == record.package

    def test_a_link_among_the_files_is_refused(self, registry, coming, here, tmp_path) -> None:
        record, folder = coming(born=1)
        (tmp_path / "secret").write_text("weights")
        (folder / "best").unlink()
        (folder / "best").symlink_to(tmp_path / "secret")
        with pytest.raises(UnsafePath):
            arrive(registry, record, folder, if_exists="overwrite")
        assert in_library(registry) == {here.id: "oldx"}


def test_a_deleted_one_comes_back(registry, coming) -> None:
    record, folder = coming()
    registry.place(folder, record)
    registry.delete(record.id)
    again, folder = coming()
    assert weigh(registry, again).verdict == "new"
    assert arrive(registry, again, folder).entry.id == record.id


def test_one_whose_directory_goes_away_meanwhile(registry, coming, monkeypatch) -> None:
    record, folder = coming(best="old")
    entry = registry.place(folder, record)
    newer, folder = coming(born=1)
    found = weigh(registry, newer)
    shutil.rmtree(entry.directory)
    monkeypatch.setattr("sleap_rtc.library.arriving.weigh", lambda *_: found)
    with pytest.raises((UnknownModel, IllegalTransition)):
        arrive(registry, newer, folder, if_exists="overwrite")
    assert (folder / "best").exists()
