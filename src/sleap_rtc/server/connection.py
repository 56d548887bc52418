"""One WebSocket: frames in, the session's step, effects out.

A connection costs one task and no more while it is idle (10,000 of them are
meant to fit 250 MB), so there is no reader beside it and a writer only while
something waits to be written. A device that sends too fast is read more slowly,
over all of its connections; one that doesn't read is let go when a mebibyte
waits for it. What answers its own questions doesn't count for that, since a full
room is told in more; but the next question waits until it has left.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import MutableMapping
from typing import Any, Final

from loguru import logger

from sleap_rtc.errors import NotPermitted, ProtocolError, SleapRtcError
from sleap_rtc.net.limits import TokenBucket
from sleap_rtc.protocol.signaling import (
    CreateRoom,
    EnterRoom,
    FromServer,
    JoinRoom,
    LeaveRoom,
    PutChain,
    PutMembership,
    UpdateWorker,
    from_device,
    from_server,
)
from sleap_rtc.server.hub import Hub
from sleap_rtc.server.limits import (
    MAX_OUTBOX,
    MESSAGE_BURST,
    MESSAGE_RATE,
    SIGN_IN_DEADLINE,
    WRITE_COST,
    message_cost,
    network_of,
)
from sleap_rtc.server.responses import Receive, Scope, SendAsgi, header
from sleap_rtc.server.rooms import Visitor
from sleap_rtc.server.session import (
    Accepted,
    Check,
    Close,
    Effect,
    Ended,
    Event,
    Failed,
    Late,
    Perform,
    Send,
    State,
    start,
    step,
)

_DEAR: Final = (
    CreateRoom,
    EnterRoom,
    JoinRoom,
    LeaveRoom,
    PutChain,
    PutMembership,
    UpdateWorker,
)
"""Requests that are told to a whole room, or written to the disk."""

_DRAIN: Final = 5.0
"""Seconds that a connection which is to be closed may take to read the reason."""


class Connection:
    """Serves one WebSocket until it ends.

    Args:
        hub: The server's.
        scope: The ASGI scope.
        receive: Gives the next ASGI event.
        send: Takes an ASGI event.
        sign_in_deadline: Seconds that the device has to sign in.
    """

    __slots__ = (
        "_address",
        "_asked",
        "_bucket",
        "_deadline",
        "_dropped",
        "_flusher",
        "_hub",
        "_local",
        "_outbox",
        "_receive",
        "_scope_host",
        "_send",
        "_state",
        "_task",
        "_visitor",
        "_waiting",
        "id",
    )

    def __init__(
        self,
        hub: Hub,
        scope: Scope,
        receive: Receive,
        send: SendAsgi,
        *,
        sign_in_deadline: float = SIGN_IN_DEADLINE,
    ) -> None:
        self.id = secrets.token_hex(8)
        self._hub, self._receive, self._send = hub, receive, send
        self._address = str((scope.get("client") or ("unknown",))[0])
        self._local = scope.get("server")
        self._scope_host = host_header(scope)
        self._deadline = sign_in_deadline
        self._bucket = TokenBucket(rate=MESSAGE_RATE, burst=MESSAGE_BURST, now=time.monotonic())
        self._outbox: deque[tuple[str, bool]] = deque()
        self._waiting = self._asked = 0
        self._flusher: asyncio.Task[None] | None = None
        self._visitor: Visitor | None = None
        self._dropped = False
        self._state: State
        self._task: asyncio.Task[Any] | None = None

    async def run(self) -> None:
        """Serve the connection; returns when it has ended."""
        await self._receive()
        try:
            self._hub.pending.begin(self._address)
        except NotPermitted as error:
            logger.warning("{} ({})", error.message, self._address)
            await self._send({"type": "websocket.close"})
            return
        self._task = asyncio.current_task()
        self._hub.metrics.connections.inc()
        try:
            with logger.contextualize(connection=self.id, address=self._address):
                await self._send({"type": "websocket.accept"})
                await self._serve()
        except OSError:
            logger.debug("connection {} went away", self.id)
        except asyncio.CancelledError:
            if not self._dropped:
                raise
            if self._task is not None:
                self._task.uncancel()
        finally:
            if self._visitor is None:
                self._hub.pending.end(self._address)
            if self._flusher is not None:
                self._flusher.cancel()
            self._hub.metrics.connections.dec()
            self._hub.depart(self.id, self._visitor.device if self._visitor else None)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._deadline
        self._state, effects = start(secrets.token_hex(32))
        await self._run(effects)
        while not isinstance(self._state, Ended):
            try:
                async with asyncio.timeout_at(None if self._visitor else until):
                    frame = await self._receive()
            except TimeoutError:
                await self._feed(Late(seconds=self._deadline))
                return
            if frame["type"] == "websocket.disconnect":
                return
            await self._feed(await self._read(frame))

    async def _read(self, frame: MutableMapping[str, Any]) -> Event:
        """The message in a frame, after as long as the connection's rate wants."""
        text = frame.get("text")
        data = text.encode("utf-8", "replace") if text is not None else frame.get("bytes") or b""
        delay = self._bucket.take(message_cost(len(data)), time.monotonic())
        if delay:
            await asyncio.sleep(delay)
        if text is None:
            return Failed(ProtocolError(peer="the device", why="a binary frame"))
        try:
            message = from_device.decode(data, peer="the device")
        except SleapRtcError as error:
            return Failed(error)
        if isinstance(message, _DEAR):
            delay = self._bucket.take(WRITE_COST, time.monotonic())
            if delay:
                await asyncio.sleep(delay)
        return message

    async def _feed(self, event: Event) -> None:
        self._state, effects = step(self._state, event)
        await self._run(effects)

    async def _run(self, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            match effect:
                case Send(message=message):
                    self._say(message)
                case Check():
                    await self._feed(await self._check(effect))
                case Perform(request=request):
                    assert self._visitor is not None  # noqa: S101 - the session says so
                    while self._asked > MAX_OUTBOX and self._flusher is not None:
                        await asyncio.wait([self._flusher])
                    answer = await self._hub.perform(self._visitor, request)
                    if answer is not None:
                        self._say(answer, asked=True)
                case Close():
                    await self._close(effect)

    async def _check(self, check: Check) -> Event:
        sign_ins = self._hub.metrics.sign_ins
        codes = self._hub.codes.bucket(network_of(self._address), time.monotonic())
        try:
            if check.sign_in.setup_code is not None and not codes.try_take(1, time.monotonic()):
                raise NotPermitted(
                    message="Too many wrong set-up codes came from this network.",
                    hint="Try again in some minutes.",
                )
            found = await asyncio.to_thread(
                self._hub.desk.check_sign_in,
                check.sign_in,
                check.nonce,
                addresses=self._hub.addresses.known(self._local),
                host=self._scope_host,
            )
            visitor = Visitor(
                connection=self.id, device=found.device, instance=check.sign_in.instance
            )
            self._hub.arrive(visitor, self)
        except SleapRtcError as error:
            device = check.sign_in.device
            logger.warning("refused the sign-in of device {}: {}", device, error.message)
            sign_ins.labels(outcome=error.code).inc()
            return Failed(error)
        except Exception:  # noqa: BLE001 - the device is told, and the server goes on
            logger.exception("failed at a sign-in")
            sign_ins.labels(outcome="error").inc()
            return Failed(SleapRtcError(message="The server failed at this; its log says more."))
        sign_ins.labels(outcome="ok").inc()
        logger.info("device {} signed in, called {}", found.device, check.sign_in.name)
        if check.sign_in.setup_code is not None:
            codes.give_back(1)
        self._visitor = visitor
        self._bucket = self._hub.messages.bucket(found.device, time.monotonic())
        self._hub.pending.end(self._address)
        return Accepted(
            connection=self.id,
            ice_servers=self._hub.ice_servers(found.dialled),
            may_create_rooms=found.may_create_rooms,
        )

    # ── writing ──────────────────────────────────────────────────────────────

    def post(self, text: str, *, asked: bool = False) -> None:
        """Send an encoded message, in order and without waiting."""
        if self._dropped:
            return
        self._outbox.append((text, asked))
        if asked:
            self._asked += len(text)
        else:
            self._waiting += len(text)
        if self._waiting > MAX_OUTBOX:
            self._drop()
        elif self._flusher is None:
            self._flusher = asyncio.create_task(self._flush())

    def _say(self, message: FromServer, *, asked: bool = False) -> None:
        self.post(from_server.encode(message).decode("utf-8"), asked=asked)

    async def _flush(self) -> None:
        try:
            while self._outbox:
                text, asked = self._outbox.popleft()
                await self._send({"type": "websocket.send", "text": text})
                if asked:
                    self._asked -= len(text)
                else:
                    self._waiting -= len(text)
        except OSError:
            self._outbox.clear()
            self._asked = 0
        finally:
            self._flusher = None

    def _drop(self) -> None:
        logger.bind(connection=self.id).warning("a device doesn't read; its connection is ended")
        self._hub.metrics.dropped.inc()
        self._dropped = True
        self._outbox.clear()
        if self._task is not None:
            self._task.cancel()

    async def _close(self, effect: Close) -> None:
        if self._flusher is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._flusher), _DRAIN)
        with contextlib.suppress(OSError):
            await self._send(
                {"type": "websocket.close", "code": effect.code, "reason": effect.reason}
            )


def host_header(scope: Scope) -> str:
    """What a request named as its host, with the port that it means; empty without one."""
    host = header(scope, "host")[:300].lower()
    if not host:
        return ""
    _, _, port = host.rpartition("]")[2].partition(":")
    usual = 443 if scope.get("scheme") in ("wss", "https") else 80
    return host if port else f"{host}:{usual}"
