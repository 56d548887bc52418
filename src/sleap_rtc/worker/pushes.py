"""Models that are pushed to a worker (the feature ``push`` of the link).

::

    push_model ─► role, bounds, room ─► its turn ─► content fetched ─► looked into ─► in the library
                        │                              │ cut: kept         │
                        └── refused ◄──────────────────┴── wrong: dropped ─┘ something dangerous

Everything that comes is untrusted. The list of files is made from what arrived,
not from what the record says; a pickle is read and never loaded; a file that
could run something is refused, unless a person of this machine said yes to its
content (``trust-model``).

Nobody's model is lost: a member may overwrite what the same device has pushed, an
owner any model that no job needs; the one that was there goes to the trash for 30
days, and everybody else can keep both.

What has arrived of a push that was cut is below the library's ``.incoming``. The
same push goes on from it; ``sweeping.py`` removes it after some days.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blake3 import blake3 as new_blake3
from loguru import logger
from msgspec.structs import replace

from sleap_rtc.client.approvals import Approvals
from sleap_rtc.client.bringing import elsewhere, files_of, to_the_end
from sleap_rtc.client.doubting import report_later, reporting
from sleap_rtc.client.room_storage import RoomStorage
from sleap_rtc.client.supplying import Supply, storage_source
from sleap_rtc.domain.ids import DeviceId, ModelId, PackageId
from sleap_rtc.domain.models import ModelFile, ModelRecord, safety_of
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.domain.units import format_bytes
from sleap_rtc.errors import (
    Conflict,
    DataError,
    LinkLost,
    NotFound,
    NotPermitted,
    NotTrusted,
    OutOfSpace,
    SleapRtcError,
    UnknownModel,
    UsageError,
)
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.nearby import Ends, is_near
from sleap_rtc.files.partial import claim_partial, folder_of
from sleap_rtc.files.space import free_space
from sleap_rtc.files.staged import Staged
from sleap_rtc.library.arriving import Arrived, arrive, check_replaceable, weigh
from sleap_rtc.library.entries import Entry, Group
from sleap_rtc.library.inspection.listed import looked_into
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.library import MAX_FILES, MAX_PATH_TOLD
from sleap_rtc.protocol.link import Accepted
from sleap_rtc.protocol.moving import (
    MAX_CAME,
    CallModels,
    CameBy,
    IfExists,
    ModelPushed,
    ModelsNamed,
    ModelWeighed,
    NameModels,
    PushModel,
    PushMoved,
    WeighModel,
)
from sleap_rtc.transfer.progress import OfFile, Progress
from sleap_rtc.transports.channel import Channel
from sleap_rtc.transports.fetch import fetch
from sleap_rtc.transports.throttle import Throttle
from sleap_rtc.worker.library_answers import library_errors
from sleap_rtc.worker.peers import Asker, Peers

if TYPE_CHECKING:
    from sleap_rtc.transports.stored import StorageSource

MAY_PUSH: Final = frozenset({"owner", "member"})
AT_ONCE: Final = 2
"""Pushes of one device whose content moves at a time: a slow network keeps nobody else waiting."""
MAX_EACH: Final = 16
"""Pushes of one device that are under way or wait."""
SOURCE_S: Final = 10.0
"""Seconds without the sender's blocks after which a push gives up; asked again, it goes on."""

_SETTLED: Final = frozenset({"completed", "imported", "interrupted", "failed"})
"""What a model may be that is pushed: nobody works on it where it comes from."""
_ANEW: Final = "The next push through storage stores it anew."
_TRUST: Final = "The owner of that worker can allow it there: sleap-rtc trust-model {blake3}"


