import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.errors import AlreadyExists, OutOfSpace, UnknownModel
from sleap_rtc.library import manifest, portable
from sleap_rtc.library.merging import Outcome, Report
from sleap_rtc.library.registry import Registry

RecordOf = Callable[..., ModelRecord]


@pytest.fixture
def other(tmp_path: Path, clock: Any) -> Any:
    """A second library."""
    with Registry(tmp_path / "other", clock=clock, index_dir=tmp_path / "other-index") as registry:
        yield registry


@pytest.fixture
def carry(tmp_path: Path, clock: Any) -> Callable[..., Report]:
    """Exports one library and imports it into another."""

    def carry(source: Registry, target: Registry, **options: Any) -> Report:
        path = tmp_path / "carried.json"
        portable.export(source, path, as_of=clock(), replacing=True)
        return portable.take_in(target, manifest.read(path), source="carried.json", **options)

    return carry


def fates(report: Report) -> dict[str, tuple[str, str]]:
    return {each.name: (each.fate, each.why) for each in report.outcomes}


def test_records_and_aliases_come_in(
    registry: Registry, other: Registry, carry: Any, record_of: RecordOf
) -> None:
    a = registry.register(record_of("a", tags=("flies",), notes="the good one"))
    b = registry.register(record_of("b", "centered_instance"))
    registry.set_alias("Fly", a.id)
    registry.set_alias("pair", a.id, b.id)
    report = carry(registry, other)
    assert {each.fate for each in report.outcomes} == {"added"}
    assert (report.count("model", "added"), report.count("alias", "added")) == (2, 2)
    came = other.get("Fly")
    assert came.record == replace(a.record, status="missing")
    assert [entry.id for entry in other.resolve("pair").entries] == [a.id, b.id]  # type: ignore[union-attr]

    again = carry(registry, other)
    assert {(each.kind, each.fate) for each in again.outcomes} == {
        ("model", "known"),
        ("alias", "known"),
    }
    assert other.get("Fly").record == came.record


def test_what_is_here_stays_and_differences_are_named(
    registry: Registry, other: Registry, carry: Any, record_of: RecordOf
) -> None:
    model = registry.register(record_of()).id
    carry(registry, other)
    other.update(model, lambda old: replace(old, notes="mine"))
    registry.update(model, lambda old: replace(old, notes="theirs", tags=("x",)))
    report = carry(registry, other)
    assert fates(report)[model] == (
        "known",
        "it differs here, and stays so: tags, notes",
    )
    assert other.get(model).record.notes == "mine"


def test_another_model_with_the_same_id_comes_in_beside_it(
    registry: Registry, other: Registry, carry: Any, record_of: RecordOf
) -> None:
    record = record_of("a")
    registry.register(record)
    registry.set_alias("fly", record.id)
    other.register(record_of("b", id=record.id))
    report = carry(registry, other)
    assert report.outcomes[0] == Outcome(
        kind="model",
        name=record.id,
        fate="renamed",
        now=f"{record.id}-2",  # type: ignore[arg-type]
        why=f"its id is another model's here; it came in as {record.id}-2",
    )
    assert other.get("fly").id == f"{record.id}-2"
    assert other.get("fly").record.name == "a"
    assert fates(carry(registry, other))[record.id][0] == "known"
    assert len(list(other.walk())) == 2


def test_what_was_deleted_here_stays_deleted_unless_asked(
    registry: Registry, other: Registry, carry: Any, record_of: RecordOf
) -> None:
    model = registry.register(record_of()).id
    registry.set_alias("fly", model)
    carry(registry, other)
    other.delete(model)
    report = carry(registry, other)
    assert fates(report) == {
        model: ("deleted", "it was deleted here"),
        "fly": ("refused", f"it names {model}, not here"),
    }
    with pytest.raises(UnknownModel):
        other.get(model)
    assert carry(registry, other, revive=True).count("model", "added") == 1
    assert other.get("fly").id == model


def test_an_alias_is_never_taken_away(
    registry: Registry, other: Registry, carry: Any, record_of: RecordOf
) -> None:
    mine = other.register(record_of("mine")).id
    other.set_alias("fly", mine)
    theirs = registry.register(record_of("theirs")).id
    registry.set_alias("fly", theirs)
    report = carry(registry, other)
    fate, why = fates(report)["fly"]
    assert fate == "taken"
    assert why.startswith(f"The alias 'fly' already names {mine}. Free: fly-v2, fly-2026-03, ")
    assert other.get("fly").id == mine

    other.set_alias("bee", theirs)
    registry.set_alias("wasp", theirs)
    assert fates(carry(registry, other))["wasp"] == ("taken", "the model is called bee here")
    assert other.get(theirs).alias == "bee"


