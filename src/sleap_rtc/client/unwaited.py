"""Calls in threads for which nobody waits: neither who gives up, nor the program at its end.

A thread of the event loop's own is waited for, whatever it waits for itself: a server
that doesn't answer would hold a command for a minute after Ctrl-C.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

GRACE_S: Final = 1.0
"""Seconds that whoever gives up waits for a call that was told to stop."""


async def unwaited(
    call: Callable[[], T], *, name: str, stop: Callable[[], None] | None = None
) -> T:
    """Call in a thread of its own.

    Args:
        call: It blocks, and may be left behind: then it changes nothing that others rely on.
        name: Of the thread.
        stop: Tells the call to end, from another thread; one that can be told so is waited for
            :data:`GRACE_S` seconds.

    Raises:
        BaseException: What the call raises.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T) -> None:
        if not done.done():
            done.set_result(result)

    def fail(failure: BaseException) -> None:
        if not done.done():
            done.set_exception(failure)

    def run() -> None:
        # Where the loop has ended meanwhile there is nobody to be told.
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - whoever waits must be told
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(fail, error)
        else:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, result)

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        return await asyncio.shield(done)
    finally:
        if stop is not None:
            stop()
            await asyncio.wait([done], timeout=GRACE_S)
        if not done.cancel() and not done.cancelled():
            done.exception()  # seen, or it would be reported as lost
