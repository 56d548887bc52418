"""The HTTP API: who asks, how often, and what they are answered.

Every endpoint is a row of :data:`ENDPOINTS`, from which the requests are
dispatched and the OpenAPI document is made (``server/openapi.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Final, Literal

import msgspec
from loguru import logger

from sleap_rtc.domain.ids import DeviceId
from sleap_rtc.domain.values import Value, decode
from sleap_rtc.errors import (
    NotFound,
    NotSignedIn,
    SleapRtcError,
    StorageOff,
    TooManyRequests,
    UsageError,
)
from sleap_rtc.net.limits import SourceLimits, TokenBucket
from sleap_rtc.protocol.http import (
    CHALLENGE_PATH,
    CHALLENGE_SECONDS,
    SIGN_IN_PATH,
    TOKEN_SECONDS,
    ChallengeTold,
    TokenRequest,
    TokenTold,
)
from sleap_rtc.protocol.signaling import SIGNALING_VERSION, SignIn
from sleap_rtc.server.connection import host_header
from sleap_rtc.server.doubt_desk import DoubtDesk
from sleap_rtc.server.guarded import give_time
from sleap_rtc.server.hub import Hub
from sleap_rtc.server.limits import (
    API_BURST,
    API_RATE,
    CONTENTS_BURST,
    CONTENTS_RATE,
    DEVICES,
    REPORT_BURST,
    REPORT_RATE,
    SIGN_IN_BURST,
    SIGN_IN_RATE,
    network_of,
)
from sleap_rtc.server.responses import (
    UNEXPECTED,
    Answer,
    Body,
    Receive,
    Scope,
    failed,
    header,
    told,
)
from sleap_rtc.server.storage_desk import StorageDesk
from sleap_rtc.server.storage_rules import MustCompare
from sleap_rtc.server.tokens import Challenges, Session, Tokens
from sleap_rtc.storage.service import (
    COMPLETE_WITHIN,
    CONFIRM_WITHIN,
    VERDICT_WITHIN,
    Aborted,
    AbortUpload,
    CompleteUpload,
    ConfirmContents,
    ContentsConfirmed,
    ContentsOffered,
    DamageTold,
    DownloadTold,
    LinksTold,
    ObjectTold,
    OfferContents,
    RenewUpload,
    ReportDamaged,
    RequestDownload,
    RequestLinks,
    RequestsTold,
    RequestUpload,
    UploadStatus,
    UploadTold,
)

OPENAPI_PATH: Final = "/api/openapi.json"
MAX_BODY: Final = 128 * 1024
"""Bytes of a request; those that name every part of an upload may have more."""
MAX_COMPLETE: Final = 4 * 1024 * 1024
MAX_MANY: Final = 256 * 1024
"""The same of one that names many contents with size and checksum."""
ANSWER_WITHIN: Final = 60.0
"""Seconds until an answer must be there."""
THREADS: Final = 8
"""Questions about files that are worked on at a time."""
COMPARING: Final = 2
"""Contents of up to `LONG` bytes that are compared with their hashes at a time."""
LONG: Final = 1 << 30
"""Bytes from which on comparing takes long enough for others to mind."""


class Endpoint(msgspec.Struct, frozen=True):
    """One thing that can be asked.

    Attributes:
        name: Names it in metrics and in the OpenAPI document.
        method: ``GET`` or ``POST``.
        path: What comes behind it in braces is a parameter.
        summary: One sentence.
        answer: What is told.
        request: What is asked; None where there is no body.
        signed_in: Whether a token is needed.
        limit: Bytes that the request may have.
    """

    name: str
    method: Literal["GET", "POST"]
    path: str
    summary: str
    answer: type[Value]
    request: type[Value] | None = None
    signed_in: bool = True
    limit: int = MAX_BODY


ENDPOINTS: Final = (
    Endpoint(
        name="challenge",
        method="POST",
        path=CHALLENGE_PATH,
        summary="Ask for a challenge to sign.",
        answer=ChallengeTold,
        signed_in=False,
    ),
    Endpoint(
        name="sign_in",
        method="POST",
        path=SIGN_IN_PATH,
        summary="Sign in with a device's key, for a token that is good for an hour.",
        request=TokenRequest,
        answer=TokenTold,
        signed_in=False,
    ),
    Endpoint(
        name="request_upload",
        method="POST",
        path="/api/request-upload",
        summary="Begin to upload a content, go on with it, or learn that it is there.",
        request=RequestUpload,
        answer=UploadTold,
    ),
    Endpoint(
        name="renew_upload",
        method="POST",
        path="/api/renew-upload",
        summary="Ask for requests that send parts; each is good for an hour.",
        request=RenewUpload,
        answer=RequestsTold,
    ),
    Endpoint(
        name="upload_status",
        method="GET",
        path="/api/upload-status/{upload_id}",
        summary="Ask how far an upload has come.",
        answer=UploadStatus,
    ),
    Endpoint(
        name="complete_upload",
        method="POST",
        path="/api/complete-upload",
        summary="Make the object of its parts; asked again, it says the same again.",
        request=CompleteUpload,
        answer=ObjectTold,
        limit=MAX_COMPLETE,
    ),
    Endpoint(
        name="abort_upload",
        method="POST",
        path="/api/abort-upload",
        summary="Give an upload up.",
        request=AbortUpload,
        answer=Aborted,
    ),
    Endpoint(
        name="offer_contents",
        method="POST",
        path="/api/offer-contents",
        summary="Ask where to send up to 500 contents in one piece each, and which are there.",
        request=OfferContents,
        answer=ContentsOffered,
        limit=MAX_MANY,
    ),
    Endpoint(
        name="confirm_contents",
        method="POST",
        path="/api/confirm-contents",
        summary="Ask which of up to 500 contents that were sent the store has.",
        request=ConfirmContents,
        answer=ContentsConfirmed,
        limit=MAX_MANY,
    ),
    Endpoint(
        name="request_download",
        method="POST",
        path="/api/request-download",
        summary="Ask for a request that reads a content, whole or in ranges.",
        request=RequestDownload,
        answer=DownloadTold,
    ),
    Endpoint(
        name="request_links",
        method="POST",
        path="/api/request-links",
        summary="Ask for requests that read up to 500 contents.",
        request=RequestLinks,
        answer=LinksTold,
    ),
    Endpoint(
        name="report_damaged",
        method="POST",
        path="/api/report-damaged",
        summary="Say that a content isn't what its name says, and learn what the server finds.",
        request=ReportDamaged,
        answer=DamageTold,
    ),
)
"""Everything that can be asked over HTTP, but for what belongs to running the server."""


class Api:
    """Answers requests to the API.

    Args:
        hub: Knows the server's addresses, and counts.
        tokens: Who may ask.
        storage: Answers what concerns files; None where storage is switched off.
        doubts: Takes reports of what is damaged there; None likewise.
        now: The clock, UTC.
        openapi: The OpenAPI document.
    """

    def __init__(
        self,
        hub: Hub,
        tokens: Tokens,
        storage: StorageDesk | None,
        doubts: DoubtDesk | None,
        *,
        now: Callable[[], datetime],
        openapi: bytes,
    ) -> None:
        self._hub, self._tokens, self._storage = hub, tokens, storage
        self._doubts = doubts
        self._now, self._openapi = now, openapi
        self._challenges = Challenges()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="storage")
        self._comparing = ThreadPoolExecutor(COMPARING, thread_name_prefix="comparing")
        # Of what is long one is completed and one that is there compared, and nobody else waits.
        self._completing_long = ThreadPoolExecutor(1, thread_name_prefix="completing")
        self._comparing_long = ThreadPoolExecutor(1, thread_name_prefix="comparing")
        # Anybody in a room may report: who does keeps nobody from storing anything.
        self._doubting = ThreadPoolExecutor(1, thread_name_prefix="doubts")
        self._compared_for: set[DeviceId] = set()
        self._devices = SourceLimits(rate=API_RATE, burst=API_BURST, capacity=DEVICES)
        self._contents = SourceLimits(rate=CONTENTS_RATE, burst=CONTENTS_BURST, capacity=DEVICES)
        self._reports = SourceLimits(rate=REPORT_RATE, burst=REPORT_BURST, capacity=DEVICES)
        self._networks = SourceLimits(rate=SIGN_IN_RATE, burst=SIGN_IN_BURST)

    def close(self) -> None:
        """Wait for no thread any more."""
        for threads in (
            self._threads,
            self._comparing,
            self._completing_long,
            self._comparing_long,
            self._doubting,
        ):
            threads.shutdown(wait=False, cancel_futures=True)

    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """Answer one request below ``/api/``.

        Raises:
            ConnectionError: The other side went away.
        """
        if scope["path"] == OPENAPI_PATH:
            if scope["method"] not in ("GET", "HEAD"):
                return _wrong_method("GET")
            return Answer(status=200, body=self._openapi)
        try:
            endpoint, parameter = _find(scope["path"])
        except SleapRtcError as error:
            return failed(error)
        if scope["method"] != endpoint.method:
            return _wrong_method(endpoint.method)
        outcome = "ok"
        try:
            found = await self._answer(endpoint, parameter, scope, receive)
        except SleapRtcError as error:
            outcome = error.code
            logger.debug("refused {}: {}", endpoint.name, error.message)
            return failed(error)
        except ConnectionError:
            outcome = "gone"
            raise
        except Exception:  # noqa: BLE001 - one request's failure must not end the server
            outcome = "error"
            logger.exception("failed at {}", endpoint.name)
            return failed(UNEXPECTED)
        finally:
            self._hub.metrics.requests.labels(kind=f"http_{endpoint.name}", outcome=outcome).inc()
        return told(found)

    async def _answer(
        self, endpoint: Endpoint, parameter: str, scope: Scope, receive: Receive
    ) -> Value:
        address = str((scope.get("client") or ("unknown",))[0])
        strangers = self._networks.bucket(network_of(address), time.monotonic())
        _take(strangers, "This network")
        session = None
        if endpoint.signed_in:
            session = await self._session(scope)
            strangers.give_back(1)
            bucket = self._devices.bucket(session.device, time.monotonic())
            _take(bucket, "This device")
            # Who has proven itself may take longer than a stranger.
            give_time(scope, ANSWER_WITHIN)
        body = await Body(receive).whole(limit=endpoint.limit)
        request = None
        if endpoint.request is not None:
            request = decode(endpoint.request, body or b"{}", what="The request")
        if session is None:
            return await self._admit(request, scope)
        if self._storage is None:
            raise StorageOff(server=session.dialled)
        if named := len(getattr(request, "contents", ())):
            contents = self._contents.bucket(session.device, time.monotonic())
            _take(contents, "This device", named)
        if isinstance(request, ReportDamaged):
            _take(self._reports.bucket(session.device, time.monotonic()), "This device")
        asked = parameter if request is None else request
        found = await self._performed(endpoint, session.device, asked, scope)
        scheme = str(scope.get("scheme", "http"))
        return _absolute(found, self._hub.addresses.base_url(session.dialled, scheme=scheme))

    async def _performed(
        self, endpoint: Endpoint, device: DeviceId, asked: Value | str, scope: Scope
    ) -> Value:
        """What the storage answers.

        Whoever has large contents compared keeps nobody from anything else: that is done in threads
        of its own, and one at a time for each device that doesn't complete an upload by it. What
        takes long waits for its like alone.
        """
        if isinstance(asked, ReportDamaged):
            return await self._reported(device, asked, scope)
        perform = functools.partial(getattr(self._storage, endpoint.name), device, asked)
        loop = asyncio.get_running_loop()
        completes = isinstance(asked, CompleteUpload)
        if not (completes or isinstance(asked, RequestUpload | OfferContents | ConfirmContents)):
            return await loop.run_in_executor(self._threads, perform)
        if not isinstance(asked, RequestUpload):
            give_time(scope, COMPLETE_WITHIN if completes else CONFIRM_WITHIN)
        try:
            quick = functools.partial(perform, compare=False)
            return await loop.run_in_executor(self._threads, quick)
        except MustCompare as must:
            is_long = must.size > LONG
        if completes:
            threads = self._completing_long if is_long else self._comparing
            return await loop.run_in_executor(threads, perform)
        if device in self._compared_for:
            hint = "What it asked for before is being compared with its hash; try again then."
            raise TooManyRequests(who="This device", hint=hint)
        self._compared_for.add(device)
        try:
            give_time(scope, COMPLETE_WITHIN)
            threads = self._comparing_long if is_long else self._comparing
            return await loop.run_in_executor(threads, perform)
        finally:
            self._compared_for.discard(device)

    async def _reported(self, device: DeviceId, report: ReportDamaged, scope: Scope) -> DamageTold:
        """What becomes of a report; it is compared to the end, whoever still waits for that."""
        assert self._doubts is not None  # noqa: S101 - there is storage, or nobody comes here
        perform = functools.partial(self._doubts.report_damaged, device, report)
        loop = asyncio.get_running_loop()
        with contextlib.suppress(MustCompare):
            quick = functools.partial(perform, compare=False)
            return await loop.run_in_executor(self._threads, quick)
        give_time(scope, 2 * VERDICT_WITHIN)
        comparing = loop.run_in_executor(self._doubting, perform)
        comparing.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen
        await asyncio.wait([comparing], timeout=VERDICT_WITHIN)
        return comparing.result() if comparing.done() else DamageTold(found="open")

    async def _session(self, scope: Scope) -> Session:
        kind, _, token = header(scope, "authorization").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise NotSignedIn(
                server=host_header(scope), hint=f"It wants the token of {SIGN_IN_PATH}."
            )
        return await asyncio.to_thread(self._tokens.find, token.strip(), now=self._now())

    async def _admit(self, request: Value | None, scope: Scope) -> Value:
        """A challenge, or a token for one that was signed."""
        if not isinstance(request, TokenRequest):
            nonce = self._challenges.issue(time.monotonic())
            return ChallengeTold(nonce=nonce, expires_in=CHALLENGE_SECONDS)
        self._challenges.use(request.nonce, time.monotonic())
        sign_in = SignIn(
            version=SIGNALING_VERSION,
            device=request.device,
            signature=request.signature,
            name=request.name,
            program=request.program,
        )
        found = await asyncio.to_thread(
            self._hub.desk.check_sign_in,
            sign_in,
            request.nonce,
            addresses=self._hub.addresses.known(scope.get("server")),
            host=host_header(scope),
        )
        session = Session(device=found.device, dialled=found.dialled)
        token, expires = await asyncio.to_thread(self._tokens.issue, session, now=self._now())
        logger.info("device {} has a token, called {}", found.device, request.name)
        return TokenTold(token=token, expires=expires, expires_in=TOKEN_SECONDS)


def _take(bucket: TokenBucket, who: str, cost: float = 1) -> None:
    if not bucket.try_take(cost, time.monotonic()):
        raise TooManyRequests(who=who)


def _find(path: str) -> tuple[Endpoint, str]:
    """The endpoint of a path, and its parameter if it has one."""
    for endpoint in ENDPOINTS:
        fixed, brace, _ = endpoint.path.partition("{")
        if not brace and path == fixed:
            return endpoint, ""
        if brace and path.startswith(fixed):
            parameter = path.removeprefix(fixed)
            if not (len(parameter) == 32 and set(parameter) <= set("0123456789abcdef")):
                raise NotFound(message="There is nothing here.")
            return endpoint, parameter
    raise NotFound(message="There is nothing here.")


def _wrong_method(method: str) -> Answer:
    answer = failed(UsageError(message=f"Only {method} is understood here."), status=405)
    return msgspec.structs.replace(answer, headers={"allow": method})


def _absolute(found: Value, base: str) -> Value:
    """Requests to this very server with the address by which the device reaches it."""

    def whole(request: Any) -> Any:
        if not request.url.startswith("/"):
            return request
        return msgspec.structs.replace(request, url=base + request.url)

    match found:
        case UploadTold() | RequestsTold() | LinksTold() | ContentsOffered():
            requests = tuple(request and whole(request) for request in found.requests)
            return msgspec.structs.replace(found, requests=requests)
        case DownloadTold():
            return msgspec.structs.replace(found, request=whole(found.request))
    return found
