import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sleap_rtc.errors import DataError
from sleap_rtc.library import outline
from sleap_rtc.library.outline import Parts, Scanner, reader

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def read(data: bytes) -> outline.Read:
    return lambda offset, size: data[offset : offset + size]


def parts_of(data: bytes) -> Parts:
    """The members of a document that is one object."""
    parts = Parts(read(data))
    scanner = Scanner(read(data), what="m.json")
    for name in scanner.members():
        parts.note(name, *scanner.place())
    scanner.finish()
    return parts


@pytest.fixture(params=[1, 2, 7, 1 << 20])
def piece(request: pytest.FixtureRequest) -> Iterator[int]:
    """How much is read at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outline, "_PIECE", request.param)
        yield request.param


@given(
    plain=st.dictionaries(st.text(), PLAIN), indent=st.none() | st.just(2), ascii_only=st.booleans()
)
@settings(max_examples=40)
def test_every_member_is_found(plain: dict[str, Any], indent: int | None, ascii_only: bool) -> None:
    data = b" \n" + json.dumps(plain, indent=indent, ensure_ascii=ascii_only).encode() + b"\r\t"
    for size in (1, 5, 1 << 20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(outline, "_PIECE", size)
            parts = parts_of(data)
        assert {name: json.loads(bytes(raw)) for name, raw in parts.items()} == plain
        assert list(parts) == list(plain)
        assert len(parts) == len(plain)


@given(st.binary(max_size=80))
def test_any_bytes_are_an_outline_or_an_error(data: bytes) -> None:
    for text in (data, b"{" + data, b'{"a": ' + data):
        try:
            found = dict(parts_of(text))
        except DataError:
            continue
        assert all(len(bytes(raw)) <= len(text) for raw in found.values())
        try:
            plain = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        except msgspec.DecodeError:
            continue  # what is wrong within a part is found by whoever decodes it
        assert {name: bytes(raw) for name, raw in plain.items()} == {
            name: bytes(raw) for name, raw in found.items()
        }


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "ends in the middle"),
        (b"  ", "ends in the middle"),
        (b"[]", "stands at 0"),
        (b"{1: 2}", "no name stands at 1"),
        (b'{"a" 2}', "stands at 5"),
        (b'{"a": }', "no value stands at 6"),
        (b'{"a": 1 "b": 2}', "stands at 8"),
        (b'{"a": 1,}', "no name stands at 8"),
        (b'{"a": "\\"}', "ends in the middle"),
        (b'{"a": [{"}"]', "ends in the middle"),
        (b'{"a": [1, 2', "ends in the middle"),
        (b'{"a": 1', "ends in the middle"),
        (b'{"a": 1}}', "something follows it"),
        (b'{"a": 1}  x', "something follows it"),
        (b'{"\\q": 1}', "(?i)invalid escape"),
        (b'{"\xff": 1}', "utf-8"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, why: str, piece: int) -> None:
    with pytest.raises(DataError, match=why) as caught:
        parts_of(data)
    assert caught.value.message.startswith("m.json: it is not a registry's JSON (")


def test_of_two_members_with_one_name_the_later_one_counts() -> None:
    assert dict(parts_of(b'{"a": 1, "b": 3, "a": [2]}')) == {
        "a": msgspec.Raw(b"[2]"),
        "b": msgspec.Raw(b"3"),
    }


def test_a_part_that_is_too_large_harms_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outline, "MAX_DOCUMENT", 20)
    monkeypatch.setattr(outline, "_PIECE", 8)
    parts = parts_of(b'{"a": [%s], "b": {"c": 1}}' % b",".join([b"1"] * 1_000))
    assert bytes(parts["b"]) == b'{"c": 1}'
    assert bytes(parts["a"]) == b"[1,1,1,1,1,1,1,1,1,1,"  # one byte more than is read of any


def test_no_text_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outline, "MAX_DOCUMENT", 20)
    monkeypatch.setattr(outline, "_PIECE", 8)
    for data in (b'{"a": "%s"}', b'{"a": ["%s"]}', b'{"%s": 1}', b'{"a": 1%s}'):
        with pytest.raises(DataError, match="a text in it has more than"):
            parts_of(data % (b"1" * 1_000))
    monkeypatch.setattr(outline, "MAX_NAMES", 10)
    with pytest.raises(DataError, match="names in it are too long"):
        parts_of(b'{"aaa": 1, "bbb": 2, "ccc": 3}')


def test_a_file_is_read_as_it_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_bytes(b'{"a": 1}')
    with path.open("rb") as file:
        parts = Parts(reader(file.fileno()))
    parts.note("a", 6, 1)
    path.unlink()
    path.write_bytes(b'{"b": 2}')
    assert bytes(parts["a"]) == b"1"


def test_a_file_is_closed_with_the_last_reader() -> None:
    with tempfile.TemporaryFile() as file:
        one = reader(file.fileno())
        fd: int = one._fd  # type: ignore[attr-defined]
        os.fstat(fd)
        del one
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
