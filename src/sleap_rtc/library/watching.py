"""Noticing that a library changed, whoever changed it: by the marks that writers leave."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from sleap_rtc.domain.ids import ModelId
from sleap_rtc.library import layout, marks

_SETTLED_NS: Final = 2_000_000_000
"""A folder's time tells of every change in it only when it is older than its clock is coarse."""


class Changed(msgspec.Struct, frozen=True):
    """What changed since the last look.

    Attributes:
        models: The models of which that is known.
        any: Whether others may have changed too: a great many did, or marks were pruned before
            they were seen.
    """

    models: tuple[ModelId, ...] = ()
    any: bool = False

    def __bool__(self) -> bool:
        """Whether anything did."""
        return self.any or bool(self.models)


class LibraryWatch:
    """Looks at a library's marks, from now on. For one thread at a time.

    Args:
        models: The library.
        now_ns: Nanoseconds since 1970.
    """

    def __init__(self, models: Path, *, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._models = models
        self._now_ns = now_ns
        self._stamp = marks.stamp(models)
        names = marks.names(models)
        self._under_way = self._unfinished(filter(None, map(marks.parse, names)))
        self._seen = names - self._under_way
        self._looked_at = now_ns()

    def look(self) -> Changed:
        """What changed since this was made, or last asked.

        A model whose change is under way is named, and again when it is done.
        """
        now = self._now_ns()
        slept = (now - self._looked_at) / 1e9 >= marks.KEPT_S
        self._looked_at = now
        stamp = marks.stamp(self._models)
        if stamp == self._stamp and now - stamp > _SETTLED_NS and not self._under_way:
            return Changed(any=slept)
        names = marks.names(self._models)
        new = sorted(names - self._seen)
        told = [mark for mark in map(marks.parse, new) if mark]
        self._under_way = self._unfinished(told)
        self._stamp, self._seen = stamp, names - self._under_way
        many = any(m.directory == marks.ALL and m.name not in self._under_way for m in told)
        found = (layout.parse(mark.directory) for mark in told)
        models = tuple(dict.fromkeys(each[1] for each in found if each))
        return Changed(models=models, any=slept or many)

    def _unfinished(self, told: Iterable[marks.Mark]) -> set[str]:
        """Names of those marks that tell of many changes whose writer is still at work."""
        many = (mark for mark in told if mark.directory == marks.ALL)
        return {mark.name for mark in many if not marks.is_over(self._models, mark)}
