"""Telling how far something is that takes long: a person waits for nothing silently."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Told = Callable[[int, int], None]
"""Called with how many steps of how many are done, from 0 to all; what it raises ends the work."""

_T = TypeVar("_T")


def unseen(_done: int, _of: int) -> None:
    """For work that nobody watches."""


def counted(items: Iterable[_T], of: int, told: Told) -> Iterator[_T]:
    """The same items; how many of them were taken is told on the way.

    Args:
        items: Any number of them.
        of: How many they are, or were a moment ago.
        told: Told of each.
    """
    for done, item in enumerate(items):
        told(min(done, of), of)
        yield item
    told(of, of)
