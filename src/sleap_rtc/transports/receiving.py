"""One run of the transfer machine: its requests as tasks, its writes in threads."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, assert_never

from loguru import logger

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import Cancelled, LinkLost, NetworkError, SleapRtcError
from sleap_rtc.files import buffers
from sleap_rtc.files.buffers import Content
from sleap_rtc.files.partial import PartialStore
from sleap_rtc.transfer.grouping import grouped
from sleap_rtc.transfer.machine import (
    MAX_ASKED,
    MAX_SEVERAL,
    Arrived,
    Complete,
    Download,
    Drop,
    Effect,
    Event,
    Fail,
    Phase,
    Rejected,
    Request,
    Rotten,
    SourceAdded,
    SourceId,
    SourceLost,
    SourceRefused,
    Store,
    Stored,
    Withdraw,
)
from sleap_rtc.transfer.progress import Meter, Progress
from sleap_rtc.transports.base import BlockSource, Several, Sources
from sleap_rtc.transports.mailbox import Mailbox
from sleap_rtc.transports.throttle import Throttle

REPORT_SECONDS: Final = 0.25
_WRITERS: Final = 3

OnProgress = Callable[[Progress], None]
_Part = tuple[int, int, int]
"""A block's number, and where its content begins and ends in an answer."""


class _Question:
    """Blocks that a source was asked for at once, and which of them are still wanted of it."""

    __slots__ = ("blocks", "left", "task")

    def __init__(self, blocks: tuple[int, ...], task: asyncio.Task[None]) -> None:
        self.blocks, self.left, self.task = blocks, set(blocks), task