def test_each_bad_entry_is_refused_alone(registry: Registry, record_of: RecordOf) -> None:
    good = record_of("good")
    plain = json.loads(manifest.values.encode(good))
    contents = manifest.parse(
        json.dumps(
            {
                "version": "2.0",
                "models": {
                    good.id: plain,
                    "00000001": 5,
                    "00000002": plain,
                    "../../x": plain | {"id": "../../x"},
                    "00000003": plain | {"id": "00000003", "tags": "many"},
                    "00000004": plain | {"id": "00000004", "checkpoint": "../../x"},
                    "00000005": plain
                    | {
                        "id": "00000005",
                        "files": [{"path": "../x", "size": 1, "blake3": "0" * 64, "link": "/x"}],
                    },
                },
                "aliases": {
                    "fly": good.id,
                    "to-nothing": "ffffffff",
                    "three": [good.id] * 3,
                    "nobody": [],
                    "bad name": good.id,
                    "latest": good.id,
                    "number": 7,
                },
            }
        ).encode(),
        what="m.json",
    )
    report = portable.take_in(registry, contents, source="m.json")
    assert report.count("model", "added") == 1
    assert report.count("model", "refused") == 6
    assert report.count("alias", "added") == 1
    assert report.count("alias", "refused") == 6
    told = fates(report)
    assert told["latest"] == ("refused", "the word is reserved")
    assert told["to-nothing"] == ("refused", "it names ffffffff, not here")
    assert all(why and "\n" not in why for fate, why in told.values() if fate == "refused")
    assert [entry.id for entry in registry.list().entries] == [good.id]
    assert list(registry.incoming.iterdir()) == []


def test_files_that_lie_in_the_library_are_the_models_again(
    registry: Registry, arrive: Any, carry: Any, other: Registry, clock: Any
) -> None:
    entry = arrive()
    lost = other.models_dir / entry.directory.name
    lost.mkdir(parents=True)
    for file in entry.record.files:
        (lost / file.path).parent.mkdir(exist_ok=True)
        (lost / file.path).write_bytes((entry.directory / file.path).read_bytes())
    report = carry(registry, other)
    assert fates(report)[entry.id] == ("added", "its files were here")
    came = other.get(entry.id)
    assert came.record == entry.record
    assert other.checkpoint_path(entry.id).read_text() == "weights"
    assert json.loads((lost / "model.json").read_text())["id"] == entry.id


def test_files_with_another_content_are_not_the_models(
    registry: Registry, arrive: Any, carry: Any, other: Registry
) -> None:
    entry = arrive()
    there = other.models_dir / entry.directory.name
    (there / "sub").mkdir(parents=True)
    (there / "best.ckpt").write_text("WEIGHTS")
    (there / "sub" / "config").write_text("c")
    report = carry(registry, other)
    assert fates(report)[entry.id][0] == "renamed"
    assert other.get(f"{entry.id}-2").record.status == "missing"
    assert (there / "best.ckpt").read_text() == "WEIGHTS"


@pytest.fixture
def linked(registry: Registry, record_of: RecordOf, files_in: Any, tmp_path: Path) -> Any:
    """A model that was imported by link; its folder is reached over a link too."""
    real = tmp_path / "runs"
    files = files_in(real)
    folder = registry.incoming / "x"
    folder.mkdir()
    listed = tuple(replace(file, link=str((real / file.path).resolve())) for file in files)
    for file in listed:
        (folder / file.path).symlink_to(file.link)
    return registry.place(folder, record_of(status="imported", files=listed), links=True)


def test_links_to_what_is_still_there_come_in(
    registry: Registry, other: Registry, carry: Any, linked: Any
) -> None:
    assert fates(carry(registry, other)) == {linked.id: ("added", "")}
    came = other.get(linked.id)
    assert came.record == linked.record
    assert (came.directory / "best.ckpt").read_text() == "weights"


def test_links_to_something_else_do_not_come_in(
    registry: Registry, other: Registry, carry: Any, linked: Any, tmp_path: Path
) -> None:
    (tmp_path / "runs" / "best.ckpt").write_text("secrets")
    carry(registry, other)
    came = other.get(linked.id)
    assert came.record.status == "missing"
    assert sorted(path.name for path in came.directory.iterdir()) == [".record", "model.json"]


def test_a_manifest_stands_whole_and_old_ones_stay(
    registry: Registry, record_of: RecordOf, tmp_path: Path, clock: Any
) -> None:
    path = tmp_path / "out.json"
    registry.register(record_of())
    assert portable.export(registry, path, as_of=clock(), replacing=False).models == 1
    before = path.read_bytes()
    registry.register(record_of("b"))
    with pytest.raises(AlreadyExists):
        portable.export(registry, path, as_of=clock(), replacing=False)
    assert path.read_bytes() == before
    told: list[tuple[int, int]] = []
    written = portable.export(
        registry, path, as_of=clock(), replacing=True, told=lambda *far: told.append(far)
    )
    assert written.models == 2
    assert told == [(0, 2), (1, 2), (2, 2)]


