import contextlib
import io
import json
import os
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.errors import DataError, NewerFormat
from sleap_rtc.library import manifest
from sleap_rtc.library.finder import Unreadable
from sleap_rtc.library.registry import Registry

RecordOf = Callable[..., ModelRecord]


def parse(**fields: Any) -> manifest.Contents:
    return manifest.parse(json.dumps({"version": "2.0"} | fields).encode(), what="m.json")


def test_a_manifest_is_read_as_it_was_written(
    registry: Registry, record_of: RecordOf, clock: Any
) -> None:
    a = registry.register(record_of("a", notes="Fläche\n", unknown={"colour": "red"}))
    b = registry.register(record_of("b", "centered_instance"))
    registry.set_alias("fly", a.id)
    registry.set_alias("pair", a.id, b.id)
    file = io.BytesIO()
    lost = Unreadable(directory="centroid_00000000", why="it is cut")
    entries = (registry.get(a.id), lost, registry.get(b.id))
    written = manifest.write(file, entries, registry.list_aliases(), as_of=clock())
    assert written == manifest.Written(models=2, aliases=2, unreadable=(lost,))

    contents = manifest.parse(file.getvalue(), what="m.json")
    assert (contents.version, contents.as_of) == ("2.0", clock())
    read = {name: manifest.record_of(name, raw) for name, raw in contents.models.items()}
    assert read == {a.id: a.record, b.id: b.record}
    assert {name: manifest.ids_of(raw) for name, raw in contents.aliases.items()} == {
        "fly": (a.id,),
        "pair": (a.id, b.id),
    }


def test_a_manifest_is_indented_by_two(registry: Registry, record_of: RecordOf, clock: Any) -> None:
    entry = registry.register(record_of())
    registry.set_alias("fly", entry.id)
    file = io.BytesIO()
    manifest.write(file, [entry], registry.list_aliases(), as_of=clock())
    text = file.getvalue().decode()
    assert text == json.dumps(json.loads(text), indent=2) + "\n"
    assert list(json.loads(text)) == ["version", "as_of", "models", "aliases"]


def test_an_empty_manifest(clock: Any) -> None:
    file = io.BytesIO()
    manifest.write(file, [], [], as_of=clock())
    assert manifest.parse(file.getvalue(), what="m.json").models == {}
    assert json.loads(file.getvalue())["aliases"] == {}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"version": 2}, "'version' is not as it should be"),
        ({"version": "two"}, "version 'two' is none"),
        ({"version": "²"}, "is none"),
        ({"models": []}, "'models' is not as it should be"),
        ({"models": "x"}, "'models' is not as it should be"),
        ({"aliases": [1]}, "'aliases' is not as it should be"),
        ({"as_of": "yesterday"}, "'as_of' is not as it should be"),
    ],
)
def test_wrong_types_are_one_sentence(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(DataError, match=why) as caught:
        parse(**fields)
    assert caught.value.message.startswith("m.json: ")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"nul", b"\xff\xfe", b'{"models": ' * 90_000])
def test_what_is_no_manifest_is_said(data: bytes) -> None:
    with pytest.raises(DataError, match=r"m\.json"):
        manifest.parse(data, what="m.json")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_manifest_or_an_error(data: bytes) -> None:
    with contextlib.suppress(DataError):
        assert manifest.parse(b'{"version": ' + data, what="m.json").version


def test_a_later_manifest_is_left_alone() -> None:
    with pytest.raises(NewerFormat, match=r"has format 3\.0"):
        parse(version="3.0")


def test_too_many_models_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "MAX_MODELS", 2)
    assert len(parse(models={"a": 1, "b": 2}).models) == 2
    with pytest.raises(DataError, match="it has more than the 2 aliases allowed"):
        parse(aliases={"a": 1, "b": 2, "c": 3})


def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.json"
    path.write_text('{"version": "2.0"}')
    assert manifest.read(path).models == {}
    monkeypatch.setattr(manifest, "MAX_BYTES", 10)
    with pytest.raises(DataError, match="it has more than"):
        manifest.read(path)


def test_a_manifest_is_read_as_it_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text('{"version": "2.0", "models": {"a": 1, "b": {}}, "aliases": {"x": "a"}}')
    told: list[tuple[int, int]] = []
    contents = manifest.read(path, told=lambda *far: told.append(far))
    size = path.stat().st_size
    assert (told[0], told[-1]) == ((0, size), (size, size))
    path.unlink()
    path.write_text("{}")
    assert {name: bytes(raw) for name, raw in contents.models.items()} == {"a": b"1", "b": b"{}"}
    assert dict(contents.aliases) == {"x": msgspec.Raw(b'"a"')}


