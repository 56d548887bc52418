"""What devices ask of the server's storage, over the HTTP API: rights, quotas, uploads.

::

    request-upload ─► open ─ complete-upload ─► completing ─► done      (forgotten after a day)
                       │  ▲                        │
          abort, a day │  └── parts are missing ───┤ another content: Damaged
                       ▼                           ▼
                     gone ◄────────────────────── gone

What happens is noted before it is answered. ``completing`` is noted before the
store is asked: after a crash nobody is told that the object is there until its
content was compared, where the store is a folder that can be read. Everything
here blocks; the shell calls it in threads.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from loguru import logger

from sleap_rtc.domain.ids import DeviceId
from sleap_rtc.errors import (
    Damaged,
    NotFound,
    NotPermitted,
    SleapRtcError,
    UnknownUpload,
)
from sleap_rtc.server.content_desk import ContentDesk
from sleap_rtc.server.content_table import ContentTable
from sleap_rtc.server.storage_rules import (
    LIFETIME,
    MUST_STAY,
    MustCompare,
    Rights,
    Turns,
    check_writer,
    ends,
)
from sleap_rtc.server.upload_table import UploadRow, UploadTable
from sleap_rtc.server.usage import Quota
from sleap_rtc.storage.objects import (
    PART_SECONDS,
    ObjectStore,
    Part,
    SignedRequest,
    StoredObject,
    StoredPart,
    part_size_for,
)
from sleap_rtc.storage.service import (
    Aborted,
    AbortUpload,
    Area,
    CompleteUpload,
    ConfirmContents,
    ContentsConfirmed,
    ContentsOffered,
    DownloadTold,
    LinksTold,
    ObjectTold,
    OfferContents,
    RenewUpload,
    RequestDownload,
    RequestLinks,
    RequestsTold,
    RequestUpload,
    UploadStatus,
    UploadTold,
    content_key,
)

QUIET: Final = timedelta(minutes=10)
"""An upload for which nothing was asked for so long is gone on with by whoever asks anew; before,
another process of the same device may still be sending it."""
TOUCH_S: Final = 30.0
"""Seconds after which it is noted again that an upload goes on: each note waits for the disk."""


class StorageDesk:
    """Answers what devices ask of the storage.

    Args:
        store: Where objects are.
        table: What is known of uploads and objects.
        contents: What is known of contents that come in one piece.
        rights: Who is a member of which room.
        quota: What a room may have.
        largest_parts: Bytes that a part should have at most.
        now: The clock, UTC.
        digest: BLAKE3 of an object's content, where it can be read here; None where it can't.
    """

    def __init__(
        self,
        store: ObjectStore,
        table: UploadTable,
        contents: ContentTable,
        rights: Rights,
        *,
        quota: Quota,
        largest_parts: int,
        now: Callable[[], datetime],
        digest: Callable[[str], str] | None = None,
    ) -> None:
        self._store, self._table, self._rights = store, table, rights
        self._quota, self._largest_parts = quota, largest_parts
        self._now, self._digest = now, digest
        self._turns = Turns()
        self._contents = ContentDesk(
            store,
            contents,
            rights,
            quota=quota,
            now=now,
            digest=digest,
            turns=self._turns,
            settle=self._settle_key,
        )

    # ── uploads ──────────────────────────────────────────────────────────────

    def request_upload(
        self, device: DeviceId, request: RequestUpload, *, compare: bool = True
    ) -> UploadTold:
        """Say where to send a content, or that it is there already.

        Args:
            device: Who asks.
            request: What.
            compare: Whether this may take as long as reading what is there.

        Raises:
            MustCompare: It would.
            NotPermitted: The device may not write there.
            NotFound: The server doesn't know the room.
            QuotaExceeded: The room would have more than it may.
            OutOfSpace: The store is full.
        """
        check_writer(self._rights.member_of(device, request.room), request.area)
        key = content_key(request.area, request.room, request.blake3)
        found = self._there(key)
        if found is not None and self._stays(found, request, compare=compare):
            end = self._end(request.area, found)
            return UploadTold(state="there", key=key, size=found.size, expires=end)
        row = self._table.open_of(key, device)
        resumed = row is not None and self._goes_on(row, request)
        if row is None or not resumed:
            row = self._begin(device, request, key)
        return UploadTold(
            state="open",
            key=key,
            size=row.size,
            upload_id=row.id,
            part_size=row.part_size,
            part_count=row.upload.part_count,
            checksum=row.checksum,
            resumed=resumed,
            requests=self._sign(row, request.parts),
            expires=self._now() + LIFETIME,
        )

    def renew_upload(self, device: DeviceId, request: RenewUpload) -> RequestsTold:
        """Give requests that send parts.

        Raises:
            UnknownUpload: There is none, or it is done.
            DataError: A part that the upload doesn't have, or of another size.
        """
        row = self._mine(device, request.upload_id)
        if row.state == "done":
            raise UnknownUpload(key=row.key)
        requests = self._sign(row, request.parts)
        if abs(self._now().timestamp() - row.touched) >= TOUCH_S:
            self._table.touch(row.id, now=self._now())
        return RequestsTold(requests=requests, expires_in=PART_SECONDS)

    def upload_status(self, device: DeviceId, upload_id: str) -> UploadStatus:
        """Say how far an upload has come.

        Raises:
            UnknownUpload: There is none.
        """
        row = self._mine(device, upload_id)
        parts = tuple(self._parts(row)) if row.state == "open" else ()
        return UploadStatus(
            upload_id=row.id,
            state=row.state,
            key=row.key,
            size=row.size,
            part_size=row.part_size,
            part_count=row.upload.part_count,
            checksum=row.checksum,
            parts=parts,
            expires=datetime.fromtimestamp(row.touched, UTC) + LIFETIME,
        )

    def complete_upload(
        self, device: DeviceId, request: CompleteUpload, *, compare: bool = True
    ) -> ObjectTold:
        """Make the object of its parts; asked again, it says the same again.

        Args:
            device: Who asks.
            request: What.
            compare: Whether this may take as long as reading what was sent.

        Raises:
            MustCompare: It would.
            UnknownUpload: There is none, or the store has given it up.
            PartsMissing: The store lacks parts, or has others.
            DataError: Not every part is named.
            Damaged: Its content is another one than its hash says; it is gone.
        """
        row = self._mine(device, request.upload_id)
        if not compare:
            raise MustCompare(row.size if self._digest is not None else 0)
        with self._turns.of(row.key):
            found = self._there(row.key, but=row.id)
            if row.state == "done":
                if found is None:
                    self._table.remove(row.id)
                    self._table.remove_object(row.key)
                    raise UnknownUpload(key=row.key)
                return self._told(row.area, found)
            if row.state == "open" and found is not None and self._digest is not None:
                # Another device was quicker: what was compared is never replaced by what wasn't.
                self._store.abort(row.upload)
            else:
                found = self._complete(row, request.parts)
            # Who was quicker may have said another size, and the true one counts.
            self._table.done(msgspec.structs.replace(row, size=found.size), now=self._now())
        return self._told(row.area, found)

    def abort_upload(self, device: DeviceId, request: AbortUpload) -> Aborted:
        """Give an upload up.

        Raises:
            NotPermitted: Another device began it.
            Busy: It is being completed at this moment.
        """
        row = self._table.get(request.upload_id)
        if row is None:
            return Aborted()
        if row.device != device:
            raise NotPermitted(message="Another device began this upload.")
        if row.state == "open":
            # Should somebody complete it at this moment, the store decides who was first.
            self._store.abort(row.upload)
            if self._table.remove(row.id, only="open"):
                return Aborted()
        with self._turns.of(row.key, wait=False):
            row = self._table.get(row.id)
            if row is not None:
                self._give_up(row)
        return Aborted()

    # ── contents in one piece ────────────────────────────────────────────────

    def offer_contents(
        self, device: DeviceId, request: OfferContents, *, compare: bool = True
    ) -> ContentsOffered:
        """Say where to send contents; see :class:`~sleap_rtc.server.content_desk.ContentDesk`."""
        return self._contents.offer(device, request, compare=compare)

    def confirm_contents(
        self, device: DeviceId, request: ConfirmContents, *, compare: bool = True
    ) -> ContentsConfirmed:
        """Say what of contents the store has."""
        return self._contents.confirm(device, request, compare=compare)

    def request_links(self, device: DeviceId, request: RequestLinks) -> LinksTold:
        """Give requests that read contents."""
        return self._contents.links(device, request)

    # ── downloads ────────────────────────────────────────────────────────────

    def request_download(self, device: DeviceId, request: RequestDownload) -> DownloadTold:
        """Give a request that reads a content.

        Raises:
            NotFound: It isn't there, or the server doesn't know the room.
            NotTrusted: The device is no member.
        """
        self._rights.member_of(device, request.room)
        key = content_key(request.area, request.room, request.blake3)
        found = self._there(key)
        if found is None:
            raise NotFound(message=f"The room's storage has no content {request.blake3[:16]}….")
        return DownloadTold(
            key=key,
            size=found.size,
            etag=found.etag,
            request=self._store.download_request(key),
            expires_in=PART_SECONDS,
        )

    # ── from time to time ────────────────────────────────────────────────────

    def recover(self) -> None:
        """Find out of which uploads that a crash interrupted the object is there."""
        for row in self._table.completing():
            with self._turns.of(row.key), _logged(f"the upload to {row.key}"):
                self._settle(row)

    def sweep(self) -> int:
        """Give up uploads that nobody went on with for a day, and empty the temporary area.

        Returns:
            How many went.
        """
        before = self._now() - LIFETIME
        with _logged("what was offered"):
            self._contents.sweep(before)
        gone = 0
        for row in self._table.untouched_since(before):
            with self._turns.of(row.key), _logged(f"the upload to {row.key}"):
                self._give_up(row)
                gone += 1
        for key in self._table.stored_before("uploads", before):
            with self._turns.of(key), _logged(key):
                # Whoever asks for it now is told that it isn't there, or it stays.
                if self._table.condemn(key, before):
                    self._store.delete(key)
                    self._table.remove_object(key)
                    gone += 1
        return gone

    # ── the rest ─────────────────────────────────────────────────────────────

    def _there(self, key: str, *, but: str = "") -> StoredObject | None:
        """What is under a key, once it is sure to be what it should.

        Args:
            key: The key.
            but: An upload that doesn't make it unsure.
        """
        if any(row.id != but for row in self._table.completing(key)):
            return None
        return self._store.head(key)

    def _stays(self, found: StoredObject, request: RequestUpload, *, compare: bool) -> bool:
        """Whether somebody who asks to upload it can rely on what is there."""
        if self._digest is None:
            self._table.stay(found.key, now=self._now())
            end = self._end(request.area, found)
            ends_soon = end is not None and end - self._now() < MUST_STAY
            return not ends_soon and not request.again and found.size == request.size
        if found.size == request.size and not request.again:
            # What isn't known here is being removed, or was brought by nobody who was asked.
            return self._table.stay(found.key, now=self._now()) or request.area == "rooms"
        if not compare:
            raise MustCompare(found.size)
        with self._turns.of(found.key):
            if self._content(found.key) == request.blake3:
                return self._table.stay(found.key, now=self._now()) or request.area == "rooms"
            self._store.delete(found.key)
            self._table.remove_object(found.key)
        logger.warning("{} was damaged, and is taken anew", found.key)
        return False

    def _end(self, area: Area, found: StoredObject) -> datetime | None:
        return ends(area, found, self._table.stored(found.key) if self._digest else None)

    def _goes_on(self, row: UploadRow, request: RequestUpload) -> bool:
        """Go on with an open upload, if that can be."""
        if row.size != request.size or request.part_size not in (None, row.part_size):
            return False
        if row.checksum == "crc32c" and not request.crc32c:
            return False
        touched = datetime.fromtimestamp(row.touched, UTC)
        if timedelta(0) <= self._now() - touched < QUIET:
            return False
        try:
            self._parts(row)
        except UnknownUpload:
            return False
        # It may be completed at this moment: then nothing is open here any more.
        return self._table.touch(row.id, now=self._now(), only="open")

    def _begin(self, device: DeviceId, request: RequestUpload, key: str) -> UploadRow:
        part_size = request.part_size or part_size_for(request.size, largest=self._largest_parts)
        row = UploadRow(
            id=secrets.token_hex(16),
            room=request.room,
            area=request.area,
            blake3=request.blake3,
            device=device,
            key=key,
            store_id="",
            size=request.size,
            part_size=part_size,
            state="open",
            touched=self._now().timestamp(),
            checksum="sha256",
        )
        self._table.check(row, quota=self._quota)
        upload = self._store.begin(
            key,
            size=request.size,
            part_size=part_size,
            checksum=None if request.crc32c else "sha256",
        )
        row = msgspec.structs.replace(row, store_id=upload.id, checksum=upload.checksum)
        try:
            self._table.add(row, quota=self._quota)
        except BaseException:
            self._store.abort(upload)
            raise
        return row

    def _sign(self, row: UploadRow, parts: Sequence[Part]) -> tuple[SignedRequest, ...]:
        return tuple(self._store.part_requests(row.upload, parts)) if parts else ()

    def _parts(self, row: UploadRow) -> list[StoredPart]:
        """The parts that the store has; an upload that it has given up is forgotten."""
        try:
            return self._store.parts(row.upload)
        except UnknownUpload:
            if row.state == "open":
                self._table.remove(row.id)
            raise

    def _mine(self, device: DeviceId, upload_id: str) -> UploadRow:
        """An upload that a device began, and whose room it still may write to."""
        row = self._table.get(upload_id)
        if row is None or row.device != device:
            raise UnknownUpload(key=f"{upload_id[:8]}…")
        check_writer(self._rights.member_of(device, row.room), row.area)
        return row

    def _complete(self, row: UploadRow, parts: Sequence[Part]) -> StoredObject:
        self._table.set_state(row.id, "completing", now=self._now())
        try:
            found = self._store.complete(row.upload, parts)
        except UnknownUpload:
            self._table.remove(row.id)
            raise
        except SleapRtcError as error:
            if error.code != "storage_unreachable":
                # It says that nothing was done; of a store that doesn't answer that isn't known.
                self._table.set_state(row.id, "open", now=self._now())
            raise
        if not self._verified(row):
            raise Damaged(
                what=f"What was uploaded as {row.blake3[:16]}…",
                why="its content has another hash",
                hint="The file may have changed meanwhile; the same command starts anew.",
            )
        return found

    def _settle_key(self, key: str) -> None:
        """Find out what became of uploads to a key whose completing was cut off.

        Raises:
            Busy: One is being completed at this moment.
        """
        with self._turns.of(key, wait=False):
            for row in self._table.completing(key):
                self._settle(row)

    def _settle(self, row: UploadRow) -> None:
        """Find out whether an upload that was being completed is."""
        found = self._store.head(row.key)
        if found is None or found.size != row.size:
            self._table.set_state(row.id, "open", now=self._now())
        elif self._verified(row):
            self._table.done(row, now=self._now())

    def _give_up(self, row: UploadRow) -> None:
        """Forget an upload; its object stays if it is what it should be."""
        if row.state == "completing":
            self._settle(row)
        if row.state != "done":
            self._store.abort(row.upload)
        self._table.remove(row.id)

    def _verified(self, row: UploadRow) -> bool:
        """Whether an object's content is what its key says; one that isn't is removed."""
        if self._digest is None or self._content(row.key) == row.blake3:
            return True
        logger.warning("the content of {} isn't what its uploader said", row.key)
        self._store.delete(row.key)
        self._table.remove(row.id)
        self._table.remove_object(row.key)
        return False

    def _content(self, key: str) -> str | None:
        """What an object's content is; None where it isn't there, or can't be read any more."""
        try:
            return self._digest(key) if self._digest else None
        except (FileNotFoundError, Damaged):
            return None

    def _told(self, area: Area, found: StoredObject) -> ObjectTold:
        return ObjectTold(
            key=found.key, size=found.size, etag=found.etag, expires=self._end(area, found)
        )


@contextlib.contextmanager
def _logged(what: str) -> Iterator[None]:
    """One object's trouble keeps nobody from the next one."""
    try:
        yield
    except (SleapRtcError, OSError) as error:
        logger.warning("{} has to wait: {}", what, error)
