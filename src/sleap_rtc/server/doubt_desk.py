"""What devices say is damaged, and what the server finds when it reads that itself.

::

    report ─► this version compared lately? ── yes ──► good, damaged
                 │ no
                 ▼
               open ── read here, compared with its name ─┬─ it is what it should be ─► good
                 ▲                                        └─ it isn't ────────────────► damaged
                 └── not read: tried again from time to time

Nobody is believed: whoever may read a room's files may also report one, and all that
comes of it is that the server reads it, once a day at most. What is damaged isn't
removed, since most of it may be good, and somebody may need just that. It isn't there
any more for whoever wants to store it (:mod:`sleap_rtc.server.sound_store`), who so
sends it anew; what then takes its place is another version, and in no doubt.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from loguru import logger
from msgspec.structs import replace

from sleap_rtc.domain.ids import DeviceId
from sleap_rtc.errors import Cancelled, Damaged, NotFound, SleapRtcError, SourceChanged
from sleap_rtc.server.comparing import GoingOn
from sleap_rtc.server.doubt_table import Doubt, DoubtTable
from sleap_rtc.server.storage_rules import MustCompare, Rights, Turns
from sleap_rtc.storage.objects import ObjectStore, StoredObject
from sleap_rtc.storage.service import DamageTold, ReportDamaged, content_key

GOOD_FOR: Final = timedelta(days=1)
"""After which what was compared, and is good, is compared again if somebody reports it again."""
COMPARED_AT_ONCE: Final = 16
"""Objects that are compared at most each time that the storage is tended."""
_KEPT: Final = 100_000
"""Damaged objects that are known at most."""

Digest = Callable[[StoredObject, GoingOn], str]
"""BLAKE3 of the content of this version of an object; what it raises says that it can't be read,
`Damaged` that it never will be, `NotFound` and `SourceChanged` that this version is gone."""


class DoubtDesk:
    """Takes reports, and knows what is damaged. For many threads.

    Args:
        store: Where objects are.
        table: What is known of doubts.
        rights: Who is a member of which room.
        now: The clock, UTC.
        digest: Reads an object.
    """

    def __init__(
        self,
        store: ObjectStore,
        table: DoubtTable,
        rights: Rights,
        *,
        now: Callable[[], datetime],
        digest: Digest,
    ) -> None:
        self._store, self._table, self._rights = store, table, rights
        self._now, self._digest = now, digest
        self._turns = Turns()
        self._closing = threading.Event()
        self._damaged = {each.key: each for each in table.having("damaged", limit=_KEPT)}

    def close(self) -> None:
        """End what is being compared: the server stops. It begins anew when that is started."""
        self._closing.set()

    def report_damaged(
        self, device: DeviceId, request: ReportDamaged, *, compare: bool = True
    ) -> DamageTold:
        """Take a report, and say how it is.

        Args:
            device: Who says so.
            request: What.
            compare: Whether this may take as long as reading the content; it is noted first.

        Raises:
            MustCompare: It would.
            NotFound: The server doesn't know the room.
            NotTrusted: The device is no member.
        """
        self._rights.member_of(device, request.room)
        found = self._store.head(content_key(request.area, request.room, request.blake3))
        if found is None or request.etag not in ("", found.etag):
            return DamageTold(found="gone")
        doubt = self._known(found)
        if doubt is None:
            logger.bind(device=device).warning("{} is said to be damaged", found.key)
            doubt = Doubt.of(found, request.room, now=self._now())
            self._table.put(doubt)
        if doubt.verdict == "open":
            if not compare:
                raise MustCompare
            try:
                settled = self._compared(doubt)
            except (SleapRtcError, OSError) as error:
                logger.warning("{} can't be compared now: {}", doubt.key, error)
                return DamageTold(found="open")
            if settled is None:
                return DamageTold(found="gone")
            doubt = settled
        return DamageTold(found=doubt.verdict)

    def is_damaged(self, found: StoredObject) -> bool:
        """Whether this version of an object is known not to be what its name says."""
        doubt = self._damaged.get(found.key)
        return doubt is not None and doubt.is_about(found)

    def was_damaged(self, key: str) -> bool:
        """Whether what was under a key is, or was minutes ago, known not to be what it should."""
        return key in self._damaged

    def sweep(self) -> None:
        """Compare what nobody did, and forget what is over. May take long."""
        for doubt in self._table.having("open", limit=COMPARED_AT_ONCE):
            try:
                self._compared(doubt)
            except Cancelled:
                return
            except (SleapRtcError, OSError) as error:
                logger.warning("{} can't be compared now: {}", doubt.key, error)
                self._table.put(replace(doubt, at=self._now().timestamp()))  # others come first
        for doubt in self._table.having("good", before=self._now() - GOOD_FOR):
            self._table.drop(doubt)
        for doubt in self._table.having("damaged"):
            with contextlib.suppress(SleapRtcError, OSError):
                found = self._store.head(doubt.key)
                if found is None or not doubt.is_about(found):
                    self._forget(doubt)

    def _known(self, found: StoredObject) -> Doubt | None:
        """What is known of this version; nothing where that was found out too long ago."""
        doubt = self._table.get(found.key)
        if doubt is None or not doubt.is_about(found):
            return None
        age = self._now().timestamp() - doubt.at
        fresh = 0 <= age < GOOD_FOR.total_seconds()
        return doubt if fresh or doubt.verdict != "good" else None

    def _compared(self, doubt: Doubt) -> Doubt | None:
        """Read an object; None where this version isn't there any more."""
        with self._turns.of(doubt.key):
            # Somebody else may just have done so.
            known = self._table.get(doubt.key)
            if known is not None and known.verdict != "open" and known.is_same(doubt):
                return known
            try:
                good = self._digest(doubt.object, self._go_on) == doubt.key.rpartition("/")[2]
            except (NotFound, SourceChanged, FileNotFoundError):
                self._forget(doubt)
                return None
            except Damaged:
                good = False  # the disk itself can't read it any more
            verdict: Final = "good" if good else "damaged"
            settled = replace(doubt, verdict=verdict, at=self._now().timestamp())
            self._table.put(settled)
            if good:
                self._damaged.pop(doubt.key, None)
                logger.info("{} is what it should be", doubt.key)
            else:
                self._damaged[doubt.key] = settled
                logger.error("{} is damaged: who stores it next sends it anew", doubt.key)
            return settled

    def _go_on(self) -> None:
        if self._closing.is_set():
            raise Cancelled(what="Comparing")

    def _forget(self, doubt: Doubt) -> None:
        self._table.drop(doubt)
        self._damaged.pop(doubt.key, None)
