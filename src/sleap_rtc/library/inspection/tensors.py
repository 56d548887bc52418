"""safetensors and GGUF: tables of tensors before their bytes; neither can hold anything that runs.

::

    safetensors   length u64 | JSON {"name": {"dtype", "shape", "data_offsets": [a, b]}, …} | bytes
    GGUF          "GGUF" | version u32 | tensors u64 | entries u64 | entries | tensors | bytes
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

from sleap_rtc.errors import Damaged
from sleap_rtc.library.inspection.content import Content, Cursor

MAX_HEADER: Final = 100_000_000
"""Bytes of the largest table of a safetensors file, by its specification."""
MAX_ENTRIES: Final = 20_000_000
"""Values that are read of a GGUF file's entries at most: a vocabulary has a few 100,000."""
MAX_TENSORS: Final = 1_000_000

_BITS: Final = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
# Type of a GGUF tensor: values per block, bytes per block.
_BLOCKS: Final = {
    24: (1, 1),
    **dict.fromkeys((1, 25, 30), (1, 2)),
    **dict.fromkeys((0, 26), (1, 4)),
    **dict.fromkeys((27, 28), (1, 8)),
    **dict.fromkeys((2, 20), (32, 18)),
    **dict.fromkeys((11, 21), (256, 110)),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    9: (32, 36),
    10: (256, 84),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    22: (256, 82),
    23: (256, 136),
    29: (256, 56),
}
_NUMBERS: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING: Final = 8
_ARRAY: Final = 9
_ALIGNMENT: Final = "general.alignment"


class _Tensor(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def is_safetensors(head: bytes) -> bool:
    """Whether a file that begins so is safetensors, whole or not."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER


def check_safetensors(content: Content) -> None:
    """See that a safetensors file is whole: its tensors fill it without gaps.

    Raises:
        Damaged: It isn't.
    """
    length = int.from_bytes(content.at(0, 8), "little")
    if length > MAX_HEADER:
        raise content.damaged("its table of tensors is too large")
    plain = _table(content, content.at(8, length))
    spans = []
    for name, tensor in plain.items():
        start, end = tensor.data_offsets
        count = math.prod(tensor.shape)
        bits = _BITS.get(tensor.dtype)
        if not 0 <= start <= end or min(tensor.shape, default=0) < 0 or len(tensor.shape) > 64:
            raise content.damaged(f"its tensor {name[:80]!r} has an impossible place")
        if bits is not None and count * bits != (end - start) * 8:
            raise content.damaged(f"its tensor {name[:80]!r} and its shape don't belong together")
        spans.append((start, end))
    at = 0
    for start, end in sorted(spans):
        if start != at:
            raise content.damaged("its tensors overlap, or leave gaps")
        at = end
    if 8 + length + at > content.size:
        raise content.ends()
    if 8 + length + at < content.size:
        raise content.damaged("something follows its last tensor")


def _table(content: Content, header: bytes) -> dict[str, _Tensor]:
    try:
        plain = msgspec.json.decode(header, type=dict[str, Any])
        plain.pop("__metadata__", None)
        return msgspec.convert(plain, dict[str, _Tensor])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise content.damaged("its table of tensors can't be read") from None


def check_gguf(content: Content) -> None:
    """See that a GGUF file is whole.

    Raises:
        Damaged: It isn't, or it is of an unknown version.
    """
    cursor = Cursor(content)
    cursor.take(4)
    version, tensors, entries = cursor.unpack("<IQQ")
    if version not in (2, 3):
        raise content.damaged(f"it is GGUF of version {version}, which isn't known")
    if tensors > MAX_TENSORS or entries > MAX_TENSORS:
        raise content.damaged("it has too many parts")
    budget = _Budget(content)
    alignment = 32
    for _ in range(entries):
        key = _text(cursor, budget)
        kind = cursor.number("<I")
        value = _value(cursor, kind, budget, depth=0)
        if key == _ALIGNMENT.encode() and value:
            alignment = value
    ends = [_tensor_end(cursor, budget) for _ in range(tensors)]
    if not 1 <= alignment <= 1 << 20:
        raise content.damaged("its alignment is impossible")
    data = -(-cursor.offset // alignment) * alignment
    if data + max(ends, default=0) > content.size and tensors:
        raise content.ends()


class _Budget:
    """How many values are still read."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._left = MAX_ENTRIES

    def spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise self._content.damaged("it has too many entries")


def _text(cursor: Cursor, budget: _Budget) -> bytes:
    budget.spend(1)
    return cursor.take(cursor.number("<Q"))


def _value(cursor: Cursor, kind: int, budget: _Budget, *, depth: int) -> int | None:
    """Pass over a value; the number, if it is a whole one."""
    budget.spend(1)
    if kind in _NUMBERS:
        return int.from_bytes(cursor.take(_NUMBERS[kind]), "little")
    if kind == _STRING:
        cursor.skip(cursor.number("<Q"))
        return None
    if kind != _ARRAY or depth > 8:
        raise _unknown(cursor.content)
    of, count = cursor.unpack("<IQ")
    if of in _NUMBERS:
        cursor.skip(count * _NUMBERS[of])
        return None
    budget.spend(count)
    for _ in range(count):
        _value(cursor, of, budget, depth=depth + 1)
    return None


def _tensor_end(cursor: Cursor, budget: _Budget) -> int:
    """Where a tensor's bytes end, counted from where all of them begin."""
    _text(cursor, budget)
    dimensions = cursor.number("<I")
    if dimensions > 8:
        raise _unknown(cursor.content)
    count = math.prod(cursor.unpack(f"<{dimensions}Q"))
    kind, offset = cursor.unpack("<IQ")
    values, size = _BLOCKS.get(kind, (1, 0))
    return offset + -(-count // values) * size


def _unknown(content: Content) -> Damaged:
    return content.damaged("it has a part that GGUF doesn't know")
