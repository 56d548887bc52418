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
from sleap_rtc.errors import Cancelled, LinkLost, NetworkError, ProtocolError, SleapRtcError
from sleap_rtc.files import buffers
from sleap_rtc.files.buffers import Content
from sleap_rtc.files.partial import PartialStore
from sleap_rtc.transfer.events import (
    MAX_ASKED,
    MAX_SEVERAL,
    Arrived,
    Blame,
    Complete,
    Drop,
    Effect,
    Event,
    Fail,
    Rejected,
    Request,
    Rotten,
    SourceAdded,
    SourceId,
    SourceLeaves,
    SourceLost,
    SourceRefused,
    Store,
    Stored,
    Withdraw,
)
from sleap_rtc.transfer.grouping import grouped, in_runs
from sleap_rtc.transfer.machine import Download, Phase
from sleap_rtc.transfer.progress import Meter, OfFile, Progress
from sleap_rtc.transports.base import Blamed, BlockSource, Pouring, Several, Sources, leaves
from sleap_rtc.transports.gate import Gate
from sleap_rtc.transports.mailbox import Mailbox
from sleap_rtc.transports.throttle import Throttle

REPORT_SECONDS: Final = 0.25
_WRITERS: Final = 2
"""While one waits for the disk, the other goes on; of more, most wait for a large file's lock."""
_TOGETHER: Final = 6
"""Answers that one thread stores in a row."""

OnProgress = Callable[[Progress], None]
_Part = tuple[int, int, int]
"""A block's number, and where its content begins and ends in an answer."""
_Written = tuple[SourceId | None, Sequence[int], Sequence[bool] | BaseException]
"""Blocks and whether each was right, or why they couldn't be written; and whose they are, where the
machine hasn't heard yet that they arrived."""


class _Question:
    """Blocks that a source was asked for at once, and which of them are still wanted of it.

    Of blocks that are poured those are left that haven't come, either.
    """

    __slots__ = ("blocks", "left", "task")

    def __init__(self, blocks: tuple[int, ...]) -> None:
        self.blocks, self.left = blocks, set(blocks)
        self.task: asyncio.Task[None] | None = None

    def end(self) -> None:
        """Nobody waits for an answer any more."""
        if self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()