class Receiving:
    """Brings all missing blocks into a store, and checks it. Runs once.

    Args:
        store: What is here, and where it goes.
        sources: Where from; they may come and go.
        on_progress: Called on the event loop.
        throttle: The bandwidth limit.
        patience: Seconds without a source before giving up; None for ever.
        window: Bytes under way from each source.
    """

    def __init__(
        self,
        store: PartialStore,
        sources: Sources,
        *,
        on_progress: OnProgress | None,
        throttle: Throttle | None,
        patience: float | None,
        window: int,
    ) -> None:
        self._store = store
        self._layout = store.layout
        self._sources = sources
        self._on_progress = on_progress
        self._throttle = throttle
        self._patience = patience
        self._window = window
        self._machine = Download(store.layout, store.done)
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="blocks")
        self._used: dict[SourceId, BlockSource] = {}
        self._given_up: set[SourceId] = set()
        self._requests: dict[SourceId, dict[int, _Question]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._written: Mailbox[tuple[Sequence[_Part], Sequence[bool] | BaseException]]
        self._outcome: asyncio.Future[None]
        self._checking = False
        self._checked = 0
        self._stopped = False
        self._lock = threading.Lock()

    async def run(self) -> None:
        """Run until everything is here and checked.

        Raises:
            SleapRtcError: As `sleap_rtc.transports.fetch.fetch`.
        """
        self._outcome = asyncio.get_running_loop().create_future()
        self._written = Mailbox(self._was_written)
        try:
            with self._sources.watch(self._sources_changed):
                self._spawn(self._report())
                self._carry_out(self._machine.begin())
                self._sources_changed()
                while True:
                    await self._outcome
                    wrong = await self._verify()
                    if not wrong:
                        break
                    logger.bind(blocks=len(wrong)).warning("stored blocks are wrong, asking again")
                    self._outcome = asyncio.get_running_loop().create_future()
                    self._feed(Rotten(tuple(wrong)))
        finally:
            await self._stop()
        if self._on_progress is not None:
            total = self._layout.package.size
            self._on_progress(Progress(phase="done", done=total, total=total, eta_s=0.0))

    async def _stop(self) -> None:
        """End all tasks and threads: nobody touches the store after this."""
        self._stopped = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._writers.shutdown, cancel_futures=True)
        buffers.drop()
        if not self._outcome.cancel() and not self._outcome.cancelled():
            self._outcome.exception()  # seen, or it would be reported as lost

    def _sources_changed(self) -> None:
        current = self._sources.current
        for key in self._used.keys() - current.keys():
            self._stop_using(key)
            self._feed(SourceLost(key))
        for key, source in current.items():
            if key not in self._used and key not in self._given_up:
                self._used[key] = source
                self._requests[key] = {}
                manner = self._sources.manner(key)
                window = manner.window or self._window
                several = _at_once(source) > 1
                # It is asked when there is room for a whole answer: else each would be a short one.
                run = max(manner.run, min(BLOCK, window // 4)) if several else manner.run
                most = MAX_SEVERAL if several else MAX_ASKED
                self._feed(SourceAdded(key, window, run, peer=source.name, most=most))

    def _stop_using(self, key: SourceId) -> None:
        self._given_up.add(key)
        self._used.pop(key, None)
        for task in {asked.task for asked in self._requests.pop(key, {}).values()}:
            if task is not asyncio.current_task():
                task.cancel()

    def _feed(self, *events: Event) -> list[int]:
        """Have the machine take events in, and do what it says; returns what is to be stored."""
        return self._carry_out(self._machine.handle(*events))

    def _carry_out(self, effects: list[Effect]) -> list[int]:
        wanted: dict[SourceId, dict[int, None]] = {}
        stored: list[int] = []
        for effect in effects:
            match effect:
                case Request():
                    wanted.setdefault(effect.source, {})[effect.block] = None
                case Withdraw() if effect.block in wanted.get(effect.source, {}):
                    del wanted[effect.source][effect.block]  # it isn't asked for yet
                case Withdraw():
                    self._withdraw(effect.source, effect.block)
                case Store():
                    stored.append(effect.block)
                case Drop():
                    source = self._used[effect.source]
                    logger.bind(source=source.name, why=str(effect.error)).warning("source dropped")
                    self._stop_using(effect.source)
                case Complete():
                    if not self._outcome.done():
                        self._outcome.set_result(None)
                case Fail():
                    self._break(effect.error)
                case _:  # pragma: no cover
                    assert_never(effect)
        for key, blocks in wanted.items():
            self._ask(key, [*blocks])
        return stored

    def _ask(self, key: SourceId, blocks: Sequence[int]) -> None:
        """Ask a source for blocks, for small ones together."""
        requests = self._requests[key]
        for group in grouped(blocks, self._layout.size, most=_at_once(self._used[key])):
            task = self._spawn(self._request(key, group))
            question = _Question(group, task)
            requests.update(dict.fromkeys(group, question))
            task.add_done_callback(partial(_forget, requests, question))

    def _withdraw(self, key: SourceId, block: int) -> None:
        """A block has come from elsewhere; what it was asked for with may still be wanted."""
        asked = self._requests[key].pop(block, None)
        if asked is not None:
            asked.left.discard(block)
            if not asked.left:
                asked.task.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._break(error)

    def _break(self, error: BaseException) -> None:
        if not self._outcome.done():
            self._outcome.set_exception(error)

    async def _request(self, key: SourceId, blocks: Sequence[int]) -> None:
        package = self._layout.package.id
        ends = [0, *itertools.accumulate(map(self._layout.size, blocks))]
        source = self._used[key]
        try:
            if self._throttle is not None:
                await self._throttle.take(ends[-1])
            if len(blocks) > 1 and isinstance(source, Several):
                places = [self._layout.locate(block) for block in blocks]
                content, _ = await source.several(package, places, ends[-1])
            else:
                file, index = self._layout.locate(blocks[0])
                content = await source.block(package, file, index, ends[-1])
        except NetworkError as error:
            logger.bind(source=source.name, why=str(error)).info("source lost")
            self._stop_using(key)
            self._feed(SourceLost(key))
        except SleapRtcError as error:
            self._feed(SourceRefused(key, error))
        else:
            stored = set(self._feed(*(Arrived(key, block) for block in blocks)))
            parts = [
                part for part in zip(blocks, ends, ends[1:], strict=False) if part[0] in stored
            ]
            if parts:
                self._writers.submit(self._write, parts, content)
            else:  # it came too late
                buffers.give_back(content)

    def _write(self, parts: Sequence[_Part], content: Content) -> None:
        """Check and store blocks; in a thread."""
        outcome: list[bool] | BaseException
        view = memoryview(content)
        try:
            outcome = self._store.write([(block, view[start:end]) for block, start, end in parts])
        except BaseException as error:  # noqa: BLE001 - whoever waits must be told
            outcome = error
        view.release()
        buffers.give_back(content)
        self._written.put((parts, outcome))

    def _was_written(self, written: tuple[Sequence[_Part], Sequence[bool] | BaseException]) -> None:
        parts, outcome = written
        if self._stopped:
            return
        if isinstance(outcome, BaseException):
            self._break(outcome)
            return
        try:
            self._feed(
                *(
                    Stored(block) if right else Rejected(block)
                    for (block, _, _), right in zip(parts, outcome, strict=True)
                )
            )
        except Exception as error:  # noqa: BLE001 - nobody else would hear of it
            self._break(error)

    async def _verify(self) -> list[int]:
        self._checking, self._checked = True, 0
        check = asyncio.ensure_future(
            asyncio.to_thread(self._store.verify, progress=self._block_checked)
        )
        try:
            return await asyncio.shield(check)
        except asyncio.CancelledError:
            self._stopped = True
            await asyncio.wait([check])
            check.exception()  # its Cancelled is ours
            raise
        finally:
            self._checking = False

    def _block_checked(self, size: int) -> None:
        """Count checked bytes; called in threads."""
        if self._stopped:
            raise Cancelled(what="The check")
        with self._lock:
            self._checked += size

    async def _report(self) -> None:
        """Tell the progress, and notice when nobody sends for too long."""
        clock = time.monotonic
        total = self._layout.package.size
        meter = Meter("receiving", done=self._machine.done_bytes, total=total, now=clock())
        checking = False
        alone_since = clock()
        while True:
            now = clock()
            if self._machine.phase is not Phase.WAITING:
                alone_since = now
            elif self._patience is not None and now - alone_since >= self._patience:
                raise LinkLost(peer="every source", why=f"none for {self._patience} s")
            if self._checking is not checking:
                checking = self._checking
                done = 0 if checking else self._machine.done_bytes
                name = "verifying" if checking else "receiving"
                meter = Meter(name, done=done, total=total, now=now)
            if self._on_progress is not None:
                if checking:
                    self._on_progress(meter.update(self._checked, now))
                else:
                    waiting = self._machine.phase is Phase.WAITING
                    phase = "waiting" if waiting else None
                    self._on_progress(meter.update(self._machine.done_bytes, now, phase=phase))
            await asyncio.sleep(REPORT_SECONDS)


def _at_once(source: BlockSource) -> int:
    """How many blocks a source is asked for in one question."""
    return source.at_once if isinstance(source, Several) else 1


def _forget(
    requests: dict[int, _Question], question: _Question, _ended: asyncio.Task[None]
) -> None:
    for block in question.blocks:
        if requests.get(block) is question:  # withdrawn and asked again it is in another one
            del requests[block]
