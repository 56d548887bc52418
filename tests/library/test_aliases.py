import contextlib
import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace

from sleap_rtc.domain import values
from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.errors import (
    AliasTaken,
    DataError,
    InvalidName,
    NewerFormat,
    NotFound,
    OutOfSpace,
    UnknownModel,
    UsageError,
)
from sleap_rtc.library import chain
from sleap_rtc.library.registry import Registry

RecordOf = Callable[..., ModelRecord]


def put(models: Path, key: str, content: bytes | str) -> Path:
    """Write the next revision of an alias behind the registry's back."""
    folder = models / ".aliases" / key
    path = folder / f"{len(list(folder.iterdir())) + 1:08d}.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture
def a(registry: Registry, record_of: RecordOf) -> str:
    return registry.register(record_of("a")).id


@pytest.fixture
def b(registry: Registry, record_of: RecordOf) -> str:
    return registry.register(record_of("b", "centered_instance")).id


def test_an_alias_names_a_model(registry: Registry, models: Path, a: str) -> None:
    change = registry.set_alias("Fly", a)
    assert (change.alias.name, change.alias.models, change.before) == ("Fly", (a,), ())
    assert registry.get("Fly").id == a
    assert registry.get(a).alias == "Fly"
    assert registry.get_alias("Fly") == change.alias
    assert [path.name for path in (models / ".aliases").iterdir()] == ["fly"]


def test_setting_it_again_changes_nothing(registry: Registry, a: str) -> None:
    first = registry.set_alias("fly", a)
    again = registry.set_alias("fly", a)
    assert (again.alias, again.before) == (first.alias, (a,))


def test_a_taken_alias_is_refused_with_its_owner(registry: Registry, a: str, b: str) -> None:
    registry.set_alias("fly", a)
    with pytest.raises(AliasTaken, match=f"'fly' already names {a}"):
        registry.set_alias("fly", b)
    assert registry.get("fly").id == a
    assert registry.get(b).alias is None


def test_force_moves_it_and_says_from_whom(registry: Registry, a: str, b: str) -> None:
    registry.set_alias("fly", a)
    change = registry.set_alias("fly", b, force=True)
    assert (change.before, change.alias.models) == ((a,), (b,))
    assert registry.get(a).alias is None
    assert registry.get(b).alias == "fly"


@pytest.mark.parametrize("of", ["a", "b"])
def test_a_spelling_that_differs_by_case_is_refused_with_both_named(
    registry: Registry, a: str, b: str, of: str
) -> None:
    registry.set_alias("Fly", a)
    with pytest.raises(AliasTaken, match=r"'FLY' already names .* 'Fly', which differs only by c"):
        registry.set_alias("FLY", a if of == "a" else b)
    assert registry.get_alias("FLY") is None
    with pytest.raises(UnknownModel, match="FLY") as caught:
        registry.resolve("FLY")
    assert caught.value.hint_text == "Did you mean Fly?"
    registry.set_alias("FLY", a, force=True)
    assert registry.get(a).alias == "FLY"
    assert registry.get_alias("Fly") is None


def test_a_model_has_one_alias_of_its_own(registry: Registry, a: str) -> None:
    registry.set_alias("old", a)
    registry.set_alias("new", a)
    assert registry.get(a).alias == "new"
    assert [alias.name for alias in registry.list_aliases()] == ["new"]


def test_a_pair_has_an_alias_beside_its_models_own(registry: Registry, a: str, b: str) -> None:
    registry.set_alias("mine", a)
    registry.set_alias("fly", a, b)
    assert registry.get("fly:centroid").id == a
    assert registry.get("fly:centered_instance").id == b
    assert registry.get(a).alias == "mine"
    assert registry.get(b).alias == "fly:centered_instance"
    assert registry.get("mine:centroid").id == a
    with pytest.raises(UnknownModel):
        registry.get("fly:bottomup")


def test_what_is_no_pair_is_refused(
    registry: Registry, record_of: RecordOf, a: str, b: str
) -> None:
    other = registry.register(record_of("other")).id
    with pytest.raises(UsageError, match="type centroid are not a pair"):
        registry.set_alias("fly", a, other)
    with pytest.raises(UsageError, match="one model, or the two"):
        registry.set_alias("fly")
    with pytest.raises(UsageError, match="one model, or the two"):
        registry.set_alias("fly", a, b, other)
    assert registry.list_aliases() == ()


@pytest.mark.parametrize("name", ["", "a b", "beef", "../x", "a:b", "latest"])
def test_bad_names_are_refused_before_anything_else(registry: Registry, name: str) -> None:
    with pytest.raises(InvalidName):
        registry.set_alias(name, "no such model")
    assert registry.get_alias(name) is None
    with pytest.raises(NotFound):
        registry.remove_alias(name)


def test_removing(registry: Registry, a: str) -> None:
    registry.set_alias("fly", a)
    assert registry.remove_alias("fly").models == (a,)
    assert registry.get(a).alias is None
    registry.set_alias("flea", a)
    with pytest.raises(NotFound, match="no alias 'fle'") as caught:
        registry.remove_alias("fle")
    assert caught.value.hint_text == "Did you mean flea?"
    with pytest.raises(NotFound):
        registry.remove_alias("Flea")


def test_an_alias_of_a_deleted_model_is_free(registry: Registry, a: str, b: str) -> None:
    alias = registry.set_alias("fly", a).alias
    registry.delete(a)
    assert registry.get_alias("fly") is None
    # As a crash between the two would leave it:
    put(registry.models_dir, "fly", values.encode(alias))
    assert not registry.exists("fly")
    assert registry.set_alias("fly", b).before == (a,)
    assert registry.get("fly").id == b


