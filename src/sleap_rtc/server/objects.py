"""Parts come in and objects go out, where the server's own folder is the store.

====================  =========================================================
``PUT /storage/T``    one part, or a content in one piece: exactly the bytes that
                      the ticket T pins
``GET /storage/T``    an object, or a range of it; ``HEAD`` as well
====================  =========================================================

Who holds a ticket (``storage/tickets.py``) needs nothing else, as with a
presigned URL of S3; statuses are S3's too: 403 for a ticket that is forged, for
something else or too old, 404 for what is gone, 400 for other bytes than were
announced, 412 for another object than ``If-Match`` names, or for a content in
one piece that is here, 416 behind its end.

The first bytes are read before an answer begins, so that what the disk can't give is said, with
422 where its bytes are lost; where it fails later the connection is cut, and no short answer looks
whole.

Who holds a ticket may go on on the same connection, as long as its next request comes
soon; what it sent is always read to its end before.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import msgspec
from loguru import logger

from sleap_rtc.errors import (
    AlreadyExists,
    Conflict,
    DataError,
    DeadlineExceeded,
    NotFound,
    SleapRtcError,
    TooManyRequests,
    UsageError,
)
from sleap_rtc.server.guarded import give_time
from sleap_rtc.server.limits import MAX_TRANSFERS, MAX_TRANSFERS_EACH, network_of
from sleap_rtc.server.metrics import ServerMetrics
from sleap_rtc.server.ranges import Changed, NotModified, Piece, Unsatisfiable, wanted
from sleap_rtc.server.responses import (
    UNEXPECTED,
    Answer,
    Body,
    Receive,
    Scope,
    SendAsgi,
    begin,
    failed,
    header,
    respond,
)
from sleap_rtc.storage.folder import FolderStore, OpenObject
from sleap_rtc.storage.folder_writers import PartWriter, WholeWriter
from sleap_rtc.storage.objects import StoredPart
from sleap_rtc.storage.tickets import Ticket

PREFIX: Final = "/storage/"
STALL_S: Final = 30.0
"""Seconds without a byte after which a transfer is ended."""
WHOLE_S: Final = 12 * 3_600.0
"""Seconds that a part or a content may take: a day after a content's link nobody counts it any
more, and while a part comes its upload can't be completed, nor be given up."""
FINISH_S: Final = 120.0
"""Seconds that a part may take to reach the disk, once its last byte has come."""
THREADS: Final = 8
"""Pieces of parts and objects that are written and read at a time."""
_CHUNK: Final = 1024 * 1024
_UNWANTED: Final = 1024 * 1024
"""Bytes of what a stranger sends that are read, so that the refusal is heard."""
_MOMENT_S: Final = 2.0
_ON: Final = {"connection": "keep-alive"}
"""Another request may follow on the same connection."""

T = TypeVar("T")