def test_a_manifest_comes_through_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(
        target=path.write_text, args=('{"version": "2.0", "models": {"a": 1}}',)
    )
    writer.start()
    try:
        assert list(manifest.read(path).models) == ["a"]
    finally:
        writer.join()


def test_of_a_million_models_hardly_more_than_their_ids_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sleap_rtc.library.outline._PIECE", 64 * 1024)
    path = tmp_path / "m.json"
    with path.open("w") as file:
        file.write('{"version": "2.0", "models": {"x": 1')
        for n in range(4_000):  # the rest would be the same
            file.write(f',\n"{n:08x}": {{"notes": "{"n" * 1_000}"}}')
        file.write("}}")
    manifest.read(path)  # what is made but once is another matter
    tracemalloc.start()
    contents = manifest.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(contents.models) == 4_001
    assert peak < 4_000 * 250 + 500_000 < path.stat().st_size


def test_a_record_stands_under_its_own_id(record_of: RecordOf, clock: Any) -> None:
    record = record_of()
    raw = msgspec.json.encode(msgspec.to_builtins(record))
    with pytest.raises(DataError, match=f"its record is of {record.id}"):
        manifest.record_of("00000000", raw)
    gone = msgspec.structs.replace(record, deleted_at=clock())
    with pytest.raises(DataError, match="it was deleted there"):
        manifest.record_of(gone.id, msgspec.json.encode(msgspec.to_builtins(gone)))


@pytest.mark.parametrize("raw", [b"3", b"null", b'["a", 3]', b'{"a": "b"}'])
def test_an_alias_names_an_id_or_ids(raw: bytes) -> None:
    with pytest.raises(DataError, match="alias"):
        manifest.ids_of(msgspec.Raw(raw))


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ('{\n  "version": "2.0",', True),
        ('{"version": "2.7"}', True),
        ('{"version": "1.0", "models": {}}', False),
        ('{"models": {}, "version": "2.0"}', False),
        ("", False),
    ],
)
def test_only_what_begins_as_ours_is_ours(tmp_path: Path, text: str, ours: bool) -> None:
    path = tmp_path / "m.json"
    path.write_text(text)
    assert manifest.is_ours(path) is ours
    assert not manifest.is_ours(tmp_path / "none")


# Beside the models


def test_a_process_that_changed_something_leaves_a_manifest(
    open_registry: Callable[[], Registry], record_of: RecordOf, clock: Any
) -> None:
    registry = open_registry()
    model = registry.register(record_of()).id
    path = registry.models_dir / "manifest.json"
    assert not path.exists()
    registry.close()
    assert list(manifest.read(path).models) == [model]

    clock.go_on(days=1)
    reader = open_registry()
    reader.get(model)
    reader.close()
    assert manifest.read(path).as_of != clock()


def test_a_large_library_is_written_when_idle_or_after_a_day(
    open_registry: Callable[[], Registry],
    record_of: RecordOf,
    monkeypatch: pytest.MonkeyPatch,
    clock: Any,
) -> None:
    monkeypatch.setattr("sleap_rtc.library.registry._QUICK", 2)
    registry = open_registry()
    for n in range(3):
        registry.register(record_of(str(n)))
    registry.close()
    path = registry.models_dir / "manifest.json"
    first = manifest.read(path)
    assert len(first.models) == 3  # there was none

    clock.go_on(hours=1)
    registry = open_registry()
    registry.register(record_of("3"))
    registry.close()
    assert manifest.read(path).as_of == first.as_of

    registry = open_registry()
    registry.write_manifest()
    assert len(manifest.read(path).models) == 4


def test_another_registrys_manifest_is_left_alone(
    open_registry: Callable[[], Registry], record_of: RecordOf
) -> None:
    registry = open_registry()
    registry.register(record_of())
    path = registry.models_dir / "manifest.json"
    path.write_text('{"version": "1.0", "models": {}}')
    registry.close()
    assert path.read_text() == '{"version": "1.0", "models": {}}'


def test_a_manifest_that_can_not_be_written_harms_nobody(
    open_registry: Callable[[], Registry], record_of: RecordOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = open_registry()
    model = registry.register(record_of()).id

    def full(*_: object) -> None:
        raise OSError(28, "full")

    monkeypatch.setattr("sleap_rtc.files.durable.sync_file", full)
    registry.close()
    monkeypatch.undo()
    assert open_registry().get(model).id == model
    assert not (registry.models_dir / "manifest.json").exists()
    assert not list(registry.models_dir.glob(".tmp-*"))
