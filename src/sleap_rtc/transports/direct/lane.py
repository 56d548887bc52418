"""What the threads of both ends of a direct connection have in common."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from loguru import logger

from sleap_rtc.errors import LinkLost, SleapRtcError
from sleap_rtc.transports.direct.wire import Wire

LOOK_MS: Final = 1_000
"""Milliseconds between looks at the clock when nothing happens."""

CLOSES_S: Final = 2.0
"""Seconds that a lane's end is waited for: its thread may be reading a file."""

OnEnd = Callable[[SleapRtcError], None]


class Lane(ABC):
    """One end at work, in a thread of its own. Made, and told of the end, on the event loop.

    Args:
        wire: The proven connection, which is closed at the end.
        on_end: Called once with why it ended.
    """

    def __init__(self, wire: Wire, *, on_end: OnEnd) -> None:
        self._wire = wire
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._closing = threading.Event()
        self._over = asyncio.Event()
        try:
            self._woken, self._waker = socket.socketpair()
        except OSError:  # too many files are open
            wire.close()
            raise
        self._waits = False
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._woken, select.POLLIN)
        self._fd = wire.sock.fileno()
        self._poll.register(self._fd, select.POLLIN)
        self._thread = threading.Thread(target=self._run, name="direct", daemon=True)

    def start(self) -> None:
        """Begin to work.

        Raises:
            LinkLost: The system gives no thread; the connection is closed.
        """
        try:
            self._thread.start()
        except RuntimeError as error:
            self._shut()
            why = f"the direct connection got no thread ({error})"
            raise LinkLost(peer=self._wire.peer, why=why) from None

    async def close(self) -> None:
        """End it, and wait until its thread has, but not for a disk that hangs."""
        self._closing.set()
        self._wire.interrupt()
        self._wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSES_S):
                await self._over.wait()

    @abstractmethod
    def _work(self) -> None:
        """Move frames until there is an end; runs in the thread."""

    def _wake(self) -> None:
        """Have the thread look again, if it waits; from any thread."""
        if self._waits:
            with contextlib.suppress(OSError):  # full: it will look; closed: it is over
                self._waker.send(b"\0")

    def _wait(self, *, most_ms: int = LOOK_MS) -> bool:
        """Wait until the peer says something, or another thread wakes this one.

        Returns:
            Whether there is something to read.
        """
        if self._wire.has_more:
            return True
        readable = False
        self._waits = most_ms > 0
        # Looked at after it was said that this waits: what comes from now on wakes it.
        if self._waits and self._has_work():
            most_ms = 0
        for fd, _ in self._poll.poll(most_ms):
            if fd == self._fd:
                readable = True
            else:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)
        self._waits = False
        return readable

    @abstractmethod
    def _has_work(self) -> bool:
        """Whether another thread has left something to do; whoever does so wakes this one."""

    def _soon(self, call: Callable[[], None]) -> None:
        """Call on the event loop, unless that has ended."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)

    def _run(self) -> None:
        error: SleapRtcError = LinkLost(peer=self._wire.peer, why="this side ends it")
        try:
            self._wire.wait_in_calls()
            self._work()
        except SleapRtcError as known:
            error = known
        except Exception as fault:  # noqa: BLE001 - whoever waits must be told
            logger.exception("a direct connection with {} failed", self._wire.peer)
            error = LinkLost(peer=self._wire.peer, why=f"the direct connection failed: {fault!r}")
        finally:
            self._shut()
            self._soon(lambda: self._ended(error))

    def _shut(self) -> None:
        self._wire.close()
        self._woken.close()
        self._waker.close()

    def _ended(self, error: SleapRtcError) -> None:
        self._over.set()
        self._on_end(error)