def test_a_damaged_model_is_named_in_an_export(
    registry: Registry, record_of: RecordOf, tmp_path: Path, clock: Any
) -> None:
    entry = registry.register(record_of())
    (entry.directory / ".record" / "00000001.json").write_text("x")
    written = portable.export(registry, tmp_path / "m.json", as_of=clock(), replacing=False)
    assert (written.models, written.unreadable[0].directory) == (0, entry.directory.name)


def test_a_full_disk_stops_it_and_again_goes_on(
    registry: Registry,
    other: Registry,
    record_of: RecordOf,
    clock: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for n in range(3):
        registry.register(record_of(str(n)))
    real, left = os.fsync, [8]

    def fill_up(fd: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "full")
        real(fd)

    path = registry.models_dir.parent / "m.json"
    portable.export(registry, path, as_of=clock(), replacing=True)
    contents = manifest.read(path)
    monkeypatch.setattr(os, "fsync", fill_up)
    with pytest.raises(OutOfSpace):
        portable.take_in(other, contents, source="m.json")
    monkeypatch.undo()
    here = len(list(other.walk()))
    assert here < 3
    told: list[tuple[int, int]] = []
    report = portable.take_in(
        other, contents, source="m.json", told=lambda done, of: told.append((done, of))
    )
    assert (report.count("model", "known"), report.count("model", "added")) == (here, 3 - here)
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_a_deleted_model_whose_files_stayed_comes_back_with_them(
    registry: Registry, carry: Any, arrive: Any, tmp_path: Path, clock: Any
) -> None:
    entry = arrive()
    path = tmp_path / "mine.json"
    portable.export(registry, path, as_of=clock(), replacing=False)
    registry.delete(entry.id, files=False)
    contents = manifest.read(path)
    stays = portable.take_in(registry, contents, source="mine.json")
    assert fates(stays)[entry.id][0] == "deleted"
    back = portable.take_in(registry, contents, source="mine.json", revive=True)
    assert fates(back)[entry.id][0] == "added"
    assert registry.get(entry.id).record == entry.record
    assert registry.checkpoint_path(entry.id).read_text() == "weights"


def test_relatives_are_named_by_the_ids_that_they_have_here(
    registry: Registry, other: Registry, carry: Any, record_of: RecordOf
) -> None:
    parent, child = record_of("parent"), record_of("child", parent=record_of("parent").id)
    sister = record_of("sister", same_recipe_as=parent.id)
    for each in (parent, child, sister):
        registry.register(each)
    other.register(record_of("a stranger", id=parent.id))
    carry(registry, other)
    assert other.get(f"{parent.id}-2").record.name == "parent"
    assert other.get(child.id).record.parent == f"{parent.id}-2"
    assert other.get(sister.id).record.same_recipe_as == f"{parent.id}-2"
    other.update(child.id, lambda old: replace(old, parent=sister.id))
    carry(registry, other)
    assert other.get(child.id).record.parent == sister.id  # what a person says stands


def test_of_a_linked_model_what_is_at_its_place_comes_in(
    *,
    registry: Registry,
    other: Registry,
    carry: Any,
    record_of: RecordOf,
    files_in: Any,
    tmp_path: Path,
) -> None:
    runs = tmp_path / "runs"
    files = tuple(
        replace(file, link=str(runs / file.path)) for file in files_in(runs, a_ckpt="a", log="1")
    )
    record = record_of("linked", status="imported", files=files, checkpoint="a.ckpt")
    folder = registry.claims.new_folder()
    for file in files:
        (folder / file.path).symlink_to(file.link)
    registry.place(folder, record, links=True)
    (runs / "log").write_text("another")
    carry(registry, other)
    came = other.get(record.id)
    assert (came.record.status, came.record.files) == ("missing", files)
    assert other.checkpoint_path(came.id).read_text() == "a"


def test_that_a_file_is_clean_is_not_believed(
    registry: Registry, other: Registry, carry: Any, linked: Any, arrive: Any
) -> None:
    claimed = registry.update(
        linked.id,
        lambda old: replace(old, files=tuple(replace(f, safety="scanned") for f in old.files)),
    )
    copied = arrive("copied")
    registry.update(
        copied.id,
        lambda old: replace(old, files=tuple(replace(f, safety="safe") for f in old.files)),
    )
    there = other.models_dir / copied.directory.name / "sub"
    there.mkdir(parents=True)
    (there / "config").write_text("c")
    (there.parent / "best.ckpt").write_text("weights")
    carry(registry, other)
    for name in (claimed.id, copied.id):
        came = next(f for f in other.get(name).record.files if f.path == "best.ckpt")
        assert (came.safety, came.blake3) == ("unknown", claimed.record.files[0].blake3)
        assert came.found
