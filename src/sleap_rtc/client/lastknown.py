"""What this machine was told last of its rooms, for when nobody can be asked.

::

    <home>/known/ab/abcd….json     one answer, and when it came: ``net/httpcache.py``

An answer is found again by what was asked, word for word. After 30 days it is none,
and the least used go when there are too many. A disk that is full keeps nothing,
which is no error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from sleap_rtc.auth.store import RoomEntry
from sleap_rtc.client.asking import RemoteModel, RemoteModels
from sleap_rtc.domain.places import Presence
from sleap_rtc.domain.values import Value, decode, encode
from sleap_rtc.errors import DataError, Offline, UsageError
from sleap_rtc.net.httpcache import HttpCache, Kept
from sleap_rtc.protocol.library import ListModels

V = TypeVar("V")
T = TypeVar("T", bound=Value)


class Known(msgspec.Struct, Generic[V], frozen=True):
    """An answer that is kept: what it was, and when it came (UTC)."""

    told: V
    as_of: datetime


class LastKnown:
    """What this machine was told last. For several processes.

    Args:
        folder: Where it is kept.
        clock: The time, UTC.
    """

    def __init__(
        self, folder: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._cache = HttpCache(folder)
        self._clock = clock

    def keep_workers(self, room: RoomEntry, workers: Sequence[Presence]) -> None:
        """Keep who is online in a room."""
        self._keep(f"{room.room} workers", _Workers(workers=tuple(workers)))

    def workers(self, room: RoomEntry) -> Known[tuple[Presence, ...]]:
        """Who was online in a room, by name.

        Raises:
            Offline: That isn't known.
        """
        found = self._get(f"{room.room} workers", _Workers)
        if found is None:
            raise _unknown(room)
        return Known(told=found.told.workers, as_of=found.as_of)

    def keep_models(
        self, room: RoomEntry, worker: str, query: ListModels, limit: int, told: RemoteModels
    ) -> None:
        """Keep a list of a worker's models."""
        self._keep(_models(room, worker, query, limit), told)

    def models(
        self, room: RoomEntry, worker: str, query: ListModels, limit: int
    ) -> Known[RemoteModels]:
        """What a worker's models were when exactly that was asked.

        Raises:
            Offline: That isn't known.
        """
        found = self._get(_models(room, worker, query, limit), RemoteModels)
        if found is None:
            raise _unknown(room, hint=f"A list of {worker} is known as it was asked for before.")
        return found

    def keep_model(self, room: RoomEntry, worker: str, name: str, told: RemoteModel) -> None:
        """Keep everything about a worker's model, by all of its names."""
        for each in {name, told.record.id, told.alias or name}:
            self._keep(f"{room.room} {worker} model {each}", told)

    def model(self, room: RoomEntry, worker: str, name: str) -> Known[RemoteModel]:
        """What a worker's model was.

        Raises:
            Offline: That isn't known.
        """
        found = self._get(f"{room.room} {worker} model {name}", RemoteModel)
        if found is None:
            raise _unknown(room, hint=f"{name} of {worker} wasn't asked for lately.")
        return found

    def only_worker(self, room: RoomEntry) -> str:
        """The worker that is meant when none is named.

        Raises:
            Offline: None is known.
            UsageError: Several are.
        """
        names = [each.name for each in self.workers(room).told]
        if not names:
            raise _unknown(room)
        if len(names) > 1:
            raise UsageError(
                message="Several workers were online.", hint=f"Add --worker: {', '.join(names)}."
            )
        return names[0]

    def _keep(self, about: str, told: Value) -> None:
        now = self._clock()
        kept = Kept(
            url=about, status=200, headers={}, body=encode(told), stored=now, fresh_until=now
        )
        self._cache.put(about, kept)

    def _get(self, about: str, kind: type[T]) -> Known[T] | None:
        kept = self._cache.get(about)
        if kept is None or not kept.is_usable(self._clock()):
            return None
        try:
            return Known(told=decode(kind, kept.body, what="what was kept"), as_of=kept.stored)
        except DataError:  # of another version
            return None


class _Workers(Value, frozen=True):
    workers: tuple[Presence, ...]


def _models(room: RoomEntry, worker: str, query: ListModels, limit: int) -> str:
    return f"{room.room} {worker} models {limit} {encode(query).decode('utf-8')}"


def _unknown(room: RoomEntry, *, hint: str = "") -> Offline:
    error = Offline(url=room.server)
    error.hint_text = f"{hint} {error.hint_text}".strip()
    return error