class Pushes:
    """Takes models into one worker's library. For one event loop.

    Args:
        registry: The library.
        peers: Its links, from which content comes.
        worker: The worker's name.
        approvals: What a person of this machine said yes to.
        needed: The packages of jobs that wait or are at work.
        max_files: Files of a package.
        keep_free: Bytes of the disk that models leave free.
        cache: Hashes of unchanged files.
        throttle: Limits what is fetched.
        storage: The room's area of models' files.
        clock: The time now, UTC.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        peers: Peers,
        worker: str,
        approvals: Approvals,
        needed: Callable[[], Collection[PackageId]],
        max_files: int,
        keep_free: int,
        cache: HashCache,
        throttle: Throttle | None = None,
        storage: RoomStorage | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._registry = registry
        self._peers = peers
        self._worker = worker
        self._approvals = approvals
        self._needed = needed
        self._max_files = min(max_files, MAX_FILES)
        self._keep_free = keep_free
        self._cache = cache
        self._throttle = throttle
        self._storage = storage
        self._secret = os.urandom(32)
        self._clock = clock
        self._turns: dict[DeviceId, asyncio.Semaphore] = {}
        self._locks: dict[PackageId, asyncio.Lock] = {}
        self._users: Counter[PackageId] = Counter()
        self._running: dict[tuple[DeviceId, PackageId], asyncio.Task[ModelPushed]] = {}
        self._each: Counter[DeviceId] = Counter()

    @property
    def at_work(self) -> set[PackageId]:
        """The packages that are being pushed."""
        return set(self._users)

    # ── questions ────────────────────────────────────────────────────────────

    def named(self, body: NameModels) -> ModelsNamed:
        """Which models a name stands for.

        Raises:
            UnknownModel: None.
            AmbiguousName: The beginning of several ids.
            NoLibrary: The library can't be read.
        """
        with library_errors():
            found = self._registry.resolve(body.name)
            if isinstance(found, Path):  # what is on this disk beside models is nobody's business
                raise UnknownModel(name=body.name)
            if isinstance(found, Group):
                models = tuple(entry.id for entry in found.entries)
                return ModelsNamed(models=models, alias=found.alias)
            return ModelsNamed(models=(found.id,), alias=found.alias or "")

    async def weigh(self, asker: Asker, body: WeighModel) -> ModelWeighed:
        """What would become of a model if it were pushed.

        Raises:
            NotPermitted: The asker is no owner or member.
            UsageError: It would be refused whatever is here.
            NotTrusted: A file could run something, and nobody here said yes to it.
            OutOfSpace: There is no room for it.
            NoLibrary: The library can't be read.
        """
        needed = self._needed()
        return await asyncio.to_thread(self._weigh, asker, body, needed)

    def _weigh(self, asker: Asker, body: WeighModel, needed: Collection[PackageId]) -> ModelWeighed:
        self._check(asker, body.record, body.package)
        for blake3 in body.flagged:
            self._check_flagged(body.record, blake3, "a file of it", "it could run something")
        with library_errors():
            found = weigh(self._registry, body.record)
        if found.verdict != "same":
            self._check_room(body.record, body.package)
        entry = found.entry
        challenge = self._challenge(asker, body.package.id)
        if entry is None:
            return ModelWeighed(verdict=found.verdict, challenge=challenge)
        locked = code = ""
        if found.verdict == "other":
            try:
                self._check_may_replace(asker, entry, body.record, needed)
            except (Conflict, NotPermitted) as error:
                locked, code = error.message[:1_000], error.code
        return ModelWeighed(
            verdict=found.verdict,
            model=entry.id,
            label=entry.label[:200],
            path=_told(entry.directory),
            created_at=f"{entry.record.created_at:%Y-%m-%d %H:%M} UTC",
            size=entry.record.size,
            locked=locked,
            code=code,
        )

    def call(self, asker: Asker, body: CallModels) -> Accepted:
        """Give models an alias that is free.

        Raises:
            NotPermitted: The asker is no owner or member.
            Conflict: One has an alias already: it isn't taken away from here.
            AliasTaken: The alias names other models.
            UnknownModel: There is no such model.
            InvalidName: It is no alias.
        """
        _check_role(asker, "give names to models of a worker")
        with library_errors():
            now = self._registry.get_alias(body.alias)
            if now is not None and tuple(now.models) == body.models:
                return Accepted()
            for model in body.models:
                entry = self._registry.get(model)
                if entry.alias is not None and ":" not in entry.alias and len(body.models) == 1:
                    raise Conflict(
                        message=f"Model {entry.id} is called {entry.alias!r} there already.",
                        hint="Whoever works at that machine can change it: sleap-rtc tag-model.",
                    )
            self._registry.set_alias(body.alias, *body.models)
        logger.bind(models=body.models, by=asker.called).info("called {}", body.alias)
        return Accepted()

    # ── a push ───────────────────────────────────────────────────────────────

    async def push(self, channel: Channel, asker: Asker, body: PushModel) -> ModelPushed:
        """Fetch a model from whoever asks, and take it in.

        Raises:
            NotPermitted: The asker may not do that.
            UsageError: It is more than is taken.
            AlreadyExists: Another model has its id.
            Conflict: Too many pushes of one device; or the same one was asked for again.
            NotTrusted: A file could run something.
            OutOfSpace: There is no room for it.
            LinkLost: The sender gives no blocks.
            SleapRtcError: The content can't be had.
        """
        await asyncio.to_thread(self._check, asker, body.record, body.package)
        with self._peers.offering(asker, body.package.id):
            return await self._in_turn(channel, asker, body)

    async def _in_turn(self, channel: Channel, asker: Asker, body: PushModel) -> ModelPushed:
        key = asker.device, body.package.id
        # A connection that is lost may be so for seconds before this side knows.
        await _cancel(self._running.get(key))
        if self._each[asker.device] >= MAX_EACH:
            raise Conflict(message=f"{MAX_EACH} models of this device are being pushed already.")
        self._each[asker.device] += 1
        work = self._running[key] = asyncio.create_task(self._push(channel, asker, body))
        try:
            await asyncio.wait([work])
            if work.cancelled():
                raise Conflict(message="This push goes on over another connection of the device.")
            return work.result()
        finally:
            await _cancel(work)
            if self._running.get(key) is work:
                del self._running[key]
            self._each[asker.device] -= 1
            if not self._each[asker.device]:
                del self._each[asker.device]
                self._turns.pop(asker.device, None)

    async def _push(self, channel: Channel, asker: Asker, body: PushModel) -> ModelPushed:
        async with _telling(channel, body.package) as tell:
            tell(Progress(phase="waiting", done=0, total=body.package.size))
            turn = self._turns.setdefault(asker.device, asyncio.Semaphore(AT_ONCE))
            async with turn, self._alone(body.package.id):
                # Whoever waited behind another one with the same content finds it here.
                found = await asyncio.to_thread(weigh, self._registry, body.record)
                if found.entry is not None and found.verdict == "same":
                    return _pushed(Arrived(entry=found.entry, how="known"), ())
                if found.entry is not None and body.if_exists == "overwrite":
                    await asyncio.to_thread(
                        self._check_may_replace,
                        *(asker, found.entry, body.record, self._needed()),
                    )
                await asyncio.to_thread(self._check_room, body.record, body.package)
                arrived, came = await self._fetch(asker, body, tell)
        logger.bind(
            model=arrived.entry.id, by=asker.called, how=arrived.how, bytes=body.package.size
        ).info("a model was pushed")
        return _pushed(arrived, came)

    async def _fetch(
        self, asker: Asker, body: PushModel, tell: Callable[[Progress], None]
    ) -> tuple[Arrived, tuple[CameBy, ...]]:
        package, destination = body.package, self._destination(body.record)
        near = await asyncio.to_thread(self._near, asker, body)
        try:
            with self._peers.sources(package.id) as peers:
                supply = Supply([peers], self._storage_of(body), size=package.size, say=logger.info)
                async with reporting(self._storage, supply, anew=_ANEW):
                    with supply.sources() as sources:
                        staged = await fetch(
                            package,
                            sources=sources,
                            destination=destination,
                            incoming=self._registry.incoming,
                            held=(self._registry.models_dir,),
                            near=near,
                            on_near=partial(supply.counted.add_near, asker.name),
                            cache=self._cache,
                            on_progress=tell,
                            throttle=self._throttle,
                            patience=SOURCE_S,
                        )
        except DataError:  # it will never be that package
            with contextlib.suppress(SleapRtcError):
                claim_partial(self._registry.incoming, package.id, destination).remove()
            raise
        with staged:
            arrived = await to_the_end(self._take_in, asker, body.record, staged, body.if_exists)
        await report_later(self._storage, supply)
        came = supply.counted.came.most_common(MAX_CAME)
        return arrived, tuple(CameBy(way=way, source=_line(who), size=n) for (way, who), n in came)

    def _challenge(self, asker: Asker, package: PackageId) -> str:
        """What a mark must say that comes with a push of this content over this link."""
        about = f"{asker.session} {package}".encode()
        return new_blake3(about, key=self._secret).hexdigest()

    def _near(self, asker: Asker, body: PushModel) -> Path | None:
        """Where the sender's files are, if they can be read there."""
        near = body.near
        if near is None:
            return None
        challenge = self._challenge(asker, body.package.id)
        ends = Ends(reader=asker.worker, holder=asker.device)
        found = is_near(near.mark, near.folder, challenge, ends)
        return Path(near.folder) if found else None

    def _storage_of(self, body: PushModel) -> StorageSource | None:
        """Storage, if the sender says that it has the content."""
        if not body.stored:
            return None
        if self._storage is None or not self._storage.can:
            raise NotFound(message=f"Worker {self._worker} can't ask storage for anything.")
        if len(body.stored) != body.package.files:
            raise UsageError(message="Storage is said to have other files than the package.")
        return storage_source(self._storage, body.package, body.stored)

    def _take_in(
        self, asker: Asker, record: ModelRecord, staged: Staged, if_exists: IfExists
    ) -> Arrived:
        """Look into what arrived, and take it in; in a thread."""
        try:
            files = looked_into(files_of(staged), staged.path)
            for file in files:
                if file.safety == "flagged":
                    self._check_flagged(record, file.blake3, file.path, file.found)
            record = self._as_kept(asker, record, files, staged.package.id)
            return arrive(self._registry, record, staged.path, if_exists=if_exists)
        except (NotTrusted, DataError):
            staged.discard()  # nothing that is sent again would be better
            raise

    def _as_kept(
        self, asker: Asker, record: ModelRecord, files: Sequence[ModelFile], package: PackageId
    ) -> ModelRecord:
        """A stranger's record as this library keeps it."""
        paths = {file.path for file in files}
        interruption = record.interruption
        if interruption is not None and interruption.checkpoint not in paths:
            interruption = replace(interruption, checkpoint=None)
        return replace(
            record,
            source="client-upload",
            brought_by=asker.device,
            downloaded_at=self._clock(),
            files=tuple(files),
            package=package,
            # A job of this worker finds its model again by this.
            training=replace(record.training, job=None),
            checkpoint=record.checkpoint if record.checkpoint in paths else None,
            config=record.config if record.config in paths else None,
            interruption=interruption,
            locations=elsewhere(record.locations, self._worker),
            same_recipe_as=None,
            trust=None,
            deleted_at=None,
        )

    # ── what is refused ──────────────────────────────────────────────────────

    def _check(self, asker: Asker, record: ModelRecord, package: PackageRef) -> None:
        _check_role(asker, "push models to a worker")
        if record.package != package.id:
            raise UsageError(message="The model's record is of another package.")
        if record.status not in _SETTLED or record.deleted_at is not None:
            raise UsageError(message=f"A model that is {record.status} can't be pushed.")
        if not 1 <= package.files <= self._max_files:
            raise UsageError(
                message=f"The model has {package.files:,} files; this worker takes 1 to "
                f"{self._max_files:,}."
            )
        if not package.is_possible:
            raise UsageError(message="The package is said to have an impossible listing.")

    def _check_flagged(self, record: ModelRecord, blake3: str, path: str, found: str) -> None:
        if self._approvals.has(blake3):
            return
        raise NotTrusted(
            who=f"{path} of model {record.id}", why=found, hint=_TRUST.replace("{blake3}", blake3)
        )

    def _check_may_replace(
        self, asker: Asker, entry: Entry, record: ModelRecord, needed: Collection[PackageId]
    ) -> None:
        """See that a model may make way for one that is pushed."""
        old = entry.record
        if asker.role != "owner" and old.brought_by != asker.device:
            raise NotPermitted(
                message=f"Model {entry.label} of worker {self._worker} is not from this device: "
                "owners of the room may overwrite it.",
                hint="Keep both, or ask an owner.",
            )
        check_replaceable(entry, record.model_type)
        if old.package is not None and old.package in needed:
            raise Conflict(message=f"Model {entry.label} is needed by a job there.")

    def _check_room(self, record: ModelRecord, package: PackageRef) -> None:
        incoming = self._registry.incoming
        # Of what is arriving, the room is reserved before the first byte.
        begun = folder_of(incoming, package.id, self._destination(record)).is_dir()
        need = self._keep_free + (0 if begun else package.size)
        free = free_space(incoming)
        if free < need:
            raise OutOfSpace(
                path=f"{self._registry.models_dir} of worker {self._worker}",
                free=format_bytes(free),
                need=format_bytes(need),
                hint="Make room there, or ask its owner to: it keeps worker_keep_free to spare.",
            )

    def _destination(self, record: ModelRecord) -> str:
        return f"{self._registry.models_dir}/{record.directory}"

    @contextlib.asynccontextmanager
    async def _alone(self, package: PackageId) -> AsyncIterator[None]:
        """Be the only push of a package; what the others offer is fetched from all the same."""
        self._users[package] += 1
        try:
            async with self._locks.setdefault(package, asyncio.Lock()):
                yield
        finally:
            self._users[package] -= 1
            if not self._users[package]:
                del self._users[package], self._locks[package]


