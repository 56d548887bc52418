"""Following a job from this machine: its events, its models, and what it brings home.

A follower can be ended at any time, by Ctrl-C or a closed lid, and another one
started later: it asks for the events after the last one that was taken in. What
is at home already isn't fetched again.

::

    link up ──► offer the inputs again ──► follow since n ──► events, in order
                                                │
                    model changed ──────────────┼──► the library notes it
                    output ready ───────────────┴──► fetched, one after the other
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Final, Literal

import msgspec
from loguru import logger

from sleap_rtc.auth.store import RoomEntry
from sleap_rtc.client.bringing import bring_model, bring_output, expect_model, follow_model
from sleap_rtc.client.inbox import Inbox
from sleap_rtc.client.online import Online
from sleap_rtc.client.submitted import SubmittedJob, SubmittedJobs
from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.domain.packages import ref
from sleap_rtc.domain.places import Presence
from sleap_rtc.errors import AliasTaken, Busy, SleapRtcError, SourceChanged
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.packing import pack
from sleap_rtc.jobs.events import JobEvent, ModelChanged, OutputReady
from sleap_rtc.jobs.lifecycle import SETTLED, JobView, fold
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.link import (
    Accepted,
    CommandJob,
    FollowJob,
    JobHappened,
    JobTold,
    NoticeBody,
    OfferFiles,
    ReplyBody,
    SubmitJob,
)
from sleap_rtc.transfer.progress import Progress
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.blocks import BlockClient
from sleap_rtc.transports.channel import Channel
from sleap_rtc.transports.link import Link, State
from sleap_rtc.transports.serving import ServedPackage, serve_model
from sleap_rtc.transports.throttle import Throttle

ONCE_S: Final = 60.0
"""Seconds for a request of this module: the worker may just be coming back."""


OTHER_S: Final = 0.5
"""Seconds between looks at what another process of this machine brings home."""


class LinkChanged(msgspec.Struct, frozen=True):
    """The link to the worker is now in this state."""

    state: State


class Fetching(msgspec.Struct, frozen=True):
    """Something is on its way home."""

    what: str
    progress: Progress


class CameHome(msgspec.Struct, frozen=True):
    """A model or predictions are home.

    Attributes:
        what: ``model`` or ``predictions``.
        path: The directory.
        model: The model's entry in the library.
    """

    what: Literal["model", "predictions"]
    path: Path
    model: Entry | None = None


class AliasGiven(msgspec.Struct, frozen=True):
    """The models have their alias, or why they don't."""

    alias: str
    refused: str = ""


Update = JobEvent | LinkChanged | Fetching | CameHome | AliasGiven