class Objects:
    """Serves the folder's tickets.

    Args:
        store: The folder.
        metrics: What is counted.
    """

    def __init__(self, store: FolderStore, metrics: ServerMetrics) -> None:
        self._store, self._metrics = store, metrics
        self._running: Counter[str] = Counter()
        # Its own, so that a slow disk keeps nobody from signing in.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="objects")

    def close(self) -> None:
        """Wait for no thread any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _do(self, work: Callable[[], T]) -> T:
        """Something that blocks, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def serve(self, scope: Scope, receive: Receive, send: SendAsgi) -> None:
        """Answer one request below ``/storage/``."""
        method = scope["method"]
        kind = "put_part" if method == "PUT" else "get_object"
        outcome, body, begun = "ok", Body(receive), False

        async def noted(event: MutableMapping[str, Any]) -> None:
            nonlocal begun
            begun = True
            await send(event)

        # Who holds a ticket hears the answer, however much has been sent by then; a stranger
        # is read for a moment.
        unwanted, patience = _UNWANTED, _MOMENT_S
        try:
            if method not in ("PUT", "GET", "HEAD"):
                raise UsageError(message="Only PUT and GET are understood here.")
            ticket = self._store.ticket(scope["path"].removeprefix(PREFIX), method=method)
            unwanted, patience = max(ticket.size, unwanted), STALL_S
            give_time(scope, 2 * STALL_S)
            with self._turn(network_of(str((scope.get("client") or ("unknown",))[0]))):
                if method == "PUT":
                    await self._put(ticket, scope, body, noted)
                else:
                    await self._get(ticket, scope, noted)
        except SleapRtcError as error:
            outcome = error.code
            if begun:  # the server cuts what isn't answered to its end
                logger.warning("cut {}: {}", kind, error.message)
                return
            logger.debug("refused {}: {}", kind, error.message)
            await body.skip(unwanted, within=patience)
            refusal = failed(error, status=_status(error, method))
            if isinstance(error, AlreadyExists) and not body.more:
                refusal = msgspec.structs.replace(refusal, headers=_ON)
            await respond(send, refusal)
        except ConnectionError as error:
            # The other side went away, or was too slow; what it sent counts for nothing.
            outcome = "gone"
            logger.debug("{} ended: {}", kind, error)
        except Exception:  # noqa: BLE001 - one request's failure is told as any other's
            outcome = "error"
            logger.exception("failed at {}", kind)
            if not begun:
                await body.skip(unwanted, within=patience)
                await respond(send, failed(UNEXPECTED))
        finally:
            self._metrics.requests.labels(kind=f"http_{kind}", outcome=outcome).inc()

    @contextlib.contextmanager
    def _turn(self, network: str) -> Iterator[None]:
        if self._running.total() >= MAX_TRANSFERS:
            raise TooManyRequests(who="Everybody together")
        if self._running[network] >= MAX_TRANSFERS_EACH:
            raise TooManyRequests(who="This network")
        self._running[network] += 1
        try:
            yield
        finally:
            self._running[network] -= 1
            if not self._running[network]:
                del self._running[network]

    # ── parts ────────────────────────────────────────────────────────────────

    async def _put(self, ticket: Ticket, scope: Scope, body: Body, send: SendAsgi) -> None:
        length = header(scope, "content-length")
        if length != str(ticket.size):
            why = f"it announces {length[:20] or 'no'} bytes, and the link is for {ticket.size}"
            raise DataError(what=f"part {ticket.number}", why=why)
        writer = await self._do(lambda: self._store.receive(ticket))
        try:
            part = await self._take(writer, scope, body)
        finally:
            await self._do(writer.close)
        self._metrics.stored_bytes.labels(direction="in").inc(part.size)
        await respond(send, Answer(status=200, headers=_ON | {"etag": f'"{part.etag}"'}))

    async def _take(self, writer: PartWriter | WholeWriter, scope: Scope, body: Body) -> StoredPart:
        waiting: list[bytes] = []
        size = 0
        time = asyncio.get_running_loop().time
        end = time() + WHOLE_S
        while body.more:
            if time() > end:
                raise DeadlineExceeded(what="Sending this", seconds=f"{WHOLE_S:g}")
            give_time(scope, STALL_S)
            piece = await body.piece()
            waiting.append(piece)
            size += len(piece)
            if size >= _CHUNK or (size and not body.more):
                await self._do(functools.partial(_write, writer, waiting))
                waiting, size = [], 0
        give_time(scope, FINISH_S)
        return await self._do(writer.commit)

    # ── objects ──────────────────────────────────────────────────────────────

    async def _get(self, ticket: Ticket, scope: Scope, send: SendAsgi) -> None:
        try:
            found = await self._do(lambda: self._store.open(ticket.key))
        except FileNotFoundError:
            raise NotFound(message="The object is not there (any more).") from None
        with found:
            await self._give(found, scope, send)

    async def _give(self, found: OpenObject, scope: Scope, send: SendAsgi) -> None:
        about = found.about
        headers = _ON | {
            "etag": f'"{about.etag}"',
            "accept-ranges": "bytes",
            "content-type": "application/octet-stream",
        }
        piece = wanted(
            size=about.size,
            etag=about.etag,
            if_match=header(scope, "if-match"),
            if_none_match=header(scope, "if-none-match"),
            ranges=header(scope, "range"),
        )
        start, end, status = 0, about.size, 200
        match piece:
            case Changed():
                other = Conflict(message="The object is another one than was asked for.")
                await respond(send, failed(other, status=412))
                return
            case NotModified():
                await begin(send, 304, {"etag": headers["etag"]})
                await send({"type": "http.response.body", "body": b""})
                return
            case Unsatisfiable():
                refusal = failed(UsageError(message="The range is behind the end."), status=416)
                told = {"content-range": f"bytes */{about.size}"}
                await respond(send, msgspec.structs.replace(refusal, headers=told))
                return
            case Piece():
                start, end, status = piece.start, piece.end, 206
                headers["content-range"] = f"bytes {start}-{end - 1}/{about.size}"
        headers["content-length"] = str(end - start)
        if scope["method"] == "HEAD" or start == end:
            await begin(send, status, headers)
            await send({"type": "http.response.body", "body": b""})
            return
        data, at = await self._read(found, start, end), start
        await begin(send, status, headers)
        while True:
            give_time(scope, STALL_S)
            at += len(data)
            await send({"type": "http.response.body", "body": data, "more_body": at < end})
            if at == end:
                break
            data = await self._read(found, at, end)
        self._metrics.stored_bytes.labels(direction="out").inc(end - start)

    async def _read(self, found: OpenObject, start: int, end: int) -> bytes:
        """The next piece of what begins and ends there."""
        return await self._do(functools.partial(found.read, min(_CHUNK, end - start), start))


def _write(writer: PartWriter | WholeWriter, pieces: list[bytes]) -> None:
    # As one: each call gives up the interpreter's lock twice, and has to wait for it again.
    writer.write(b"".join(pieces))


def _status(error: SleapRtcError, method: str) -> int:
    """S3's statuses, where they differ from the error's own."""
    if isinstance(error, DataError) and method == "PUT":
        return 400
    if isinstance(error, AlreadyExists):
        return 412
    if isinstance(error, UsageError) and method not in ("PUT", "GET", "HEAD"):
        return 405
    return error.http_status
