"""Pickles, read instruction by instruction and never run.

Which names a pickle would import is told by picklescan, for each pickle of a
file by itself. What is walked here is its frame: where it ends, the storages of
tensors that it refers to (so that a file that lacks some is found out), the
epoch of a training. A pickle that is larger than any trainer's is refused.
"""

from __future__ import annotations

import io
import pickletools
import re
import struct
from typing import Any, Final

import msgspec

MAX_PICKLE: Final = 32 * 1024 * 1024
MAX_INSTRUCTIONS: Final = 2_000_000
MAX_STORAGES: Final = 200_000
TORCH_MAGIC: Final = 0x1950A86A20F9469CFC6C
"""The first pickle of a file as PyTorch wrote them before 1.6."""

ITEM_SIZES: Final = {
    **dict.fromkeys(("ByteStorage", "CharStorage", "BoolStorage"), 1),
    **dict.fromkeys(("QUInt8Storage", "QInt8Storage"), 1),
    **dict.fromkeys(("HalfStorage", "BFloat16Storage", "ShortStorage"), 2),
    **dict.fromkeys(("FloatStorage", "IntStorage", "QInt32Storage", "ComplexHalfStorage"), 4),
    **dict.fromkeys(("DoubleStorage", "LongStorage", "ComplexFloatStorage"), 8),
    "ComplexDoubleStorage": 16,
}
"""Bytes of one item of a storage."""

_KNOWN: Final = re.compile(
    r"""
    torch\ (?:\w+Storage|Size|device|float(?:16|32|64)|bfloat16|u?int(?:8|16|32|64)|bool)
    | torch\._utils\ _rebuild_(?:tensor_v2|parameter)
    | collections\ (?:OrderedDict|defaultdict|Counter)
    | (?:builtins|__builtin__)\ (?:bool|int|long|float|complex|str|unicode|bytes|bytearray
        |list|tuple|dict|set|frozenset|slice|object)
    | typing\ (?:Any|Dict|List|Tuple|Optional|Union)
    | _operator\ getitem
    | numpy\ (?:dtype|ndarray)
    | numpy\.(?:_core|core)\.multiarray\ (?:scalar|_reconstruct)
    | omegaconf\.(?:base|nodes|dictconfig|listconfig)\ [A-Z]\w*
    | sleap_nn\.config\.\w+\ [A-Z]\w*
    | pathlib\ (?:Pure)?(?:Posix|Windows)?Path
    """,
    re.VERBOSE,
)
"""Module and name of everything that a trainer's checkpoint may import."""

FAULTS: Final = (ValueError, struct.error, IndexError, OverflowError, EOFError, KeyError, TypeError)
"""What reading the instructions raises when they aren't right."""

_MARK: Final = object()


class Walked(msgspec.Struct, frozen=True):
    """One pickle.

    Attributes:
        end: Offset behind its last instruction.
        strange: What it would import, or do, that a checkpoint has no need of; sorted.
        storages: Name of each storage of tensors → its kind, and its items.
        strings: Short texts in it, up to 1,000 of them: keys of dictionaries, above all.
        epoch: The number behind the word ``epoch``, None if there is none.
        number: The whole number that it is, if it is nothing else.
        texts: The list of texts that it is, if it is nothing else.
    """

    end: int
    strange: tuple[str, ...]
    storages: dict[str, tuple[str, int]]
    strings: frozenset[str]
    epoch: int | None
    number: int | None
    texts: tuple[str, ...]


