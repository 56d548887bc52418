"""ONNX: a protobuf message, walked field by field; weights may be in files beside it.

::

    Model    1 ir_version   7 graph   8 opset_import
    Graph    5 initializer: Tensor   15 sparse_initializer
    Tensor   13 external_data: {1: "location", 2: "weights.bin"}   14 data_location: 1
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sleap_rtc.errors import Damaged
from sleap_rtc.library.inspection.content import Content, Cursor

MAX_FIELDS: Final = 2_000_000
MAX_TEXT: Final = 4_096

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MODEL_FIELDS: Final = frozenset({*range(1, 9), 14, 20, 25, 26})
Field = tuple[int, int, int]
"""Number of a field; a number's value, or else where it starts; where it ends."""


def may_be(head: bytes) -> bool:
    """Whether a file that begins so may be ONNX: there is no magic number."""
    return len(head) > 2 and head[0] == 0x08 and 1 <= head[1] <= 64 and head[2] & 7 in (0, 2)


def check(content: Content) -> tuple[str, ...]:
    """See that an ONNX file is whole.

    Returns:
        The names of the files that hold weights of it, as it spells them.

    Raises:
        Damaged: It isn't ONNX, or it was cut.
    """
    budget = [MAX_FIELDS]
    graph: Field | None = None
    seen = set()
    for field in _fields(Cursor(content), budget):
        if field[0] not in _MODEL_FIELDS:
            raise content.damaged("it is not ONNX")
        seen.add(field[0])
        if field[0] == 7:
            graph = field
    if graph is None or not {1, 8} <= seen:
        raise content.damaged("it is not ONNX, or it was cut")
    names: dict[str, None] = {}
    for number, start, end in _fields(Cursor(content, graph[1], graph[2]), budget):
        if number == 5:
            for name in _external(content, start, end, budget):
                names[name] = None
    return tuple(names)


def _external(content: Content, start: int, end: int, budget: list[int]) -> Iterator[str]:
    for number, at, to in _fields(Cursor(content, start, end), budget):
        if number != 13:
            continue
        entry = {
            key: content.at(first, last - first)
            for key, first, last in _fields(Cursor(content, at, to), budget)
            if key in (1, 2) and 0 <= last - first <= MAX_TEXT
        }
        if entry.get(1) == b"location":
            yield entry.get(2, b"").decode("utf-8", "replace")


def _fields(cursor: Cursor, budget: list[int]) -> Iterator[Field]:
    while not cursor.done:
        budget[0] -= 1
        if budget[0] < 0:
            raise cursor.content.damaged("it has too many parts")
        tag = _varint(cursor)
        number, kind = tag >> 3, tag & 7
        if not number:
            raise _bad(cursor)
        if kind == _VARINT:
            yield number, _varint(cursor), 0
        elif kind == _LENGTH:
            length = _varint(cursor)
            start = cursor.offset
            cursor.skip(length)
            yield number, start, start + length
        elif kind in (_FIXED64, _FIXED32):
            cursor.skip(8 if kind == _FIXED64 else 4)
            yield number, 0, 0
        else:
            raise _bad(cursor)


def _varint(cursor: Cursor) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = cursor.take(1)[0]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
    raise _bad(cursor)


def _bad(cursor: Cursor) -> Damaged:
    return cursor.content.damaged("it is not ONNX, or it was cut")
