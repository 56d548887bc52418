"""Asynchronous work for a caller that isn't: an event loop in a thread of its own.

It works where another loop runs already, as in a notebook, and connections stay
alive while the caller does something else.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Final, TypeVar

T = TypeVar("T")

STOP_S: Final = 10.0
"""Seconds that the loop has to end in."""


class Portal:
    """The way into the loop. Made when it is first needed; for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: Callable[[], object] = lambda: None

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work to its end; Ctrl-C cancels it, and is raised when it has ended.

        Raises:
            Exception: What the work raises.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._started())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """The items, each asked for when it is wanted."""

        async def one() -> tuple[T] | None:
            try:
                return (await anext(items),)
            except StopAsyncIteration:
                return None

        while (found := self.call(one())) is not None:
            yield found[0]

    @contextmanager
    def hold(self, manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """Be within an asynchronous context manager, which one task enters and leaves.

        Raises:
            Exception: What entering or leaving raises.
        """
        entered: asyncio.Future[T] | None = None
        leave = asyncio.Event()

        async def begin() -> tuple[asyncio.Task[None], T]:
            nonlocal entered
            entered = asyncio.get_running_loop().create_future()

            async def live() -> None:
                async with manager as found:
                    assert entered is not None  # noqa: S101 - it was just made
                    entered.set_result(found)
                    await leave.wait()

            task = asyncio.create_task(live())
            try:
                await asyncio.wait((task, entered), return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                task.cancel()
                await asyncio.wait((task,))
                raise
            if task.done():
                task.result()
            return task, entered.result()

        async def end(task: asyncio.Task[None]) -> None:
            leave.set()
            await task

        task, found = self.call(begin())
        try:
            yield found
        finally:
            self.call(end(task))

    def close(self) -> None:
        """End the loop; it is made again when it is needed."""
        with self._lock:
            self._loop = None
        self._end()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                thread = threading.Thread(
                    target=_run, args=(self._loop,), name="sleap-rtc", daemon=True
                )
                thread.start()
                self._end = weakref.finalize(self, _stop, self._loop, thread)
            return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    if thread.is_alive():
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(STOP_S)
