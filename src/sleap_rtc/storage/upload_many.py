"""Sending many small files to a store: each in one piece, hundreds asked for at a time.

::

    files ─► batches ─► hash ─► offer ─┬─ there already ─────────────────────────► done
                          ▲            └─► PUT, several at once ─► confirm ─┬────► done
                          └────────────── not there, or not as it was sent ─┘

A content has a name made of its hash, so nothing has to be noted here: after a kill
the store says what is there, and what was under way is sent again. Sending is never
held up by asking: who finds little left to send asks for the next batch meanwhile.

Whoever else sends the same is no trouble: a link doesn't replace what came to be
there (412), and what the store then says counts. A store that loses what it took is
told so after three times.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from sleap_rtc.domain.packages import BLOCK, FileEntry
from sleap_rtc.errors import Damaged, DataError, NetworkError, SleapRtcError, SourceChanged
from sleap_rtc.files.beneath import open_file
from sleap_rtc.files.hashing import FileStamp, stamp_of
from sleap_rtc.storage.checksums import encoded, header_of
from sleap_rtc.storage.objects import (
    MAX_WHOLE,
    Content,
    SignedRequest,
    StoredObject,
    UploadStore,
)
from sleap_rtc.storage.pausing import (
    ANEW,
    BUSY,
    REFUSED,
    Patience,
    Pauses,
    failure_of,
    side_by_side,
)
from sleap_rtc.storage.slices import checksum_of_slice, is_block
from sleap_rtc.storage.wire import Answer, Connections, FileSlice, Pace

IN_FLIGHT: Final = 10
"""Contents that are sent at once, unless set otherwise (``max_concurrent_parts``)."""
MORE_SMALL: Final = 6
"""Times as many small ones: of those a store is waited for longer than bytes move."""
BATCH: Final = 250
"""Contents that are asked for at once."""
BATCH_BYTES: Final = 64 * BLOCK
"""Bytes that they have together, or one content has."""

_HELD: Final = 64 * 1024
"""Bytes of a small content, which is kept in memory from its hashing to its sending."""
_LOW: Final = 2
"""Contents left to send, for each sender, below which the next batch is asked for."""
_DONE: Final = 412
"""What a store answers when the object is there."""

Moved = Callable[[int, int], None]
"""Called with a file's index and its bytes that are there; after a failure they may be fewer."""


class SmallFile(msgspec.Struct, frozen=True):
    """A file that goes in one piece.

    Attributes:
        path: The file, of `MAX_WHOLE` bytes at most.
        key: What it will be called: a name made of its content.
        entry: Its blocks, where they are known: each is compared before it is sent.
    """

    path: Path
    key: str
    entry: FileEntry | None = None


def upload_contents(
    store: UploadStore,
    files: Sequence[SmallFile],
    *,
    in_flight: int = IN_FLIGHT,
    pace: Pace | None = None,
    moved: Moved | None = None,
    patience: Patience = Patience(),  # noqa: B008 - it is frozen
    connections: Connections | None = None,
) -> list[Placed]:
    """Send small files to a store, which may have some of them already.

    Args:
        store: A store, or the server in front of one.
        files: In any number. Several of one key are the same content, which is sent once.
        in_flight: Contents that are sent at once; of small ones `MORE_SMALL` times as many, until
            the store says that it is too busy.
        pace: Called before bytes move, from any thread; it may wait, or raise to end this.
        moved: Told of how far each file is, from any thread; what it raises ends this.
        patience: With a store that fails.
        connections: To be shared with other uploads; who gives up this one ends what they do
            with them.

    Returns:
        What is there now, in the files' order.

    Raises:
        SourceChanged: A file changed while it was sent, or isn't what its ``entry`` says.
        StorageUnreachable: The store fails longer than patience lasts; what it has is kept.
        StorageRefused: It says no.
        OutOfSpace: It is full.
        Damaged: It keeps other bytes than it gets, or loses them.
        DataError: A file is larger than what goes in one piece.
        OSError: A file can't be read.
    """
    own = Connections() if connections is None else connections
    try:
        sending = _Sending(
            store,
            files,
            in_flight=max(1, in_flight),
            pace=pace,
            moved=moved,
            patience=patience,
            wire=own,
        )
        return sending.run()
    finally:
        if connections is None:
            own.close()


