"""Asking a worker about its library, from the client's side.

Answers are kept for :data:`TTL_S` seconds, so that a view that is drawn again
doesn't ask again, and dropped when the worker tells that something changed::

    ask ──► kept and fresh? ── yes ──► that one
              │ no
              ▼
            10 s ──► no answer: once more ──► the error
              │
              ▼
            an answer ──► kept, unless a change was told meanwhile

What comes is believed only as far as it fits the question.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol, TypeVar, cast

import msgspec
from loguru import logger

from sleap_rtc.auth.store import RoomEntry
from sleap_rtc.client.online import Online
from sleap_rtc.domain.ids import ModelId
from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.domain.values import Value, encode, from_plain, to_plain
from sleap_rtc.errors import (
    DataError,
    DeadlineExceeded,
    LinkLost,
    NotFound,
    PeerUnreachable,
    ProtocolError,
    SleapRtcError,
    SourceChanged,
    UsageError,
)
from sleap_rtc.protocol.library import (
    MAX_PAGE,
    MAX_PART,
    AskModel,
    CheckModels,
    FileTold,
    LibraryChanged,
    ListedModel,
    ListModels,
    ModelInfoTold,
    ModelsChecked,
    ModelsTold,
    PartTold,
    WantPart,
    WatchLibrary,
)
from sleap_rtc.protocol.link import NoticeBody, ReplyBody, RequestBody
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.blocks import BlockClient
from sleap_rtc.transports.channel import Channel
from sleap_rtc.transports.link import Link, State
from sleap_rtc.transports.throttle import Throttle

ASK_S: Final = 10.0
"""Seconds to wait for an answer, before it is asked once more."""
TTL_S: Final = 30.0
"""Seconds that an answer is kept."""
MAX_KEPT: Final = 256
"""Answers that are kept at a time."""
MOST_MODELS: Final = 10_000
"""Models that are asked for in all, whatever a worker says that it has."""

CONNECT_S: Final = 30.0
"""Seconds to wait for a connection, before anything is asked."""

_TRIES: Final = 3

T = TypeVar("T")
Q = TypeVar("Q", bound=Value)


@asynccontextmanager
async def open_library(
    online: Online, room: RoomEntry, worker: str | None
) -> AsyncIterator[WorkerLibrary]:
    """Connect to a worker and ask about its library.

    Args:
        online: This device, present in the room.
        room: The room.
        worker: The worker's name; by default the only one that is online.

    Raises:
        UnknownWorker: It isn't online.
        UsageError: Several are online, and none is named.
        PeerUnreachable: It can't be reached.
        NotPermitted: One side doesn't trust the other.
    """
    async with open_linked(online, room, worker) as (library, _):
        yield library


@asynccontextmanager
async def open_linked(
    online: Online,
    room: RoomEntry,
    worker: str | None,
    *,
    throttle: Throttle | None = None,
    on_state: Callable[[State], None] = lambda _: None,
) -> AsyncIterator[tuple[WorkerLibrary, Link]]:
    """The same, with the link itself, over which content can be offered.

    Args:
        online: This device, present in the room.
        room: The room.
        worker: The worker's name; by default the only one that is online.
        throttle: Limits what is sent of content.
        on_state: Told how the link is.

    Raises:
        SleapRtcError: As :func:`open_library`.
    """
    name = only_worker(online, room) if worker is None else worker
    found = await online.find_worker(room, name)
    library = WorkerLibrary(name)
    link = library.link = Link(
        online.switchboard,
        room=room.room,
        locate=lambda: online.worker(room.room, name, device=found.device),
        name=name,
        on_notice=library.noticed,
        on_up=library.again,
        on_blocks=library.blocks,
        on_state=on_state,
        throttle=throttle,
    )
    async with link:
        online.watch(link)
        try:
            await link.connected(within_s=CONNECT_S)
            yield library, link
        finally:
            online.unwatch(link)


def only_worker(online: Online, room: RoomEntry) -> str:
    """The name of the only worker that is online in a room.

    Raises:
        NotFound: None is.
        UsageError: Several are.
    """
    names = [presence.name for presence in online.workers(room.room)]
    if not names:
        raise NotFound(
            message=f"No worker is online in room {room.name!r}.",
            hint=f"Start one, on a machine that joined: sleap-rtc worker --room {room.name}",
        )
    if len(names) > 1:
        raise UsageError(
            message=f"Several workers are online: {', '.join(names)}.",
            hint=f"Add --worker {names[0]}, or another one.",
        )
    return names[0]


def _checked(body: Q) -> Q:
    """The question, if it is within the bounds that the worker would put to it."""
    try:
        return from_plain(type(body), to_plain(body), what="The question")
    except DataError as error:
        raise UsageError(message=error.message) from None


class Asked(Protocol):
    """What is needed of a link."""

    async def request(self, body: RequestBody, *, within_s: float = ...) -> ReplyBody:
        """Ask the peer."""

    def want_blocks(self) -> None:
        """Open a block connection where there is none."""


class RemoteModels(Value, frozen=True):
    """Models of a worker.

    Attributes:
        models: In the order that was asked for.
        more: How many there are besides.
    """

    models: tuple[ListedModel, ...]
    more: int


class RemoteModel(Value, frozen=True):
    """Everything about a model of a worker.

    Attributes:
        record: As the worker has it, with its files.
        alias: Its name there, empty for none.
        path: Its directory there.
        cut: Whether the record says more than could be told.
        files: Its files, and whether they are there.
    """

    record: ModelRecord
    alias: str
    path: str
    cut: bool
    files: tuple[FileTold, ...]


class WorkerLibrary:
    """The library of one worker, over a link that gives it notices and tells when it is up.

    Args:
        name: The worker's name.
        clock: Seconds, of any clock that doesn't go back.
        within_s: Seconds to wait for an answer; asked once more it is twice that at most.
        ttl_s: Seconds that an answer is kept.

    Attributes:
        name: The worker's name.
        link: The link.
        sources: Where its files can be fetched, once a part is granted.
        on_change: Called after a change was told, with the models that are named; none for any.
        on_other: Called with what is told of other things than the library.
    """

    def __init__(
        self,
        name: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        within_s: float = ASK_S,
        ttl_s: float = TTL_S,
    ) -> None:
        self.name = name
        self.link: Asked
        self.sources = Sources()
        self.on_change: Callable[[tuple[ModelId, ...]], None] = lambda _: None
        self.on_other: Callable[[NoticeBody], None] = lambda _: None
        self._clock = clock
        self._within_s = within_s
        self._ttl_s = ttl_s
        self._kept: OrderedDict[bytes, tuple[float, object, ModelId | None]] = OrderedDict()
        self._changes = 0

    # ── questions ────────────────────────────────────────────────────────────

    async def page(self, query: ListModels) -> ModelsTold:
        """One page of models.

        Raises:
            FeatureMissing: The worker is too old.
            UsageError: It doesn't know a filter or the sort.
            NoLibrary: It can't read its library.
            DeadlineExceeded: It doesn't answer.
        """

        async def ask() -> ModelsTold:
            told = await self._ask(query, ModelsTold)
            if len(told.models) > query.limit or (told.cursor and not told.models):
                raise self._breach("a page that isn't one of those asked for")
            return told

        return await self._keep(query, ask, model=None)

    async def models(self, query: ListModels, *, limit: int | None = None) -> RemoteModels:
        """Models from the first on, over as many pages as it takes.

        Args:
            query: What to list; its own limit and cursor don't count.
            limit: How many; by default and at most :data:`MOST_MODELS`.

        Raises:
            SleapRtcError: As :meth:`page`.
        """
        left = min(MOST_MODELS if limit is None else limit, MOST_MODELS)
        found: list[ListedModel] = []
        cursor: str | None = None
        while True:
            told = await self.page(
                msgspec.structs.replace(
                    query, limit=min(left, MAX_PAGE), cursor=cursor, count=left <= MAX_PAGE
                )
            )
            found += told.models
            left -= len(told.models)
            cursor = told.cursor
            if cursor is None or left <= 0:
                more = (told.more or 0) if cursor is not None else 0
                return RemoteModels(models=tuple(found), more=more)

    async def info(self, name: str) -> RemoteModel:
        """Everything about one model.

        Args:
            name: Its id or the beginning of one, or an alias, as they are there.

        Raises:
            UnknownModel: It hasn't got such a model.
            UsageError: The name is a pair's.
            SourceChanged: The model changes all the time.
            SleapRtcError: As :meth:`page`.
        """

        async def ask() -> RemoteModel:
            for _ in range(_TRIES):
                whole = await self._whole(name)
                if whole is not None:
                    return whole
            raise SourceChanged(path=f"The record of {name}")

        asked = AskModel(name=name)
        return await self._keep(asked, ask, model=lambda told: told.record.id)

    async def exists(self, *names: str) -> tuple[bool, ...]:
        """Which of some ids and aliases name a model there, in their order.

        Raises:
            SleapRtcError: As :meth:`page`.
        """
        found: list[bool] = []
        for start in range(0, len(names), MAX_PAGE):
            asked = CheckModels(names=names[start : start + MAX_PAGE])

            async def ask(asked: CheckModels = asked) -> ModelsChecked:
                told = await self._ask(asked, ModelsChecked)
                if len(told.exist) != len(asked.names):
                    raise self._breach("an answer for other names than those asked for")
                return told

            found += (await self._keep(asked, ask, model=None)).exist
        return tuple(found)

    async def part(self, model: ModelId, hashes: tuple[str, ...]) -> PackageRef:
        """Let some files of a model be fetched from :attr:`sources` while the link lasts.

        Args:
            model: Its id there.
            hashes: BLAKE3 of the files, up to :data:`~sleap_rtc.protocol.library.MAX_PART`.

        Returns:
            The package of those of them that are there.

        Raises:
            UnknownModel: It hasn't got the model.
            FilesMissing: It hasn't got any of the files.
            SleapRtcError: As :meth:`page`.
        """
        told = await self._ask(WantPart(model=model, hashes=hashes[:MAX_PART]), PartTold)
        if told.package.files > len(hashes):
            raise self._breach("more files than those asked for")
        self.link.want_blocks()
        return told.package

    # ── what the link tells ──────────────────────────────────────────────────

    def noticed(self, body: NoticeBody) -> None:
        """Take a notice: what was kept of the models that changed is dropped."""
        if isinstance(body, LibraryChanged):
            self._forget(set(body.models))
            self.on_change(body.models)
        else:
            self.on_other(body)

    async def again(self, channel: Channel) -> None:
        """The connection is new: nothing is known of what happened before, and changes are told.

        A worker that tells none is no trouble: then answers are only kept for their time.
        """
        self._forget(set())
        try:
            await channel.request(
                WatchLibrary(), id=f"watch-{id(channel)}", within_s=self._within_s
            )
        except LinkLost:
            raise
        except SleapRtcError as error:
            logger.bind(code=error.code).debug("{} tells of no changes: {}", self.name, error)

    def blocks(self, client: BlockClient, up: bool) -> None:
        """Take a block connection that came up, or is gone."""
        if up:
            self.sources.add(client)
        else:
            self.sources.remove(client)

    # ── inside ───────────────────────────────────────────────────────────────

    async def _whole(self, name: str) -> RemoteModel | None:
        """A model with all of its files; None if it changed between two pages of them."""
        first = await self._ask(AskModel(name=name), ModelInfoTold)
        files = list(first.told)
        while len(files) < first.files:
            asked = AskModel(name=first.record.id, first=len(files))
            told = await self._ask(asked, ModelInfoTold)
            if told.record != first.record or told.files != first.files:
                return None
            if told.first != len(files) or not told.told:
                raise self._breach("other files than those asked for")
            files += told.told
        if first.first != 0 or len(files) != first.files or first.record.files:
            raise self._breach("other files than those asked for")
        record = msgspec.structs.replace(first.record, files=tuple(each.file for each in files))
        return RemoteModel(
            record=record, alias=first.alias, path=first.path, cut=first.cut, files=tuple(files)
        )

    async def _ask(self, body: RequestBody, kind: type[T]) -> T:
        """Ask, and once more if there is no answer in time."""
        body = _checked(body)
        try:
            told = await self.link.request(body, within_s=self._within_s)
        except (DeadlineExceeded, PeerUnreachable):
            told = await self.link.request(body, within_s=self._within_s)
        if not isinstance(told, kind):
            raise self._breach(f"a {type(told).__name__} in answer to a {type(body).__name__}")
        return told

    async def _keep(
        self,
        asked: ListModels | AskModel | CheckModels,
        ask: Callable[[], Awaitable[T]],
        *,
        model: Callable[[T], ModelId] | None,
    ) -> T:
        key = type(asked).__name__.encode() + encode(asked)
        kept = self._kept.get(key)
        if kept is not None and self._clock() < kept[0]:
            return cast("T", kept[1])
        changes = self._changes
        told = await ask()
        # What was told of a change meanwhile may be newer than the answer.
        if changes == self._changes:
            about = None if model is None else model(told)
            self._kept[key] = (self._clock() + self._ttl_s, told, about)
            self._kept.move_to_end(key)
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return told

    def _forget(self, models: set[ModelId]) -> None:
        """Drop lists, and what is known of some models; of any without names."""
        self._changes += 1
        stays = {
            key: kept
            for key, kept in self._kept.items()
            if models and kept[2] is not None and kept[2] not in models
        }
        self._kept = OrderedDict(stays)

    def _breach(self, why: str) -> ProtocolError:
        return ProtocolError(peer=self.name, why=why)
