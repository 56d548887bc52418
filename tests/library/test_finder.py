import re
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from sleap_rtc.domain.ids import ModelId
from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.errors import AmbiguousName, Damaged, NewerFormat, UnknownModel
from sleap_rtc.library.entries import Entry, Group
from sleap_rtc.library.registry import Registry

RecordOf = Callable[..., ModelRecord]


def add(registry: Registry, record_of: RecordOf, model_id: str, **changes: str) -> Entry:
    return registry.register(record_of(model_id, id=ModelId(model_id), **changes))


def damage(entry: Entry, content: str = "?") -> None:
    (entry.directory / ".record" / "00000001.json").write_text(content)


def test_an_exact_id_comes_first(registry: Registry, record_of: RecordOf) -> None:
    first = add(registry, record_of, "3f2a9c01")
    second = add(registry, record_of, "3f2a9c01-2")
    assert registry.resolve("3f2a9c01") == first
    assert registry.resolve("3f2a9c01-2") == second
    assert registry.get("3f2a9c01-2") == second


def test_an_alias_comes_before_a_path(
    registry: Registry, record_of: RecordOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = add(registry, record_of, "3f2a9c01")
    registry.set_alias("fly", entry.id)
    (tmp_path / "fly").mkdir()
    monkeypatch.chdir(tmp_path)
    found = registry.resolve("fly")
    assert isinstance(found, Entry)
    assert (found.id, found.label) == (entry.id, "fly")
    assert registry.resolve("./fly") == tmp_path / "fly"


def test_a_pair_is_found_in_its_order(registry: Registry, record_of: RecordOf) -> None:
    a = add(registry, record_of, "00000001", model_type="centered_instance")
    b = add(registry, record_of, "00000002", model_type="centroid")
    registry.set_alias("fly", b.id, a.id)
    found = registry.resolve("fly")
    assert isinstance(found, Group)
    assert [entry.id for entry in found.entries] == [b.id, a.id]
    member = registry.resolve("fly:centroid")
    assert isinstance(member, Entry)
    assert member.id == b.id
    with pytest.raises(AmbiguousName, match="fly:centroid, fly:centered_instance"):
        registry.get("fly")
    assert registry.exists("fly")


@pytest.mark.parametrize("prefix", ["3f2a", "3f2a9", "3f2a9c0"])
def test_a_prefix_that_fits_one(registry: Registry, record_of: RecordOf, prefix: str) -> None:
    entry = add(registry, record_of, "3f2a9c01")
    add(registry, record_of, "3f2b0000")
    assert registry.resolve(prefix) == entry
    with pytest.raises(UnknownModel):
        registry.get(prefix)


def test_a_prefix_that_fits_several_names_them(registry: Registry, record_of: RecordOf) -> None:
    a = add(registry, record_of, "3f2a9c01")
    b = add(registry, record_of, "3f2a0000", model_type="bottomup")
    registry.set_alias("fly", a.id)
    with pytest.raises(AmbiguousName, match=re.escape("3f2a0000, 3f2a9c01 (fly)")):
        registry.resolve("3f2a")
    damage(b)
    with pytest.raises(AmbiguousName, match=re.escape("3f2a0000 (damaged), 3f2a9c01 (fly)")):
        registry.resolve("3f2a")
    registry.delete(a.id)
    with pytest.raises(Damaged):
        registry.resolve("3f2a0")


def test_very_many_candidates_are_cut(registry: Registry, record_of: RecordOf) -> None:
    for number in range(12):
        add(registry, record_of, f"abcd{number:04d}")
    with pytest.raises(AmbiguousName, match="abcd0009 and 2 more"):
        registry.resolve("abcd")


def test_deleted_models_are_not_found(registry: Registry, record_of: RecordOf) -> None:
    a = add(registry, record_of, "3f2a9c01")
    b = add(registry, record_of, "3f2a0000")
    registry.delete(a.id)
    found = registry.resolve("3f2a")
    assert isinstance(found, Entry)
    assert found.id == b.id
    assert not registry.exists(a.id)
    for name in (a.id, "3f2a9"):
        with pytest.raises(UnknownModel):
            registry.resolve(name)


@pytest.mark.parametrize(
    "name", ["", "3f2", "x", "\0", "a\nb", "~nobody-of-this-name/x", "x" * 5_000]
)
def test_nonsense_is_unknown(registry: Registry, record_of: RecordOf, name: str) -> None:
    add(registry, record_of, "3f2a9c01")
    with pytest.raises(UnknownModel):
        registry.resolve(name)
    with pytest.raises(UnknownModel):
        registry.get(name)
    assert not registry.exists(name)


def test_near_aliases_are_suggested(registry: Registry, record_of: RecordOf) -> None:
    registry.set_alias("Fly-centroid", add(registry, record_of, "3f2a9c01").id)
    with pytest.raises(UnknownModel, match="'fly-centrod'") as caught:
        registry.resolve("fly-centrod")
    assert caught.value.hint_text == "Did you mean Fly-centroid?"
    with pytest.raises(UnknownModel) as caught:
        registry.get("zebra")
    assert "list-models" in caught.value.hint_text


def test_paths_into_the_library_are_its_models(
    registry: Registry, record_of: RecordOf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entry = add(registry, record_of, "3f2a9c01")
    (entry.directory / "best.ckpt").touch()
    for path in (entry.directory, entry.directory / "best.ckpt"):
        assert registry.resolve(str(path)) == entry
    assert registry.resolve("centroid_3f2a9c01") == entry
    monkeypatch.chdir(tmp_path)
    assert registry.resolve("models/centroid_3f2a9c01/") == entry
    (tmp_path / "link").symlink_to(entry.directory)
    assert registry.resolve("link") == entry


def test_what_no_registry_knows_is_usable_by_path(registry: Registry, tmp_path: Path) -> None:
    old = registry.models_dir / "centroid_11111111"
    old.mkdir(parents=True)
    (tmp_path / "best.ckpt").touch()
    assert registry.resolve(str(old)) == old
    assert registry.resolve("centroid_11111111") == old
    assert registry.resolve(str(tmp_path / "best.ckpt")) == tmp_path / "best.ckpt"
    assert registry.resolve(str(registry.models_dir)) == registry.models_dir
    with pytest.raises(UnknownModel):
        registry.get("11111111")
    assert registry.list().entries == ()


def test_types_that_nobody_heard_of_are_found(
    open_registry: Callable[[], Registry], record_of: RecordOf
) -> None:
    reader = open_registry()
    assert not reader.exists("3f2a9c01")
    add(open_registry(), record_of, "3f2a9c01", model_type="new_head")
    assert reader.get("3f2a9c01").record.model_type == "new_head"
    assert not reader.exists("3f2a9c02")


def test_a_model_that_cannot_be_read_exists(registry: Registry, record_of: RecordOf) -> None:
    entry = add(registry, record_of, "3f2a9c01")
    damage(entry)
    assert registry.exists(entry.id)
    with pytest.raises(Damaged):
        registry.get(entry.id)
    damage(entry, '{"format": "2.0"}')
    with pytest.raises(NewerFormat):
        registry.update(entry.id, lambda old: replace(old, notes="x"))
    assert registry.exists(entry.id)
    assert registry.list().entries == ()


def test_an_empty_library_is_empty(registry: Registry) -> None:
    assert registry.list().entries == ()
    assert registry.list_aliases() == ()
    assert registry.get_interrupted() == ()
    assert not registry.exists("3f2a9c01")
    assert not registry.models_dir.exists()