def walk(data: bytes, start: int = 0) -> Walked:
    """Read one pickle.

    Args:
        data: Bytes in which it is; at most `MAX_PICKLE` of them count.
        start: Where it begins.

    Raises:
        ValueError: It isn't a pickle, was cut, or is too large.
    """
    stream = io.BytesIO(data[start : start + MAX_PICKLE])
    reader = _Reader()
    end = None
    try:
        for count, (operation, argument, at) in enumerate(pickletools.genops(stream)):
            if count > MAX_INSTRUCTIONS:
                raise ValueError("it has more instructions than any checkpoint")
            reader.step(operation.name, argument)
            end = (at or 0) + 1 if operation.name == "STOP" else None
    except FAULTS as error:
        raise ValueError(str(error)[:200] or "it can't be read") from None
    if end is None:
        raise ValueError("it ends too early")
    return Walked(
        end=start + end,
        strange=tuple(sorted(_strange(data[start : start + end]) | reader.strange)),
        storages=reader.storages,
        strings=frozenset(reader.strings),
        epoch=reader.epoch,
        number=reader.number if reader.literals == 1 else None,
        texts=tuple(reader.texts) if reader.literals == len(reader.texts) else (),
    )


def _strange(data: bytes) -> set[str]:
    """What a pickle would import beyond what checkpoints consist of."""
    from picklescan.scanner import scan_pickle_bytes  # noqa: PLC0415 - only where one is looked into

    try:
        result = scan_pickle_bytes(io.BytesIO(data), "pickle", multiple_pickles=False)
    except FAULTS:
        return {"it hides what it would import"}
    names = {(found.module, found.name) for found in result.globals}
    return {
        f"it would import {module}.{name}"[:200]
        for module, name in names
        if _KNOWN.fullmatch(f"{module} {name}") is None
    }


class _Reader:
    """Follows what a pickle puts together, as far as storages and keys need it.

    A storage is ``('storage', torch.FloatStorage, key, device, items, …)`` between a mark and the
    instruction that makes a tuple of it. So the values since the last mark are enough.
    """

    def __init__(self) -> None:
        self.storages: dict[str, tuple[str, int]] = {}
        self.strings: set[str] = set()
        self.strange: set[str] = set()
        self.texts: list[str] = []
        self.literals = 0
        self.number: int | None = None
        self.epoch: int | None = None
        self._memo: dict[int, Any] = {}
        self._recent: list[Any] = []
        self._last: Any = None
        self._names: list[Any] = []

    def step(self, name: str, argument: Any) -> None:
        """Take in one instruction."""
        if name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[int(argument)] = self._last
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._last
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._push(self._memo.get(int(argument)))
        elif name == "MARK":
            self._recent = []
            self._last = _MARK
        elif name in ("GLOBAL", "INST"):
            self._push(_Global(str(argument)))
        elif name == "STACK_GLOBAL":
            self._push(_Global(" ".join(str(part) for part in self._recent[-2:])))
        elif name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            self._last = tuple(self._recent)
        elif name == "BINPERSID":
            self._storage(self._last)
            self._last = None
        elif name.startswith("EXT"):
            self.strange.add("it would import something by number")
        elif isinstance(argument, (str, int)) and name not in ("PROTO", "FRAME"):
            self._literal(argument)
        elif name not in ("PROTO", "FRAME", "STOP"):
            self._push(None)

    def _literal(self, value: str | int) -> None:
        self.literals += 1
        if isinstance(value, str):
            self.texts.append(value)
            if len(value) <= 100 and len(self.strings) < 1_000:
                self.strings.add(value)
        else:
            self.number = value
            if self._last == "epoch" and self.epoch is None and value >= 0:
                self.epoch = value
        self._push(value)

    def _push(self, value: Any) -> None:
        self._last = value
        self._recent.append(value)
        if len(self._recent) > 64:
            del self._recent[:-16]

    def _storage(self, found: Any) -> None:
        match found:
            case ("storage", _Global() as kind, str() as key, _, int() as items, *_):
                if len(self.storages) >= MAX_STORAGES:
                    raise ValueError("it has more tensors than any checkpoint")
                self.storages[key] = (kind.name.rpartition(" ")[2], items)
            case _:
                raise ValueError("it refers to something that isn't a tensor")


class _Global(msgspec.Struct, frozen=True):
    name: str
