"""Moving models between this machine and one worker: what a push and a pull share.

::

    AsyncClient.mover ──► Mover ──► push_model    client/pushing.py
                            │  └──► pull_model    client/pulling.py
                            ├── library     what the worker has (client/asking.py)
                            ├── link        where blocks go and come from
                            └── transfers   what this machine remembers (client/transfers.py)
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, Literal

import msgspec
from loguru import logger

from sleap_rtc.auth.store import RoomEntry
from sleap_rtc.client.asking import WorkerLibrary, open_linked
from sleap_rtc.client.bringing import PATIENCE_S, OnProgress
from sleap_rtc.client.finding import choose_worker
from sleap_rtc.client.online import Online
from sleap_rtc.client.supplying import Say, Ways
from sleap_rtc.client.transfers import Direction, Transfer, Transfers
from sleap_rtc.domain.ids import ModelId, PackageId
from sleap_rtc.domain.models import ModelRecord, Tier
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.domain.units import format_bytes
from sleap_rtc.errors import (
    AlreadyExists,
    DeadlineExceeded,
    NetworkError,
    NotFound,
    PeerUnreachable,
    UnknownWorker,
)
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.nearby import Ends
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.link import NoticeBody, ReplyBody, RequestBody
from sleap_rtc.protocol.moving import How, PushMoved
from sleap_rtc.transfer.choice import Plan
from sleap_rtc.transfer.progress import OfFile, Progress
from sleap_rtc.transports.blocks import Served
from sleap_rtc.transports.link import Link, State
from sleap_rtc.transports.throttle import Throttle

Choice = Literal["skip", "overwrite", "keep-both"]

LONG_S: Final = 3_600.0
"""Seconds that one request may last; a push that takes longer asks again, and goes on."""
LOOK_S: Final = 1.0


class Clash(msgspec.Struct, frozen=True):
    """Another model has the id of one that is to come.

    Attributes:
        label: What the one that comes is called.
        where: ``this machine``, or the worker's name.
        model: The id.
        other: What the one there is called.
        created_at: When that one was made, as a person would tell it.
        size: Bytes of its files.
        locked: Why it can't be overwritten, empty if it can.
    """

    label: str
    where: str
    model: ModelId
    other: str
    created_at: str
    size: int
    locked: str = ""


class Came(msgspec.Struct, frozen=True):
    """Content that came one way.

    Attributes:
        way: The way, as ``--transport`` names it.
        source: From whom.
        size: Bytes.
    """

    way: str
    source: str
    size: int


class Planned(msgspec.Struct, frozen=True):
    """By which ways a model would move.

    Attributes:
        model: Its id where it is.
        label: What it is called there.
        size: Bytes of its files.
        plan: The ways, with reasons.
    """

    model: ModelId
    label: str
    size: int
    plan: Plan


Decide = Callable[[Clash], Choice | None]
"""What becomes of a clash; None where that isn't known."""


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one model.

    Attributes:
        direction: ``push`` or ``pull``.
        model: Its id where it came from.
        label: What it is called there.
        model_type: The head.
        how: How it came in; ``skipped`` when another model was in its way and stays.
        result: Its id where it is now.
        path: Its directory there.
        size: Bytes of its files.
        sent: Bytes that travelled.
        again: Blocks that were asked for once more, since they came wrong or not whole; None where
            this side doesn't see them.
        came: What came, by way and source, as the receiver saw it; what it read where it was, too.
        seconds: How long its content took.
        safety: The tier of its worst file, as the receiver found it.
        trash: Where the model is that was overwritten, empty if none was.
    """

    direction: Literal["push", "pull"]
    model: ModelId
    label: str
    model_type: str
    how: How | Literal["skipped"]
    result: ModelId
    path: str = ""
    size: int = 0
    sent: int = 0
    again: int | None = None
    came: tuple[Came, ...] = ()
    seconds: float = 0.0
    safety: Tier = "unknown"
    trash: str = ""


class _Nothing:
    """In place of a package that isn't offered any more, so that its files can be closed."""

    @property
    def listing(self) -> bytes:
        raise self._gone()

    def read(self, file: int, block: int) -> bytes:
        raise self._gone()

    @staticmethod
    def _gone() -> NotFound:
        return NotFound(message="That package isn't offered any more.")


