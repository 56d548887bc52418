"""Reading a job's events without taking part in it: nothing is kept, and nothing comes home.

For looking at a job and its log, anybody's in the room.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from sleap_rtc.client.inbox import Inbox
from sleap_rtc.client.online import Online
from sleap_rtc.domain.ids import JobId, RoomId
from sleap_rtc.domain.places import Presence
from sleap_rtc.errors import DataError, NetworkError, SleapRtcError
from sleap_rtc.jobs.events import JobEvent
from sleap_rtc.protocol.link import FollowJob, JobHappened, JobTold, NoticeBody
from sleap_rtc.transports.channel import Channel
from sleap_rtc.transports.link import Link

QUIET_S: Final = 60.0
"""Seconds without an event after which those that a worker spoke of are waited for no more: its
link may be coming back meanwhile."""
MAX_PAST: Final = 2_000_000
"""Events of the past that are taken in: a training of weeks has fewer."""
_ONCE_S: Final = 60.0


class Watcher:
    """Reads the events of one job, from the first. Use it as an asynchronous context manager.

    Args:
        online: This device, present in the job's room.
        room: The room.
        job: The job's id.
        worker: The worker's name.
        locate: Tells where the worker is online now.
    """

    def __init__(
        self,
        online: Online,
        *,
        room: RoomId,
        job: JobId,
        worker: str,
        locate: Callable[[], Presence | None],
    ) -> None:
        self.told: JobTold
        self.worker = worker
        self._online = online
        self._job = job
        self._number = 0
        self._following = False
        self._events: Inbox[JobEvent | SleapRtcError] = Inbox(on_room=self._room_again)
        self._paused = False
        self._catching_up: set[asyncio.Task[None]] = set()
        self._link = Link(
            online.switchboard,
            room=room,
            locate=locate,
            name=worker,
            on_notice=self._noticed,
            on_up=self._follow_again,
        )

    async def __aenter__(self) -> Watcher:
        """Connect, and ask for the events; what the worker said of the job is in ``told``.

        Raises:
            UnknownJob: The worker doesn't know the job.
            PeerUnreachable: The worker can't be reached.
        """
        await self._link.__aenter__()
        self._online.watch(self._link)
        try:
            answer = await self._link.request(FollowJob(job=self._job), within_s=_ONCE_S)
        except BaseException:
            await self.__aexit__()
            raise
        assert isinstance(answer, JobTold)  # noqa: S101 - the protocol's table says so
        self.told = answer
        self._following = True
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go."""
        for task in self._catching_up:
            task.cancel()
        self._online.unwatch(self._link)
        await self._link.__aexit__(None, None, None)

    async def past(self) -> list[JobEvent]:
        """The events that there were when the worker was asked.

        Raises:
            UnknownJob: The worker has forgotten the job meanwhile.
            DataError: It speaks of more events than it sends, or of more than any job has.
        """
        last = self.told.job.last_event
        if last > MAX_PAST:
            raise self._untrue(f"it speaks of {last} events, more than the {MAX_PAST} allowed")
        events: list[JobEvent] = []
        while len(events) < last:
            try:
                events.append(await asyncio.wait_for(self._next(), QUIET_S))
            except TimeoutError:
                why = f"it speaks of {last} events, and none came after {len(events)} of them"
                raise self._untrue(why) from None
        return events

    def _untrue(self, why: str) -> DataError:
        return DataError(what=f"What worker {self.worker} says of job {self._job}", why=why)

    async def events(self) -> AsyncIterator[JobEvent]:
        """Every event, and those to come, for as long as it is iterated.

        Raises:
            UnknownJob: The worker has forgotten the job meanwhile.
        """
        while True:
            yield await self._next()

    async def _next(self) -> JobEvent:
        event = await self._events.get()
        if isinstance(event, SleapRtcError):
            raise event
        return event

    async def _follow_again(self, channel: Channel) -> None:
        if self._following and not self._paused:
            body = FollowJob(job=self._job, since=self._number)
            await channel.request(body, id=f"watch-{id(channel)}", within_s=30)

    def _noticed(self, body: NoticeBody) -> None:
        if not isinstance(body, JobHappened) or body.job != self._job:
            return
        if body.event.n == self._number + 1 and not self._paused:
            self._number = body.event.n
            self._events.put(body.event)
            self._paused = self._events.full

    def _room_again(self) -> None:
        """What was not taken in is in the job's log: ask for it."""
        if self._paused:
            self._paused = False
            task = asyncio.create_task(self._catch_up())
            self._catching_up.add(task)
            task.add_done_callback(self._catching_up.discard)

    async def _catch_up(self) -> None:
        body = FollowJob(job=self._job, since=self._number)
        try:
            await self._link.request(body, within_s=_ONCE_S)
        except NetworkError:
            pass  # the events are asked for when the link is back
        except SleapRtcError as error:
            self._events.put(error)