def test_deleting_one_of_a_pair_ends_the_pairs_name(registry: Registry, a: str, b: str) -> None:
    registry.set_alias("fly", a, b)
    registry.delete(a)
    assert registry.get(b).alias is None
    assert registry.list_aliases() == ()


def test_of_two_own_aliases_left_by_a_crash_the_later_wins(
    registry: Registry, models: Path, a: str
) -> None:
    old = registry.set_alias("old", a).alias
    registry.set_alias("new", a)
    put(models, "old", values.encode(old))
    assert registry.get(a).alias == "new"
    assert registry.get("old").id == a
    registry.set_alias("newest", a)
    assert [alias.name for alias in registry.list_aliases()] == ["newest"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"name":"fly","models":["x"],"sequence":1}'])
def test_a_damaged_revision_falls_back(
    registry: Registry, models: Path, a: str, b: str, content: bytes
) -> None:
    registry.set_alias("fly", a)
    put(models, "fly", content)
    assert registry.get("fly").id == a
    registry.set_alias("fly", b, force=True)
    assert registry.get("fly").id == b


def test_a_damaged_alias_is_named_and_only_taken_by_force(
    registry: Registry, models: Path, a: str
) -> None:
    registry.set_alias("fly", a)
    (models / ".aliases" / "fly" / "00000001.json").write_bytes(b"")
    assert registry.get(a).alias is None
    assert registry.list_aliases() == ()
    with pytest.raises(DataError, match="fly"):
        registry.get("fly")
    with pytest.raises(DataError, match="fly"):
        registry.set_alias("fly", a)
    registry.set_alias("fly", a, force=True)
    assert registry.get("fly").id == a


def test_an_alias_of_a_later_format_is_left_alone(registry: Registry, models: Path, a: str) -> None:
    registry.set_alias("fly", a)
    path = put(models, "fly", '{"format": "2.0"}')
    with pytest.raises(NewerFormat):
        registry.set_alias("fly", a, force=True)
    assert max(path.parent.iterdir()) == path


def test_unknown_fields_of_an_alias_survive(
    registry: Registry, models: Path, a: str, b: str
) -> None:
    alias = registry.set_alias("fly", a).alias
    put(models, "fly", values.encode(replace(alias, unknown={"later": 1})))
    assert registry.set_alias("fly", b, force=True).alias.unknown == {"later": 1}
    found = registry.get_alias("fly")
    assert found is not None
    assert found.unknown == {"later": 1}


def test_a_full_disk_leaves_the_alias_as_it_was(
    registry: Registry, a: str, b: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.set_alias("fly", a)

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutOfSpace):
        registry.set_alias("fly", b, force=True)
    with pytest.raises(OutOfSpace):
        registry.set_alias("flea", a)
    monkeypatch.undo()
    assert registry.get("fly").id == a
    assert registry.get_alias("flea") is None


def test_of_many_who_want_a_name_one_gets_it(
    registry: Registry, record_of: RecordOf, open_registry: Callable[[], Registry]
) -> None:
    ids = [registry.register(record_of(str(n))).id for n in range(6)]
    spellings = ["fly", "FLY", "Fly", "fly", "fLY", "FlY"]

    def take(number: int) -> bool:
        try:
            open_registry().set_alias(spellings[number], ids[number])
        except AliasTaken:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(take, range(6)))
    assert got.count(True) == 1
    (alias,) = registry.list_aliases()
    assert alias.models == (ids[got.index(True)],)
    assert [i for i in ids if registry.get(i).alias] == list(alias.models)


def test_of_many_who_take_over_a_dead_name_one_gets_it(
    registry: Registry, record_of: RecordOf, models: Path
) -> None:
    ids = [registry.register(record_of(str(n))).id for n in range(6)]
    dead = registry.register(record_of("dead")).id

    def take(model: str) -> bool:
        try:
            registry.set_alias("fly", model)
        except AliasTaken:
            return False
        return True

    alias = registry.set_alias("fly", dead).alias
    registry.delete(dead)
    for _ in range(10):
        # As a crash between deleting a model and removing its alias leaves it.
        top = max((models / ".aliases" / "fly").iterdir()).stem
        path = models / ".aliases" / "fly" / f"{int(top) + 1:08d}.json"
        path.write_bytes(values.encode(alias))
        with ThreadPoolExecutor(6) as pool:
            got = list(pool.map(take, ids))
        assert got.count(True) == 1
        assert registry.get("fly").id == ids[got.index(True)]


def test_of_many_names_given_at_once_the_model_keeps_one(registry: Registry, a: str) -> None:
    for turn in range(5):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n, t=turn: registry.set_alias(f"n{t}-{n}", a), range(4)))
        (alias,) = registry.list_aliases()
        assert registry.get(a).alias == alias.name


def test_moves_and_removals_at_once_end_in_one_of_them(registry: Registry, a: str, b: str) -> None:
    def move(turn: int) -> None:
        if turn % 3 == 2:
            with contextlib.suppress(NotFound):
                registry.remove_alias("fly")
        else:
            registry.set_alias("fly", (a, b)[turn % 3], force=True)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(move, range(24)))
    alias = registry.get_alias("fly")
    named = [model for model in (a, b) if registry.get(model).alias == "fly"]
    assert named == (list(alias.models) if alias else [])


def test_a_mover_that_was_overtaken_looks_again(
    registry: Registry, a: str, b: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, overtaken = chain.append, []

    def late(folder: Path, after: int, data: bytes) -> bool:
        if not overtaken:
            overtaken.append(True)
            registry.set_alias("fly", a)
        return append(folder, after, data)

    monkeypatch.setattr(chain, "append", late)
    with pytest.raises(AliasTaken, match=a):
        registry.set_alias("fly", b)
    assert registry.get("fly").id == a
