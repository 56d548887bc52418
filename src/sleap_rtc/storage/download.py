"""Reading an object from a store: in ranges of one content, by many threads at once.

Every range is pinned to one ETag with ``If-Match``: an object that is replaced in
the middle is noticed, and never mixed with the old one. What breaks goes on behind
the last piece that came. Nothing here is checked otherwise: that is for whoever
knows what the bytes should be.

Memory is a block for each range in flight, whatever the size.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import (
    Damaged,
    NetworkError,
    NotFound,
    SleapRtcError,
    SourceChanged,
    StorageRefused,
    StorageUnreachable,
)
from sleap_rtc.files import buffers
from sleap_rtc.net.retrying import AGAIN
from sleap_rtc.storage.answers import Read
from sleap_rtc.storage.objects import SignedRequest
from sleap_rtc.storage.pausing import REFUSED, Patience, Pauses
from sleap_rtc.storage.refusing import code_of, in_its_words
from sleap_rtc.storage.wire import Connections, headers_of

_EARLY: Final = 60.0
"""Seconds before a link ends that a fresh one is asked for."""

Take = Callable[[int, memoryview], None]
"""Given where a piece begins, and its bytes, which are only lent."""


class RangeReader:
    """Reads ranges of one object, all of the same content. For many threads.

    Args:
        link: Gives a fresh link to the object; asked when the last one ends or is refused.
        name: Names the object in errors.
        etag: The content that is wanted; the first answer decides where it isn't known.
        connections: To be shared with others.
        patience: With a store that fails.
        wall: Seconds since 1970.
        pauses: To be shared with others, who then stop and wait together; it has its own patience.
    """

    def __init__(
        self,
        link: Callable[[], SignedRequest],
        *,
        name: str,
        etag: str | None = None,
        connections: Connections | None = None,
        patience: Patience = Patience(),  # noqa: B008 - it is frozen
        wall: Callable[[], float] = time.time,
        pauses: Pauses | None = None,
    ) -> None:
        self._link = link
        self._name = name
        self._etag = etag
        self._connections = connections or Connections()
        self._pauses = pauses or Pauses(patience)
        self._wall = wall
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._current: SignedRequest | None = None

    @property
    def etag(self) -> str | None:
        """The content that all ranges are of; None before the first answer."""
        return self._etag

    def pin(self, etag: str | None) -> None:
        """Read another content from now on; None takes what is there."""
        with self._lock:
            self._etag = etag

    def read(self, offset: int, size: int) -> bytes:
        """Some bytes, as many as are asked for.

        Raises:
            SourceChanged: The object is another than before.
            NotFound: There is none.
            Damaged: The store can't read it any more.
            StorageUnreachable: The store fails longer than patience lasts.
            StorageRefused: It says no.
        """
        parts: list[bytes] = []
        self.stream(offset, size, lambda _at, piece: parts.append(bytes(piece)))
        return b"".join(parts)

    def stream(self, offset: int, size: int, take: Take) -> None:
        """Some bytes, block by block as they arrive.

        Args:
            offset: Where they begin.
            size: How many; more than 0.
            take: Given each piece once, in order: whole blocks of the object, or what of one is in
                the range.

        Raises:
            SleapRtcError: As for `read`; what was given until then is of one content.
        """
        at, end = offset, offset + size
        failed = refused = 0

        def took(where: int, piece: memoryview) -> None:
            nonlocal at, failed, refused
            take(where, piece)
            at, failed, refused = where + len(piece), 0, 0

        while at < end:
            self._pauses.check()
            try:
                failure = self._attempt(at, end - at, took)
            except NetworkError as error:
                failure = error
            if failure is None or at == end:
                return
            if not isinstance(failure, NetworkError):
                refused += 1
                if refused >= REFUSED:
                    raise failure
                with self._lock:
                    self._current = None
            failed += 1
            if failed >= self._pauses.patience.attempts:
                raise failure
            self._pauses.back_off(failed, None)

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def _attempt(self, offset: int, size: int, take: Take) -> SleapRtcError | None:
        """Ask once; what went wrong is returned when asking again may help."""
        headers = {"range": f"bytes={offset}-{offset + size - 1}"}
        if self._etag is not None:
            headers["if-match"] = f'"{self._etag}"'
        with self._connections.answering(self._fresh(), headers=headers) as response:
            if response.status in (200, 206):
                self._check(response, offset, size)
                self._receive(response, offset, size, take)
                return None
            body = response.read(65_536)
        status, said = response.status, code_of(response.status, body)
        if status == 412:
            raise SourceChanged(path=self._name)
        if status == 404:
            raise NotFound(message=f"There is no {self._name} in the storage.")
        if status == 416:
            raise SourceChanged(path=self._name)
        if status == 422:
            why = "the store can't read it any more"
            raise in_its_words(Damaged(what=self._name, why=why), body)
        if status in AGAIN:
            return in_its_words(StorageUnreachable(store="there", why=said), body)
        refused = StorageRefused(store="there", what=f"give {self._name}", why=said)
        return in_its_words(refused, body)

    def _fresh(self) -> SignedRequest:
        # One thread asks, and the others wait for what it gets.
        with self._asking:
            with self._lock:
                current = self._current
            if current is None or current.expires.timestamp() - self._wall() < _EARLY:
                current = self._link()
                with self._lock:
                    self._current = current
            return current

    def _check(self, response: Read, offset: int, size: int) -> None:
        """Check that an answer is the range that was asked for, of the content that was."""
        headers = headers_of(response)
        etag = headers.get("etag", "").removeprefix("W/").strip('"')
        with self._lock:
            if self._etag is None and etag:
                self._etag = etag
            other = etag and etag != self._etag
        if other:
            raise SourceChanged(path=self._name)
        told = headers.get("content-range", "")
        whole = response.status == 200 and offset == 0
        right = told.startswith(f"bytes {offset}-{offset + size - 1}/")
        total = told.rpartition("/")[2][:20]
        if total.isascii() and total.isdigit() and int(total) < offset + size:
            raise SourceChanged(path=self._name)  # it ends before that
        if not (right or whole) or response.length not in (None, size):
            raise StorageUnreachable(store="there", why="its answer isn't the range asked for")

    def _receive(self, response: Read, offset: int, size: int, take: Take) -> None:
        memory = buffers.take(min(BLOCK, size))
        at, end = offset, offset + size
        while at < end:
            # Up to the end of the object's block, so that a block arrives in one piece.
            piece = memory[: min(BLOCK - at % BLOCK, end - at)]
            self._pauses.check()
            filled = 0
            while filled < len(piece):
                got = response.readinto(piece[filled:])
                if not got:
                    raise StorageUnreachable(store="there", why="it hung up in the middle")
                filled += got
            take(at, piece)
            at += len(piece)
        buffers.give_back(memory)
        response.read(1)  # nothing follows, and so the connection can be used again
