"""The Python API's part for models: a worker's, this library's, and how they move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

from loguru import logger

from sleap_rtc.client.api_rooms import RoomsApi
from sleap_rtc.client.approvals import Approvals
from sleap_rtc.client.asking import WorkerLibrary, open_library
from sleap_rtc.client.composing import Located
from sleap_rtc.client.locating import locate
from sleap_rtc.client.moving import Mover, open_mover
from sleap_rtc.client.room_storage import RoomStorage
from sleap_rtc.client.shipping import Shipped, Wish, pull_models, push_models
from sleap_rtc.client.supplying import Ways
from sleap_rtc.client.tracking import Resolved, resolve_models, track_here
from sleap_rtc.client.transfers import IfExistsWish
from sleap_rtc.engines.base import EngineEvent
from sleap_rtc.files.durable import check_writable
from sleap_rtc.protocol.link import FindModel, ModelTold


class ModelsApi(RoomsApi):
    """A person's models; see :class:`~sleap_rtc.client.api.AsyncClient`."""

    async def find_model(self, name: str, worker: str, *, room: str | None = None) -> ModelTold:
        """What a worker knows of a model.

        Raises:
            UnknownModel: It hasn't got it.
        """
        (answer,) = await self._ask(worker, FindModel(name=name), room=room)
        assert isinstance(answer, ModelTold)  # noqa: S101 - the protocol's table says so
        return answer

    @asynccontextmanager
    async def library_of(
        self, worker: str | None, *, room: str | None = None
    ) -> AsyncIterator[WorkerLibrary]:
        """The library of a worker, to be asked; see ``client/asking.py``.

        Args:
            worker: Its name; by default the only one that is online.
            room: The room; by default the only one.

        Raises:
            UnknownWorker: It isn't online.
            UsageError: Several are online, and none is named.
            PeerUnreachable: It can't be reached.
        """
        entry = self.room(room)
        async with (
            self.online(entry) as online,
            open_library(online, entry, worker) as library,
        ):
            yield library

    @asynccontextmanager
    async def mover(
        self,
        worker: str | None,
        *,
        room: str | None = None,
        beside: Sequence[str] = (),
        wanted: Sequence[str] = (),
        say: Callable[[str], None] = logger.warning,
    ) -> AsyncIterator[Mover]:
        """A connection over which models move; see ``client/moving.py``.

        Args:
            worker: The worker's name; by default the only one that is online, or that has what is
                wanted.
            room: The room; by default the only one.
            beside: More workers from which a pull fetches, as far as they have the same content.
            wanted: Models that the worker must have, if it isn't named.
            say: Told, in a sentence, when one way takes the place of another.

        Raises:
            UnknownWorker: It isn't online.
            UsageError: None is named, and several might be meant.
            PeerUnreachable: It can't be reached.
            OutOfSpace: There is no room here, for anything at all; nobody was asked.
            PathNotPermitted: Nothing can be written here; nobody was asked.
        """
        entry = self.room(room)
        # A push writes as well: what goes on, and in the record where else the model is.
        for folder in (self.settings.home, self.library.models_dir):
            await asyncio.to_thread(check_writable, folder)
        storage = RoomStorage(self.settings, entry, "rooms")
        async with (
            self.online(entry) as online,
            open_mover(
                online,
                entry,
                worker,
                registry=self.library,
                cache=self.cache,
                transfers=self.transfers,
                throttle=self.throttle,
                ways=Ways.of(self.settings, storage),
                beside=beside,
                wanted=wanted,
                say=say,
            ) as mover,
        ):
            with closing(storage):
                yield mover

    async def push_models(
        self,
        names: Sequence[str],
        worker: str | None = None,
        *,
        room: str | None = None,
        if_exists: IfExistsWish = "ask",
        alias: str | None = None,
    ) -> Shipped:
        """Push models of this library to a worker; see ``client/shipping.py``.

        Args:
            names: Ids, prefixes or aliases; the alias of a pair names both.
            worker: The worker's name; by default the only one that is online.
            room: The room; by default the only one.
            if_exists: What becomes of another model with the id of one of them: ``skip``,
                ``overwrite`` (it goes to the trash), ``keep-both``; else that one fails.
            alias: What they are called there, if that is free.

        Returns:
            What became of each; ``cut`` where the network failed before all were there.
        """
        wish = Wish(names=tuple(names), if_exists=if_exists, alias=alias)
        async with self.mover(worker, room=room) as mover:
            return await push_models(mover, wish)

    async def pull_models(
        self,
        names: Sequence[str],
        worker: str | None = None,
        *,
        room: str | None = None,
        beside: Sequence[str] = (),
        if_exists: IfExistsWish = "ask",
        alias: str | None = None,
        trust: bool = False,
    ) -> Shipped:
        """Pull models of a worker into this library; see ``client/shipping.py``.

        Args:
            names: Ids, prefixes or aliases, as they are there.
            worker: The worker's name; by default the only one that has them.
            room: The room; by default the only one.
            beside: More workers from which to fetch what they have of it.
            if_exists: As for :meth:`push_models`.
            alias: What they are called here, if that is free.
            trust: Take files that could run something when they are loaded; that is recorded.
        """
        wish = Wish(names=tuple(names), if_exists=if_exists, alias=alias, trust=trust)
        async with self.mover(worker, room=room, beside=beside, wanted=names) as mover:
            return await pull_models(mover, wish)

    async def locate_models(
        self, names: Sequence[str], worker: str, *, room: str | None = None
    ) -> tuple[Located, ...]:
        """Models for a job on a worker, by what both sides have; see ``client/locating.py``.

        Raises:
            UnknownModel: One is neither here nor there.
            FilesMissing: The files of one are neither here nor there.
        """
        async with self.link(worker, self.room(room)) as link:
            return await locate(names, registry=self.library, link=link, cache=self.cache)

    def resolve_models(self, names: Sequence[str]) -> Resolved:
        """The models of this library that were named, with their files; for tracking."""
        return resolve_models(self.library, names)

    def track(
        self,
        models: Resolved,
        video: str | Path,
        output: str | Path,
        *,
        frames: tuple[int, int] | None = None,
        tracking: bool = False,
        overwrite: bool = False,
        trust: bool = False,
    ) -> AsyncIterator[EngineEvent]:
        """Run models over one video on this machine; see ``client/tracking.py``."""
        return track_here(
            models,
            Path(video),
            Path(output),
            approvals=Approvals(self.settings.home / "trusted"),
            frames=frames,
            tracking=tracking,
            overwrite=overwrite,
            trust=trust,
        )
