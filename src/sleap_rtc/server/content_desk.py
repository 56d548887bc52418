"""Contents in one piece, hundreds at a time: which are there, links for the others, what became.

::

    offer ──► there: nothing is to be sent
       └────► expected ── PUT ── confirm ──┬─► stored, as the store itself says
                 ▲                         └─► none: to be sent again
                 └── asked again ──────────────┘      (forgotten after a day)

What is expected is noted before a link is given, and what is stored before anybody
is told so. While a content is expected nobody removes what is under its key. What
the sender says counts for nothing: `confirm` asks the store.

A folder has compared a content with both of its hashes before it is there. A bucket
has compared it with the SHA-256 of its link, and whoever reads it compares that with
the BLAKE3, as with uploads in parts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence
from datetime import datetime

import msgspec
from loguru import logger

from sleap_rtc.domain.ids import DeviceId
from sleap_rtc.errors import Busy, Damaged, DataError
from sleap_rtc.server.content_table import ContentTable, ExpectedRow, Known
from sleap_rtc.server.storage_rules import (
    LIFETIME,
    MUST_STAY,
    MustCompare,
    Rights,
    Turns,
    check_writer,
    ends,
)
from sleap_rtc.server.usage import Quota
from sleap_rtc.storage.objects import (
    MAX_WHOLE,
    PART_SECONDS,
    Content,
    ObjectStore,
    StoredObject,
)
from sleap_rtc.storage.service import (
    Area,
    ConfirmContents,
    ContentsConfirmed,
    ContentsOffered,
    LinksTold,
    NamedContent,
    ObjectTold,
    OfferContents,
    RequestLinks,
    content_key,
)


class ContentDesk:
    """Answers what devices ask of many contents at once.

    Args:
        store: Where objects are.
        table: What is expected and stored.
        rights: Who is a member of which room.
        quota: What a room may have.
        now: The clock, UTC.
        digest: BLAKE3 of an object's content, where it can be read here; None where it can't.
        turns: Whose turn it is to make or remove an object.
        settle: Finds out what became of uploads in parts to a key that were being completed.
    """

    def __init__(
        self,
        store: ObjectStore,
        table: ContentTable,
        rights: Rights,
        *,
        quota: Quota,
        now: Callable[[], datetime],
        digest: Callable[[str], str] | None,
        turns: Turns,
        settle: Callable[[str], None],
    ) -> None:
        self._store, self._table, self._rights = store, table, rights
        self._quota, self._now, self._digest, self._turns = quota, now, digest, turns
        self._settle = settle

    def offer(
        self, device: DeviceId, request: OfferContents, *, compare: bool = True
    ) -> ContentsOffered:
        """Say where to send contents, or that they are there already.

        Args:
            device: Who asks.
            request: What.
            compare: Whether this may take as long as reading what is there.

        Raises:
            MustCompare: It would.
            Busy: One of them is being completed at this moment, as an upload in parts.
            NotPermitted: The device may not write there.
            NotFound: The server doesn't know the room.
            DataError: One is named twice.
            QuotaExceeded: The room would have more than it may; none is offered.
            TooManyRequests: The device has links for too many.
        """
        check_writer(self._rights.member_of(device, request.room), request.area)
        named = _by_key(request.room, request.area, request.contents)
        known = self._settled(named, device, compare=compare)
        for key in known.condemned:
            self._finish_removing(key)
        # Of what nobody has spoken of the store isn't asked: should it be there, it says so later.
        spoken_of = known.stored | known.expected
        looked = sorted((frozenset(named) if request.again else spoken_of) - known.unsure)
        found = self._found(looked)
        there = self._there(request, named, found, known, compare=compare)
        wanted = [key for key in named if key not in there]
        asked = self._now().timestamp()
        self._table.expect(
            [_row(device, request, key, named[key], asked=asked) for key in wanted],
            quota=self._quota,
        )
        links = {
            key: self._store.content_request(
                Content(key=key, size=named[key].size, sha256=named[key].sha256),
                blake3=named[key].blake3,
                # What a folder keeps is right, or was removed here.
                replacing=self._digest is None and key in found,
            )
            for key in wanted
        }
        return ContentsOffered(
            requests=tuple(links.get(key) for key in named), expires_in=PART_SECONDS
        )

    def confirm(
        self, device: DeviceId, request: ConfirmContents, *, compare: bool = True
    ) -> ContentsConfirmed:
        """Say what of contents that were offered the store has.

        Args:
            device: Who asks.
            request: What.
            compare: Whether this may take as long as reading what is there.

        Raises:
            MustCompare: It would.
            Busy: One of them is being completed at this moment, as an upload in parts.
            NotPermitted: The device may not write there.
            NotFound: The server doesn't know the room.
            DataError: One is named twice.
        """
        check_writer(self._rights.member_of(device, request.room), request.area)
        named = _by_key(request.room, request.area, request.contents)
        known = self._settled(named, device, compare=compare)
        # What a sweep removes may be here for a moment yet: it is to be sent again.
        asked = sorted((known.mine | known.stored) - known.unsure - known.condemned)
        found = {
            key: there
            for key, there in self._found(asked).items()
            if there.size == named[key].size and not self._ends_soon(request.area, there)
        }
        now = self._now()
        self._table.stored(
            [_row(device, request, key, named[key]) for key in found if key in known.mine],
            now=now,
        )
        stays = self._table.stay(found, now=now)
        return ContentsConfirmed(
            stored=tuple(
                self._told(request.area, found[key], now) if key in stays else None for key in named
            )
        )

    def links(self, device: DeviceId, request: RequestLinks) -> LinksTold:
        """Give requests that read contents; the store says which of them are there.

        Raises:
            NotFound: The server doesn't know the room.
            NotTrusted: The device is no member.
        """
        self._rights.member_of(device, request.room)
        keys = [content_key(request.area, request.room, blake3) for blake3 in request.contents]
        return LinksTold(
            requests=tuple(self._store.download_requests(keys)), expires_in=PART_SECONDS
        )

    def sweep(self, before: datetime) -> None:
        """Find out what became of contents for which nobody asked any more since then."""
        rows = self._table.asked_before(before)
        found = self._found(sorted({row.key for row in rows}))
        # What came counts for the room as it is, whatever was said of it, and goes in its time.
        came = [
            msgspec.structs.replace(row, size=there.size)
            for row in rows
            if (there := found.get(row.key)) is not None
        ]
        self._table.stored(came, now=self._now())
        self._table.drop(rows)

    # ── the rest ─────────────────────────────────────────────────────────────

    def _settled(self, keys: Collection[str], device: DeviceId, *, compare: bool) -> Known:
        """What is known of some keys, once it is sure of each of them what is there."""
        known = self._table.known(keys, device)
        if known.unsure:
            if not compare:
                raise MustCompare
            for key in known.unsure:
                self._settle(key)
            known = self._table.known(keys, device)
        return known

    def _found(self, keys: Sequence[str]) -> dict[str, StoredObject]:
        found = zip(keys, self._store.heads(keys), strict=True)
        return {key: there for key, there in found if there is not None}

    def _there(
        self,
        request: OfferContents,
        named: dict[str, NamedContent],
        found: dict[str, StoredObject],
        known: Known,
        *,
        compare: bool,
    ) -> frozenset[str]:
        """Those of which one who wants to send them can rely on what is there."""
        right = {
            key
            for key, there in found.items()
            if not (request.again and self._digest is None)
            and there.size == named[key].size
            and not self._ends_soon(request.area, there)
        }
        if self._digest is not None:
            # What is larger than any content in one piece has been damaged by nothing: only who
            # asks is wrong, and would have this machine read it all.
            compared = [
                key
                for key, there in found.items()
                if (request.again or key not in right) and there.size <= MAX_WHOLE
            ]
            if compared and not compare:
                raise MustCompare(sum(found[key].size for key in compared))
            right -= {
                key for key in compared if not self._keeps(self._digest, key, named[key].blake3)
            }
        stays = self._table.stay(right & known.stored, now=self._now())
        # In a bucket, and in the area that stays, an object needn't be known to be relied on.
        unknown = right if self._digest is None or request.area == "rooms" else frozenset()
        return stays | frozenset(unknown)

    def _keeps(self, digest: Callable[[str], str], key: str, blake3: str) -> bool:
        """Whether a folder's object is what its key says; one that isn't is removed."""
        with self._turns.of(key):
            with contextlib.suppress(FileNotFoundError, Damaged):
                if digest(key) == blake3:
                    return True
            self._remove(key)
        logger.warning("{} was damaged, and is taken anew", key)
        return False

    def _finish_removing(self, key: str) -> None:
        """Remove what a sweep removes at this moment, or was about to when the server stopped."""
        # Whoever has the turn may take long; then it is removed another time.
        with contextlib.suppress(Busy), self._turns.of(key, wait=False):
            if self._table.is_condemned(key):
                self._remove(key)

    def _remove(self, key: str) -> None:
        self._store.delete(key)
        self._table.forget(key)

    def _ends_soon(self, area: Area, found: StoredObject) -> bool:
        """Whether a bucket's own rule removes an object soon; a folder's stays for a day yet."""
        end = None if self._digest else ends(area, found, None)
        return end is not None and end - self._now() < MUST_STAY

    def _told(self, area: Area, found: StoredObject, now: datetime) -> ObjectTold:
        end = now + LIFETIME if self._digest and area == "uploads" else ends(area, found, None)
        return ObjectTold(key=found.key, size=found.size, etag=found.etag, expires=end)


def _row(
    device: DeviceId,
    request: OfferContents | ConfirmContents,
    key: str,
    content: NamedContent,
    *,
    asked: float = 0.0,
) -> ExpectedRow:
    """What a device has a link for, or has sent."""
    return ExpectedRow(
        key=key,
        device=device,
        room=request.room,
        area=request.area,
        size=content.size,
        asked=asked,
    )


def _by_key(room: str, area: Area, contents: Sequence[NamedContent]) -> dict[str, NamedContent]:
    """Contents by their keys, in their order.

    Raises:
        DataError: One is named twice.
    """
    named = {content_key(area, room, content.blake3): content for content in contents}
    if len(named) != len(contents):
        raise DataError(what="The request", why="a content is named twice")
    return named