def notice_of(package: PackageId, progress: Progress) -> PushMoved:
    """What whoever pushes is told of how far it is."""
    file = progress.file or OfFile("", done=0, size=0)
    return PushMoved(
        package=package,
        phase=progress.phase,
        done=progress.done,
        total=progress.total,
        rate=progress.rate,
        eta_s=progress.eta_s,
        file=file.path,
        file_done=file.done,
        file_size=file.size,
    )


@contextlib.asynccontextmanager
async def _telling(
    channel: Channel, package: PackageRef
) -> AsyncIterator[Callable[[Progress], None]]:
    """Tell a peer how far its push is: the newest, whenever there is room for it."""
    newest: list[Progress] = []
    new = asyncio.Event()

    def tell(progress: Progress) -> None:
        newest[:] = [progress]
        new.set()

    async def send() -> None:
        with contextlib.suppress(LinkLost):
            while True:
                await new.wait()
                new.clear()
                await channel.tell(notice_of(package.id, newest[0]))

    sending = asyncio.create_task(send())
    try:
        yield tell
    finally:
        await _cancel(sending)


async def _cancel(task: asyncio.Task[object] | None) -> None:
    """End a task, and wait until it has ended."""
    if task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task])


def _check_role(asker: Asker, what: str) -> None:
    if asker.role not in MAY_PUSH:
        raise NotPermitted(
            message=f"{asker.name} is a {asker.role} of the room; owners and members {what}."
        )


def _pushed(arrived: Arrived, came: tuple[CameBy, ...]) -> ModelPushed:
    entry = arrived.entry
    return ModelPushed(
        model=ModelId(entry.id),
        how=arrived.how,
        path=_told(entry.directory),
        safety=safety_of(entry.record).tier,
        trash="" if arrived.trash is None else _told(arrived.trash),
        came=came,
    )


def _line(name: str) -> str:
    return " ".join(name.split())[:200]


def _told(path: Path) -> str:
    text = str(path)
    return text if len(text) <= MAX_PATH_TOLD else ""