class Placed(msgspec.Struct, frozen=True):
    """A file that is in the store.

    Attributes:
        stored: What is there now.
        sent: Whether its bytes were sent; else they were there, or came from somebody else.
    """

    stored: StoredObject
    sent: bool


class _Piece(msgspec.Struct, frozen=True):
    """A content that was hashed.

    Attributes:
        index: Of its file.
        path: Of its file, without links.
        content: As the store is told of it.
        stamp: Of the file, when it was hashed.
        held: Its bytes, if they are few.
    """

    index: int
    path: str
    content: Content
    stamp: FileStamp
    held: bytes | None


class _Batch:
    """Contents that are offered, and confirmed, together.

    Args:
        indices: Of their files.
        tries: Times that they were sent already.
    """

    def __init__(self, indices: Sequence[int], tries: int = 0) -> None:
        self.indices, self.tries = indices, tries
        self.gone: list[tuple[_Piece, bool]] = []
        self.left = 0


Task = Callable[[], None]


class _Kind:
    """Contents of a kind that are to be sent.

    Args:
        most: How many at once.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.ready: deque[Task] = deque()
        self.under_way = 0


class _Sending:
    """Many files on their way."""

    def __init__(
        self,
        store: UploadStore,
        files: Sequence[SmallFile],
        *,
        in_flight: int,
        pace: Pace | None,
        moved: Moved | None,
        patience: Patience,
        wire: Connections,
    ) -> None:
        self._store, self._files = store, files
        self._pace, self._moved = pace, moved
        self._pauses, self._connections = Pauses(patience), wire
        same: dict[str, list[int]] = {}
        for index, file in enumerate(files):
            same.setdefault(file.key, []).append(index)
        # In the order of their keys, so that what is asked about together is together in a list of
        # the store: of names that are hashes it would have to be read whole for each batch.
        self._same = {indices[0]: indices for _, indices in sorted(same.items())}
        self._placed: list[Placed | None] = [None] * len(files)
        self._batches = self._cut(self._same)
        self._changed = threading.Condition()
        self._urgent: deque[Task] = deque()
        self._in_flight = in_flight
        self._large, self._small = _Kind(in_flight), _Kind(MORE_SMALL * in_flight)
        self._asking = False
        self._more = True
        self._running = 0
        self._low = 0

    def run(self) -> list[Placed]:
        """Send what isn't there; the first that fails ends all."""
        senders = max(1, min(self._small.most, len(self._same)))
        self._low = _LOW * senders

        def abort() -> None:
            self._end()
            self._connections.abort()

        failure = side_by_side(self._work, senders, name="upload", stop=self._end, abort=abort)
        if failure is not None:
            raise failure
        return [placed for placed in self._placed if placed is not None]

    # ── who does what ────────────────────────────────────────────────────────

    def _work(self) -> None:
        """Do what there is to do, until nothing is left."""
        while (task := self._next()) is not None:
            try:
                task()
            finally:
                with self._changed:
                    self._running -= 1
                    if not self._running or self._urgent:
                        self._changed.notify_all()

    def _next(self) -> Task | None:
        """The next thing to do; waits while others may still find some."""
        with self._changed:
            while not self._pauses.stopped:
                task = self._chosen()
                if task is not None:
                    self._running += 1
                    return task
                if not self._running:
                    return None
                self._changed.wait()
            return None

    def _chosen(self) -> Task | None:
        """What is best done next; the lock is held."""
        if self._urgent:
            return self._urgent.popleft()
        left = len(self._large.ready) + len(self._small.ready)
        if self._more and not self._asking and left < self._low:
            batch = next(self._batches, None)
            if batch is not None:
                self._asking = True
                return partial(self._ask_in_turn, batch)
            self._more = False
        for kind in (self._large, self._small):
            if kind.ready and kind.under_way < kind.most:
                kind.under_way += 1
                return partial(self._send_one, kind, kind.ready.popleft())
        return None

    def _send_one(self, kind: _Kind, task: Task) -> None:
        try:
            task()
        finally:
            with self._changed:
                kind.under_way -= 1

    def _end(self) -> None:
        self._pauses.stop()
        with self._changed:
            self._changed.notify_all()

    def _cut(self, indices: Iterable[int]) -> Iterator[_Batch]:
        """Batches of files, each of so many and of so many bytes."""
        some: list[int] = []
        size = 0
        for index in indices:
            more = self._size(index)
            if some and (len(some) == BATCH or size + more > BATCH_BYTES):
                yield _Batch(some)
                some, size = [], 0
            some.append(index)
            size += more
        if some:
            yield _Batch(some)

    def _size(self, index: int) -> int:
        """About how many bytes a file has."""
        file = self._files[index]
        return file.path.stat().st_size if file.entry is None else file.entry.size

    # ── asking ───────────────────────────────────────────────────────────────

    def _ask_in_turn(self, batch: _Batch) -> None:
        try:
            self._ask(batch)
        finally:
            with self._changed:
                self._asking = False
                self._changed.notify_all()

    def _ask(self, batch: _Batch) -> None:
        """Hash the files of a batch, and ask for links to send those that aren't there."""
        pieces = [self._hashed(index) for index in batch.indices]
        contents = [piece.content for piece in pieces]
        replacing = batch.tries > 0
        requests = self._pauses.patiently(lambda: self._store.offer(contents, replacing=replacing))
        to_send = []
        for piece, request in zip(pieces, requests, strict=True):
            if request is None:
                found = StoredObject(key=piece.content.key, size=piece.content.size, etag="")
                self._note(piece.index, found, sent=False)
            else:
                kind = self._large if piece.held is None else self._small
                to_send.append((kind, partial(self._send, batch, piece, request)))
        with self._changed:
            batch.left = len(to_send)
            for kind, task in to_send:
                kind.ready.append(task)
            self._changed.notify_all()

    def _hashed(self, index: int) -> _Piece:
        """A file with its SHA-256; its blocks are compared with those that are known."""
        self._pauses.check()
        file = self._files[index]
        path = os.path.realpath(file.path)
        fd = open_file(Path(path))
        try:
            stamp = stamp_of(fd)
            if stamp.size > MAX_WHOLE:
                why = f"it has {stamp.size} bytes, and {MAX_WHOLE} go in one piece"
                raise DataError(what=path, why=why)
            if file.entry is not None and file.entry.size != stamp.size:
                raise SourceChanged(path=path)
            held = None
            if stamp.size <= _HELD:
                held = os.pread(fd, stamp.size, 0)
                if len(held) != stamp.size or (held and not is_block(file.entry, 0, held)):
                    raise SourceChanged(path=path)
                digest = hashlib.sha256(held).digest()
            else:
                whole = FileSlice(fd=fd, offset=0, size=stamp.size)
                digest = checksum_of_slice(
                    whole, "sha256", name=path, entry=file.entry, going_on=self._pauses.check
                )
        finally:
            os.close(fd)
        content = Content(key=file.key, size=stamp.size, sha256=digest)
        return _Piece(index=index, path=path, content=content, stamp=stamp, held=held)

    # ── sending ──────────────────────────────────────────────────────────────

    def _send(self, batch: _Batch, piece: _Piece, request: SignedRequest) -> None:
        """Send one content, as often as it takes; after the last of a batch it is confirmed."""
        refused = 0
        attempts = self._pauses.patience.attempts
        for attempt in range(1, attempts + 1):
            self._pauses.hold_back()
            answer: Answer | None = None
            try:
                answer = self._put(piece, request)
                failure = _failure(answer, piece.content)
            except NetworkError as error:
                failure = error
            if failure is None:
                break
            if not isinstance(failure, NetworkError):
                # A link that ran out, or bytes that were damaged on the way, happen by chance.
                refused += 1
                if refused >= REFUSED:
                    raise failure
            if attempt == attempts:
                raise failure
            self._tell(piece.index, 0)
            if answer is not None and answer.status in BUSY:
                with self._changed:
                    self._small.most = max(self._in_flight, self._small.most // 2)
            self._pauses.back_off(attempt, answer)
            if refused:
                fresh = self._again(batch, piece)
                if fresh is None:
                    break
                request = fresh
        self._sent(batch, piece, taken=answer is not None and answer.ok)

    def _again(self, batch: _Batch, piece: _Piece) -> SignedRequest | None:
        """A fresh link; None when the content is there by now."""
        replacing = batch.tries > 0
        offer = partial(self._store.offer, [piece.content], replacing=replacing)
        return self._pauses.patiently(offer)[0]

    def _put(self, piece: _Piece, request: SignedRequest) -> Answer:
        if piece.held is not None:
            self._moving(piece.index, len(piece.held))
            return self._connections.send(request, piece.held)
        fd = open_file(Path(piece.path))
        done = 0

        def pace(size: int) -> None:
            nonlocal done
            done += size
            self._moving(piece.index, size, done)

        try:
            self._unchanged(piece, fd)
            whole = FileSlice(fd=fd, offset=0, size=piece.content.size)
            answer = self._connections.send(request, whole, pace=pace)
            self._unchanged(piece, fd)
        finally:
            os.close(fd)
        return answer

    def _sent(self, batch: _Batch, piece: _Piece, *, taken: bool) -> None:
        with self._changed:
            batch.gone.append((piece, taken))
            batch.left -= 1
            if not batch.left:
                self._urgent.append(partial(self._confirm, batch))

    def _confirm(self, batch: _Batch) -> None:
        """Ask what of a batch the store really has; what it lost is sent again."""
        contents = [piece.content for piece, _ in batch.gone]
        found = self._pauses.patiently(lambda: self._store.confirm(contents))
        lost: list[int] = []
        for (piece, sent), stored in zip(batch.gone, found, strict=True):
            if stored is None:
                lost.append(piece.index)
                self._tell(piece.index, 0)
            else:
                self._note(piece.index, stored, sent=sent)
        if not lost:
            return
        if batch.tries + 1 >= ANEW:
            what = f"the upload to {self._files[lost[0]].key}"
            raise Damaged(what=what, why="the store keeps losing it")
        with self._changed:
            self._urgent.append(partial(self._ask, _Batch(lost, batch.tries + 1)))

    # ── the rest ─────────────────────────────────────────────────────────────

    def _note(self, index: int, stored: StoredObject, *, sent: bool) -> None:
        for each in self._same[index]:
            self._placed[each] = Placed(stored=stored, sent=sent and each == index)
            self._tell(each, stored.size)

    def _moving(self, index: int, size: int, done: int | None = None) -> None:
        """Before bytes of a content go out."""
        self._pauses.check()
        if self._pace is not None and size:
            self._pace(size)
        self._tell(index, size if done is None else done)

    def _tell(self, index: int, done: int) -> None:
        if self._moved is not None:
            self._moved(index, done)

    @staticmethod
    def _unchanged(piece: _Piece, fd: int) -> None:
        if not stamp_of(fd).same_content(piece.stamp):
            raise SourceChanged(path=piece.path)


def _failure(answer: Answer, content: Content) -> SleapRtcError | None:
    """Why a content wasn't taken; None when it was, or was there."""
    if answer.ok:
        told = answer.headers.get(header_of("sha256"))
        if told is None or told == encoded(content.sha256):
            return None
        return Damaged(what=content.key, why="the store answers with another checksum")
    if answer.status == _DONE:
        return None
    return failure_of(answer, content.key)
