"""Models in several files: which belong together, and which are missing (IMP-6). Pure.

=======================  ==========================================  ===================
form                     the set is                                  a hole is
=======================  ==========================================  ===================
``m-00001-of-00005.x``   as large as it says                         any missing number
``m.x.part1``            from the first to the last that are there   a number in between
``m_00001.x``            the same, if it begins with 0 or 1          a number in between
an index (``.json``)     what it names                               a name that isn't there
=======================  ==========================================  ===================
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any, Final

import msgspec

MAX_PARTS: Final = 10_000
MAX_INDEX: Final = 32 * 1024 * 1024
INDEX: Final = ".index.json"
"""How the name of an index of shards ends, as safetensors and PyTorch have it."""

_OF: Final = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.\w+)", re.DOTALL)
_PART: Final = re.compile(r"(.*)\.part(\d{1,5})(\.\w+)?", re.DOTALL)
_NUMBERED: Final = re.compile(r"(.*)_(\d{5})(\.\w+)", re.DOTALL)


class Shard(msgspec.Struct, frozen=True):
    """What a file's name says of its place in a set.

    Attributes:
        group: The same for all files of one set.
        number: Which it is.
        total: How many there are, where the name says so.
        form: The name of a number, as ``{}`` in a template.
    """

    group: str
    number: int
    total: int | None
    form: str


def shard_of(name: str) -> Shard | None:
    """The place in a set that a file's name tells, None for a file by itself."""
    if match := _OF.fullmatch(name):
        stem, number, total, ending = match.groups()
        form = f"{stem}-{{:05}}-of-{total}{ending}"
        return Shard(group=form, number=int(number), total=int(total), form=form)
    if match := _PART.fullmatch(name):
        stem, number, ending = match[1], match[2], match[3] or ""
        form = f"{stem}.part{{:0{len(number) if number[0] == '0' else 1}}}{ending}"
        return Shard(group=f"{stem}.part*{ending}", number=int(number), total=None, form=form)
    if match := _NUMBERED.fullmatch(name):
        stem, number, ending = match.groups()
        form = f"{stem}_{{:05}}{ending}"
        return Shard(group=form, number=int(number), total=None, form=form)
    return None


def grouped(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Files by the set that they belong to; a file by itself is a set of one, under its name.

    Numbered files that begin with neither 0 nor 1 are no set: checkpoints by epoch, for example.
    """
    sets: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        shard = shard_of(name)
        group, number = (shard.group, shard.number) if shard else (name, 0)
        sets.setdefault(group, []).append((number, name))
    found: dict[str, tuple[str, ...]] = {}
    for group, members in sets.items():
        ordered = [name for _, name in sorted(members)]
        shard = shard_of(ordered[0])
        if shard is not None and shard.total is None and shard.number > 1:
            found |= {name: (name,) for name in ordered}
        else:
            found[group] = tuple(ordered)
    return found


def missing(names: Collection[str]) -> tuple[str, ...]:
    """The files that the sets among these lack, sorted."""
    lacking: set[str] = set()
    for members in grouped(names).values():
        shards = [shard for name in members if (shard := shard_of(name))]
        if not shards or (len(shards) == 1 and shards[0].total is None):
            continue
        numbers = {shard.number for shard in shards}
        first = 0 if 0 in numbers else 1
        total = shards[0].total
        last = max(numbers) if total is None else total - 1 + first
        if last > MAX_PARTS:
            continue
        lacking |= {shards[0].form.format(n) for n in range(first, last + 1) if n not in numbers}
    return tuple(sorted(lacking))


def named_by(index: bytes) -> tuple[str, ...]:
    """The files that an index of shards names, sorted; none if it isn't one."""
    try:
        plain: Any = msgspec.json.decode(index)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return ()
    weights = plain.get("weight_map") if isinstance(plain, dict) else None
    if not isinstance(weights, dict):
        return ()
    return tuple(sorted({name for name in weights.values() if isinstance(name, str)}))[:MAX_PARTS]