_Way = Callable[[SourceId, BlockSource, _Question], Coroutine[Any, Any, None]]
"""How a source is asked a question."""


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
        self._last = ""
        self._at_once: dict[SourceId, int] = {}
        self._requests: dict[SourceId, dict[int, _Question]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._arrived: list[tuple[Sequence[_Part], Content]] = []
        self._written: Mailbox[_Written]
        self._gate = Gate()
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
        await asyncio.to_thread(self._gate.close)
        await asyncio.to_thread(self._writers.shutdown, cancel_futures=True)
        buffers.drop()
        if not self._outcome.cancel() and not self._outcome.cancelled():
            self._outcome.exception()  # seen, or it would be reported as lost

    def _sources_changed(self) -> None:
        current = self._sources.current
        for key in self._used.keys() - current.keys():
            if leaves(self._used[key]):
                self._feed(SourceLeaves(key))
            else:
                self._stop_using(key)
                self._feed(SourceLost(key))
        for key, source in current.items():
            if key not in self._used and key not in self._given_up:
                self._used[key] = source
                self._requests[key] = {}
                manner = self._sources.manner(key)
                window = manner.window or self._window
                # Kept: whether it is such a source takes long to find out.
                at_once = source.at_once if isinstance(source, Several) else 1
                self._at_once[key] = at_once
                several = at_once > 1
                # It is asked when there is room for a whole answer: else each would be a short one.
                run = max(manner.run, min(BLOCK, window // 4)) if several else manner.run
                most = MAX_SEVERAL if several else MAX_ASKED
                self._feed(SourceAdded(key, window, run, peer=source.name, most=most))

    def _stop_using(self, key: SourceId) -> None:
        self._given_up.add(key)
        self._used.pop(key, None)
        for asked in set(self._requests.pop(key, {}).values()):
            asked.end()

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
                case Blame():
                    self._blame(effect.source, effect.block)
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

    def _blame(self, key: SourceId, block: int) -> None:
        """Tell a source that a block of it was wrong, if it wants to know."""
        giver = self._used.get(key)
        if giver is not None and isinstance(giver, Blamed):
            giver.was_wrong(self._layout.locate(block)[0])

    def _ask(self, key: SourceId, blocks: Sequence[int]) -> None:
        """Ask a source for blocks: for small ones together, and for neighbours that it pours."""
        source = self._used[key]
        if isinstance(source, Pouring):
            runs, blocks = in_runs(blocks, self._layout.locate, self._longest(source))
            for run in runs:
                self._put(key, run, self._pour)
        for group in grouped(blocks, self._layout.size, most=self._at_once[key]):
            self._put(key, group, self._give)

    def _longest(self, source: Pouring) -> Callable[[int], int]:
        """Gives the blocks of a file that the source may be asked for at once."""
        files = self._layout.package.files

        def most(file: int) -> int:
            # Small files come by the dozen. A limit has each block wait for its turn.
            count = source.run(file) if files[file].block_count > 1 else 0
            return min(count, 1) if self._throttle is not None else count

        return most

    def _put(self, key: SourceId, blocks: tuple[int, ...], way: _Way) -> None:
        """Put a question to a source."""
        requests, question = self._requests[key], _Question(blocks)
        requests.update(dict.fromkeys(blocks, question))
        question.task = self._spawn(self._answer(key, question, way))
        question.task.add_done_callback(partial(_forget, requests, question))

    def _withdraw(self, key: SourceId, block: int) -> None:
        """A block has come from elsewhere; what it was asked for with may still be wanted."""
        asked = self._requests[key].pop(block, None)
        if asked is not None:
            asked.left.discard(block)
            if not asked.left:
                asked.end()

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

    async def _answer(self, key: SourceId, question: _Question, way: _Way) -> None:
        """Wait until a source has answered, or failed."""
        source = self._used[key]
        try:
            if self._throttle is not None:
                await self._throttle.take(sum(map(self._layout.size, question.blocks)))
            await way(key, source, question)
        except NetworkError as error:
            logger.bind(source=source.name, why=str(error)).info("source lost")
            why = error.details.get("why", error.message)
            self._last = f"; the last one was {source.name}, which went: {why}"
            self._written.empty()  # what it has poured before counts
            self._stop_using(key)
            self._feed(SourceLost(key))
        except SleapRtcError as error:
            self._written.empty()
            self._feed(SourceRefused(key, error))

    async def _give(self, key: SourceId, source: BlockSource, question: _Question) -> None:
        """Have a source give blocks in one answer, which others then store."""
        package, blocks = self._layout.package.id, question.blocks
        sizes = [self._layout.size(block) for block in blocks]
        ends = [0, *itertools.accumulate(sizes)]
        if len(blocks) > 1 and isinstance(source, Several):
            places = [self._layout.locate(block) for block in blocks]
            content, _ = await source.several(package, places, sizes)
        else:
            file, index = self._layout.locate(blocks[0])
            content = await source.block(package, file, index, ends[-1])
        stored = set(self._feed(*(Arrived(key, block) for block in blocks)))
        parts = [part for part in zip(blocks, ends, ends[1:], strict=False) if part[0] in stored]
        if parts:
            if not self._arrived:
                asyncio.get_running_loop().call_soon(self._hand_over)
            self._arrived.append((parts, content))
        else:  # it came too late
            buffers.give_back(content)

    async def _pour(self, key: SourceId, source: BlockSource, question: _Question) -> None:
        """Have a source give neighbours, which are stored in its own thread."""
        assert isinstance(source, Pouring)  # noqa: S101 - else it isn't asked so
        package, blocks = self._layout.package.id, question.blocks
        sizes = [self._layout.size(block) for block in blocks]
        await source.pour(
            package, *self._layout.locate(blocks[0]), sizes, partial(self._keep, key, question)
        )
        if question.left:
            raise ProtocolError(peer=source.name, why="fewer blocks than it was asked for")

    def _keep(self, key: SourceId, question: _Question, n: int, content: Content) -> bool:
        """Check and store a block that is poured, if it is still wanted; in a thread.

        Returns:
            Whether more of them are wanted.
        """
        block = question.blocks[n]
        outcome: list[bool] | BaseException
        if block not in question.left:
            return bool(question.left)
        if not self._gate.enter():
            return False
        try:
            outcome = self._store.write([(block, content)])
        except BaseException as error:  # noqa: BLE001 - whoever waits must be told
            outcome = error
            question.left.clear()
        finally:
            self._gate.leave()
        question.left.discard(block)
        self._written.put((key, (block,), outcome))
        return bool(question.left)

    def _hand_over(self) -> None:
        """Have stored what has arrived at one moment: together that costs a fraction."""
        arrived, self._arrived = self._arrived, []
        if not self._stopped:
            for at in range(0, len(arrived), _TOGETHER):
                self._writers.submit(self._write, arrived[at : at + _TOGETHER])

    def _write(self, arrived: Sequence[tuple[Sequence[_Part], Content]]) -> None:
        """Check and store blocks; in a thread."""
        outcome: list[bool] | BaseException
        views = [memoryview(content) for _, content in arrived]
        blocks: list[tuple[int, Content]] = []
        for (parts, _), view in zip(arrived, views, strict=True):
            blocks += [(block, view[start:end]) for block, start, end in parts]
        numbers = [block for block, _ in blocks]
        try:
            outcome = self._store.write(blocks)
        except BaseException as error:  # noqa: BLE001 - whoever waits must be told
            outcome = error
        blocks.clear()
        for (_, content), view in zip(arrived, views, strict=True):
            view.release()
            buffers.give_back(content)
        self._written.put((None, numbers, outcome))

    def _was_written(self, written: _Written) -> None:
        key, numbers, outcome = written
        if self._stopped:
            return
        if isinstance(outcome, BaseException):
            self._break(outcome)
            return
        try:
            if key is not None:
                stored = self._feed(*(Arrived(key, block) for block in numbers))
            else:
                stored = [*numbers]
            self._feed(
                *(
                    Stored(block) if right else Rejected(block)
                    for block, right in zip(numbers, outcome, strict=True)
                    if block in stored
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

    def _newest(self) -> OfFile | None:
        """The file that something came of last."""
        if self._machine.newest is None:
            return None
        file, _ = self._layout.locate(self._machine.newest)
        entry = self._layout.package.files[file]
        return OfFile(entry.path, done=self._machine.done_of(file), size=entry.size)

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
                why = f"there is none for {self._patience:g} s{self._last}"
                raise LinkLost(peer="every source", why=why)
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
                    done = self._machine.done_bytes
                    self._on_progress(meter.update(done, now, phase=phase, file=self._newest()))
            await asyncio.sleep(REPORT_SECONDS)


def _forget(
    requests: dict[int, _Question], question: _Question, _ended: asyncio.Task[None]
) -> None:
    for block in question.blocks:
        if requests.get(block) is question:  # withdrawn and asked again it is in another one
            del requests[block]