_NOTHING: Final = _Nothing()


class Mover:
    """Moves models to and from one worker.

    Attributes:
        library: The worker's.
        link: To the worker.
        room: The room.
        registry: This machine's library.
        cache: Hashes of unchanged files.
        throttle: Limits what moves.
        transfers: What this machine remembers.
        handshake_s: Seconds from the first dial to the proven connection.
        ways: What the user wants of the ways that content takes.
        beside: To other workers, which may have the same content.
        say: Told what a person should know meanwhile.
        why: Why this worker, where none was named.
    """

    def __init__(
        self,
        library: WorkerLibrary,
        link: Link,
        *,
        room: RoomEntry,
        registry: Registry,
        cache: HashCache,
        transfers: Transfers,
        throttle: Throttle | None = None,
        handshake_s: float = 0.0,
        ways: Ways = Ways(),  # noqa: B008 - it is frozen
        beside: Sequence[Mover] = (),
        say: Say = logger.warning,
    ) -> None:
        self.library, self.link, self.room = library, link, room
        self.registry, self.cache, self.throttle = registry, cache, throttle
        self.transfers = transfers
        self.handshake_s = handshake_s
        self.ways, self.beside, self.say = ways, beside, say
        self.why = ""
        self._told: dict[str, OnProgress] = {}
        library.on_other = self._noticed

    @property
    def worker(self) -> str:
        """The worker's name."""
        return self.link.name

    def ends(self, *, holds: bool) -> Ends | None:
        """Both ends of the link, for a mark; None while it is down.

        Args:
            holds: Whether the files are here.
        """
        proven = self.link.proven
        if proven is None:
            return None
        here, there = proven.own, proven.peer.device
        return Ends(reader=there, holder=here) if holds else Ends(reader=here, holder=there)

    def transfer(
        self, direction: Direction, record: ModelRecord, label: str, package: PackageRef
    ) -> Transfer:
        """What is to be remembered of a model on its way."""
        now = self.transfers.now()
        return Transfer(
            id="",
            direction=direction,
            model=record.id,
            label=label,
            model_type=record.model_type,
            package=package.id,
            size=package.size,
            worker=self.worker,
            room=self.room.room,
            begun_at=now,
            changed_at=now,
            beside=tuple(other.worker for other in self.beside),
            transport=self.ways.wish,
        )

    async def ask(self, body: RequestBody, *, within_s: float = 60.0) -> ReplyBody:
        """Ask the worker."""
        return await self.link.request(body, within_s=within_s)

    async def ask_long(self, body: RequestBody, package: str, on_progress: OnProgress) -> ReplyBody:
        """Ask for something that lasts as long as content moves.

        Args:
            body: What is asked; asked again it goes on.
            package: What moves.
            on_progress: Told how far that is.

        Raises:
            PeerUnreachable: The worker was away for longer than it is waited for.
            SleapRtcError: Its own error.
        """
        self._told[package] = on_progress
        try:
            while True:
                with contextlib.suppress(DeadlineExceeded):
                    return await self._while_there(body)
        finally:
            self._told.pop(package, None)

    @contextlib.contextmanager
    def offering(self, package: PackageId, served: Served) -> Iterator[None]:
        """Let the worker fetch a package until the block ends."""
        self.link.offer(package, served)
        try:
            yield
        finally:
            self.link.offer(package, _NOTHING)

    async def _while_there(self, body: RequestBody) -> ReplyBody:
        asking = asyncio.create_task(self.link.request(body, within_s=LONG_S))
        seen = time.monotonic()
        try:
            while not (await asyncio.wait([asking], timeout=LOOK_S))[0]:
                now = time.monotonic()
                if self.link.state == "up":
                    seen = now
                elif now - seen > PATIENCE_S:
                    why = f"it was away for {PATIENCE_S:g} s"
                    raise PeerUnreachable(peer=self.worker, why=why)
            return asking.result()
        finally:
            asking.cancel()
            await asyncio.wait([asking])

    def _noticed(self, body: NoticeBody) -> None:
        if isinstance(body, PushMoved) and body.package in self._told:
            self._told[body.package](progress_of(body))


