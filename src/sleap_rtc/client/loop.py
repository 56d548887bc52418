"""The event loop of a command: whoever gives up doesn't wait for what can't be told to end.

A thread that looks up a name, or waits for a lock, hears no cancelling. asyncio waits
for all of them at its end, so that a name server that is silent would hold a command
for a minute after its error, or after Ctrl-C.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from sleap_rtc.client.unwaited import unwaited

GRACE_S: Final = 2.0
"""Seconds that threads have after Ctrl-C, to finish what they write."""

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run work to its end, as :func:`asyncio.run` does.

    Raises:
        KeyboardInterrupt: It was interrupted; threads may still be at work, so the process should
            end without waiting for them.
    """
    with asyncio.Runner(loop_factory=_Loop) as runner:
        try:
            return runner.run(work)
        except KeyboardInterrupt:
            loop = runner.get_loop()
            assert isinstance(loop, _Loop)  # noqa: S101 - made above
            loop.interrupted = True
            raise


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self.interrupted = False
        # As many as asyncio's own.
        self._threads = ThreadPoolExecutor(thread_name_prefix="asyncio")
        self.set_default_executor(self._threads)

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002 - named so by asyncio
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        look_up = functools.partial(socket.getaddrinfo, host, port, family, type, proto, flags)
        return await unwaited(look_up, name="name lookup")

    async def shutdown_default_executor(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - named so by asyncio
    ) -> None:
        if not self.interrupted:
            await super().shutdown_default_executor()
            return
        ending = threading.Thread(target=self._threads.shutdown, daemon=True)
        ending.start()
        ending.join(GRACE_S)