class Follower:
    """Follows one submitted job. Use it as an asynchronous context manager.

    Args:
        online: This device, present in the job's room.
        room: The job's room.
        job: The job as this machine keeps it.
        jobs: Where it is kept.
        registry: This machine's library.
        incoming: Where partial data of predictions is kept.
        cache: Hashes of unchanged files.
        throttle: Limits what is sent and fetched.
    """

    def __init__(
        self,
        online: Online,
        *,
        room: RoomEntry,
        job: SubmittedJob,
        jobs: SubmittedJobs,
        registry: Registry,
        incoming: Path,
        cache: HashCache | None = None,
        throttle: Throttle | None = None,
    ) -> None:
        self.view = JobView()
        self.job = job
        self._online = online
        self._room = room
        self._jobs = jobs
        self._registry = registry
        self._incoming = incoming
        self._cache = cache
        self._throttle = throttle
        self._following = False
        self._upto: int | None = None
        self._served: list[ServedPackage] = []
        self._sources = Sources()
        self._updates: Inbox[Update | SleapRtcError | None] = Inbox(on_room=self._room_again)
        self._paused = False
        self._outputs: asyncio.Queue[OutputReady] = asyncio.Queue()
        self._last: dict[int, ModelRecord] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.link = Link(
            online.switchboard,
            room=room.room,
            locate=self._locate,
            name=job.worker,
            on_notice=self._noticed,
            on_state=lambda state: self._updates.put(LinkChanged(state), instead="link"),
            on_up=self._say_again,
            on_blocks=self._blocks_changed,
            throttle=throttle,
        )

    async def __aenter__(self) -> Follower:
        """Connect, offer what the worker lacks, and follow."""
        await self.link.__aenter__()
        self._online.watch(self.link)
        self._tasks = [
            asyncio.create_task(self._guard(self._begin())),
            asyncio.create_task(self._guard(self._bring_outputs())),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go; the job goes on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._online.unwatch(self.link)
        await self.link.__aexit__(None, None, None)
        for served in self._served:
            served.close()

    @property
    def caught_up(self) -> bool:
        """Whether every event is in that was there when the worker was last asked."""
        return self._upto is not None and self.view.number >= self._upto

    async def updates(self) -> AsyncIterator[Update]:
        """What happens, until the job is settled and everything is home.

        Who reads slowly is not told of every step of a transfer or a connection, but of every
        event of the job: while too much waits to be read, the worker is asked for no more.

        Raises:
            UnknownJob: The worker doesn't know the job.
            SleapRtcError: It can't be followed, or something can't be brought home.
        """
        while True:
            update = await self._updates.get()
            if update is None:
                return
            if isinstance(update, SleapRtcError):
                raise update
            yield update

    async def command(self, command: Literal["pause", "resume", "stop", "cancel"]) -> None:
        """Command the job; returns when the worker has noted it.

        Raises:
            IllegalTransition: It makes no sense in the job's state.
            NotPermitted: It is somebody else's job.
        """
        body = CommandJob(job=self.job.id, command=command)
        answer = await self.link.request(body, within_s=ONCE_S)
        assert isinstance(answer, Accepted)  # noqa: S101 - the protocol's table says so

    # ── the link ─────────────────────────────────────────────────────────────

    def _locate(self) -> Presence | None:
        return self._online.worker(self._room.room, self.job.worker, device=self.job.device)

    def _blocks_changed(self, client: BlockClient, up: bool) -> None:
        if up:
            self._sources.add(client)
        else:
            self._sources.remove(client)

    async def _say_again(self, channel: Channel) -> None:
        """After every connection: what the worker forgot with the last one."""
        for number, served in enumerate(self._served):
            body = OfferFiles(package=ref(served.packed.package))
            id_ = f"offer-{number}-{self.link.session}-{id(channel)}"
            await channel.request(body, id=id_, within_s=30)
        if self._following and not self._paused:
            self._upto = None
            id_ = f"follow-{id(channel)}"
            self._told(await channel.request(self._follow(), id=id_, within_s=30))

    def _follow(self) -> FollowJob:
        return FollowJob(job=self.job.id, since=self.view.number)

    async def _begin(self) -> None:
        """Offer the inputs while they may be wanted, submit what was never sent, and follow."""
        unsent = self.job.state == "unsent"
        if unsent or self.job.state in ("queued", "assigned", "preparing", "paused"):
            await self._offer(required=unsent)
        if unsent:
            await self.link.request(SubmitJob(spec=self.job.spec), within_s=ONCE_S, id=self.job.id)
        else:
            # The link may have come up before there was anything to offer.
            for served in self._served:
                body = OfferFiles(package=ref(served.packed.package))
                await self.link.request(body, within_s=ONCE_S)
        self._following = True
        await self._catch_up()

    def _told(self, answer: ReplyBody) -> None:
        """How far the log is: only behind that, a settled state is the present one."""
        assert isinstance(answer, JobTold)  # noqa: S101 - the protocol's table says so
        self._upto = answer.job.last_event
        self._finish_if_home()

    async def _offer(self, *, required: bool) -> None:
        try:
            packed = await asyncio.to_thread(
                pack, {n: Path(p) for n, p in self.job.files.items()}, cache=self._cache
            )
            if packed.package.id != self.job.spec.inputs.id:
                raise SourceChanged(path=next(iter(self.job.files.values())))
            self._keep(ServedPackage(packed))
            for model in self.job.offered:
                entry = self._registry.get(model)
                self._keep(
                    await asyncio.to_thread(
                        serve_model, entry.record, entry.directory, cache=self._cache
                    )
                )
        except SleapRtcError as error:
            if required:
                raise
            logger.warning("what the job needs can't be offered any more: {}", error)

    def _keep(self, served: ServedPackage) -> None:
        self._served.append(served)
        self.link.offer(served.packed.package.id, served)

    def _noticed(self, body: NoticeBody) -> None:
        if not isinstance(body, JobHappened) or body.job != self.job.id:
            return
        event = body.event
        if self._paused:
            return  # told again when there is room
        if event.n != self.view.number + 1:
            return  # told twice, over an old connection and a new one
        try:
            self.view = fold(self.view, event)
            self._take(event)
        except SleapRtcError as error:
            self._updates.put(error)
        except Exception as error:  # noqa: BLE001 - a fault here must not end the link unsaid
            self._updates.put(self._fault(error))
        if self._updates.full:
            self._paused = True

    def _room_again(self) -> None:
        """What was not taken in is in the job's log: ask for it."""
        if self._paused:
            self._paused = False
            self._tasks.append(asyncio.create_task(self._guard(self._catch_up())))

    async def _catch_up(self) -> None:
        self._told(await self.link.request(self._follow(), within_s=ONCE_S))

    # ── what the events mean here ────────────────────────────────────────────

    def _take(self, event: JobEvent) -> None:
        match event.body:
            case ModelChanged(stage=stage, record=record):
                self._note_model(stage, record)
            case OutputReady():
                if self.job.download and _label(event.body) not in self.job.home:
                    self._outputs.put_nowait(event.body)
            case _:
                pass
        self._updates.put(event)
        if self.view.state != self.job.state:
            state = str(self.view.state)
            self._change(lambda old: msgspec.structs.replace(old, state=state))
        self._finish_if_home()

    def _note_model(self, stage: int, record: ModelRecord) -> None:
        self._last[stage] = record
        local = self.job.models.get(str(stage))
        if f"model {stage}" in self.job.home:
            return
        if local is None:
            local = expect_model(self._registry, record, worker=self.job.worker).id
            models = {**self.job.models, str(stage): local}
            self._change(lambda old: msgspec.structs.replace(old, models=models))
        follow_model(self._registry, local, record, worker=self.job.worker)

    def _change(self, change: Callable[[SubmittedJob], SubmittedJob]) -> None:
        self.job = self._jobs.update(self.job.id, change)

    def _finish_if_home(self) -> None:
        # A job that was interrupted and tried again has a settled state in the middle of its log.
        if self.view.state not in SETTLED or not self.caught_up:
            return
        wanted = {_label(output) for output in self.view.outputs} if self.job.download else set()
        if wanted <= set(self.job.home):
            self._give_alias()
            self._updates.put(None)

    def _give_alias(self) -> None:
        alias = self.job.alias
        models = [self.job.models[key] for key in sorted(self.job.models, key=int)]
        if alias is None or not models or self.view.state != "completed":
            return
        try:
            self._registry.set_alias(alias, *models)
        except AliasTaken as error:
            self._updates.put(AliasGiven(alias, refused=str(error)))
        else:
            self._updates.put(AliasGiven(alias))

    async def _bring_outputs(self) -> None:
        while True:
            output = await self._outputs.get()
            label = _label(output)

            def on_progress(progress: Progress, label: str = label) -> None:
                self._updates.put(Fetching(label, progress), instead=label)

            home = await self._bring_once(output, on_progress)
            self._note_home(label)
            self._updates.put(home)
            self._finish_if_home()

    def _note_home(self, label: str) -> None:
        def note(old: SubmittedJob) -> SubmittedJob:
            home = old.home if label in old.home else (*old.home, label)
            return msgspec.structs.replace(old, home=home)

        self._change(note)

    async def _bring_once(
        self, output: OutputReady, on_progress: Callable[[Progress], None]
    ) -> CameHome:
        """Bring it home, or wait until another process of this machine has done so."""
        while True:
            if _label(output) in self._jobs.get(self.job.id).home:
                return self._at_home(output)
            try:
                return await self._bring(output, on_progress)
            except Busy as error:
                logger.debug("{} is brought home already: {}", _label(output), error)
                await asyncio.sleep(OTHER_S)

    def _at_home(self, output: OutputReady) -> CameHome:
        if output.what == "model":
            entry = self._registry.get(self.job.models[str(output.stage)])
            return CameHome("model", entry.directory, entry)
        return CameHome("predictions", Path(self.job.output or self.job.id))

    async def _bring(
        self, output: OutputReady, on_progress: Callable[[Progress], None]
    ) -> CameHome:
        if output.what == "model":
            entry = await bring_model(
                self.link,
                self._sources,
                self._registry,
                self._last[output.stage],
                output.package,
                name=self.job.models.get(str(output.stage)),
                on_progress=on_progress,
                throttle=self._throttle,
                cache=self._cache,
            )
            return CameHome("model", entry.directory, entry)
        target = Path(self.job.output or self.job.id)
        path = await bring_output(
            self.link,
            self._sources,
            output.package,
            job=self.job.id,
            incoming=self._incoming,
            target=target,
            on_progress=on_progress,
            throttle=self._throttle,
        )
        return CameHome("predictions", path)

    async def _guard(self, work: Coroutine[None, None, None]) -> None:
        """An error of a task ends the following with that error."""
        with contextlib.suppress(asyncio.CancelledError):
            try:
                await work
            except SleapRtcError as error:
                self._updates.put(error)
            except Exception as error:  # noqa: BLE001 - whoever waits for updates must be told
                self._updates.put(self._fault(error))

    def _fault(self, error: Exception) -> SleapRtcError:
        logger.opt(exception=error).error("following job {} failed", self.job.id)
        return SleapRtcError(message=f"Following the job failed: {error!r}.")


def _label(output: OutputReady) -> str:
    return f"model {output.stage}" if output.what == "model" else "predictions"