def progress_of(told: PushMoved) -> Progress:
    """How far a push is, as its worker tells it."""
    size = told.file_size
    file = OfFile(told.file, done=min(told.file_done, size), size=size) if told.file else None
    return Progress(
        phase=told.phase,
        done=min(told.done, told.total),
        total=told.total,
        rate=told.rate,
        eta_s=told.eta_s,
        file=file,
    )


@asynccontextmanager
async def open_mover(
    online: Online,
    room: RoomEntry,
    worker: str | None,
    *,
    registry: Registry,
    cache: HashCache,
    transfers: Transfers,
    throttle: Throttle | None = None,
    ways: Ways = Ways(),  # noqa: B008 - it is frozen
    beside: Sequence[str] = (),
    wanted: Sequence[str] = (),
    say: Say = logger.warning,
) -> AsyncIterator[Mover]:
    """Connect to a worker, to move models.

    Args:
        online: This device, present in the room.
        room: The room.
        worker: The worker's name; by default the only one that is online, or that has what is
            wanted.
        registry: This machine's library.
        cache: Hashes of unchanged files.
        transfers: What this machine remembers.
        throttle: Limits what moves.
        ways: What the user wants of the ways that content takes.
        beside: Other workers, which may have the same content; the first that can be reached is
            asked which models there are.
        wanted: Models that the worker must have, if it isn't named.
        say: Told which workers can't be reached, and what else a person should know.

    Raises:
        UnknownWorker: It isn't online.
        UnknownModel: None is named, and no worker has what is wanted.
        UsageError: None is named, and several are online, or have what is wanted.
        PeerUnreachable: It can't be reached.
        NotPermitted: One side doesn't trust the other.
    """
    movers: list[Mover] = []
    why = ""
    if worker is None:
        chosen = await choose_worker(online, room, wanted)
        worker, why = chosen.name, chosen.why
    left = [worker, *(name for name in dict.fromkeys(beside) if name != worker)]
    async with AsyncExitStack() as stack:
        for number, name in enumerate(left, 1):
            began = time.monotonic()
            linked = open_linked(online, room, name, throttle=throttle, on_state=telling(name, say))
            try:
                library, link = await stack.enter_async_context(linked)
            except (UnknownWorker, NetworkError) as error:
                if number == len(left) and not movers:
                    raise
                say(f"{name} is left out. {error.message}")
                continue
            mover = Mover(
                library,
                link,
                room=room,
                registry=registry,
                cache=cache,
                throttle=throttle,
                transfers=transfers,
                handshake_s=time.monotonic() - began,
                ways=ways,
                say=say,
            )
            movers.append(mover)
        movers[0].beside = tuple(movers[1:])
        movers[0].why = why
        yield movers[0]


def telling(worker: str, say: Say) -> Callable[[State], None]:
    """Says when a link is interrupted, and when it is up again."""
    away = False

    def on_state(state: State) -> None:
        nonlocal away
        if state in ("silent", "down") and not away:
            away = True
            minutes = f"{PATIENCE_S / 60:g} min"
            say(f"{worker} doesn't answer: waiting up to {minutes}. Ctrl-C loses nothing.")
        elif state == "up" and away:
            away = False
            say(f"{worker} is back.")

    return on_state


def say_not_planned(mover: Mover, plan: Plan) -> None:
    """Say why the way that was asked for isn't used, and which ones are in its place."""
    for way in plan.without:
        if way.kind == mover.ways.wish:
            others = ", then ".join(other.kind for other in plan.ways)
            mover.say(f"{way.kind} is not used: {way.why}. In its place: {others}.")


def say_other_ways(mover: Mover, came: Sequence[Came]) -> None:
    """Say what didn't come by the direct way that was asked for."""
    wish = mover.ways.wish
    other = sum(each.size for each in came if each.way != wish)
    if wish in ("direct", "local") and other:
        ways = " and ".join(sorted({each.way for each in came if each.way != wish}))
        mover.say(f"{wish} was asked for; {format_bytes(other)} came by {ways}.")


def decided(decide: Decide, clash: Clash) -> Choice:
    """What becomes of a clash.

    Raises:
        AlreadyExists: Nobody has said.
    """
    choice = decide(clash)
    if choice is None:
        raise AlreadyExists(
            what=f"Another model with the id {clash.model} on {clash.where}",
            hint="Say what becomes of it: --if-exists skip, overwrite or keep-both.",
        )
    return choice
