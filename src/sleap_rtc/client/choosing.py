"""Which worker does a job: the one that was named, or the least busy one that can."""

from __future__ import annotations

from sleap_rtc.auth.store import RoomEntry
from sleap_rtc.client.online import Online
from sleap_rtc.domain.places import Presence
from sleap_rtc.errors import EngineMissing, NotFound


async def choose(online: Online, room: RoomEntry, name: str | None, engine: str) -> Presence:
    """The worker for a job.

    Args:
        online: This device, present in the room.
        room: The room.
        name: The worker's name; None for the least busy one that has the engine.
        engine: The trainer that it must have.

    Raises:
        NotFound: It isn't online, or no worker is.
        EngineMissing: It hasn't got the engine, or none has.
    """
    if name is not None:
        found = await online.find_worker(room, name)
        if found.worker is not None and engine not in found.worker.engines:
            raise _missing(engine, f"worker {name}", [found])
        return found
    workers = online.workers(room.room)
    if not workers:
        raise NotFound(
            message=f"No worker is online in room {room.name!r}.",
            hint=f"Start one, on a machine that joined: sleap-rtc worker --room {room.name}",
        )
    able = [p for p in workers if engine in _engines(p)]
    if not able:
        names = ", ".join(p.name for p in workers)
        raise _missing(engine, f"any worker that is online ({names})", workers)
    return min(able, key=lambda p: (p.worker.jobs if p.worker else 0, p.name))


def _engines(presence: Presence) -> dict[str, str]:
    return {} if presence.worker is None else presence.worker.engines


def _missing(engine: str, where: str, workers: list[Presence]) -> EngineMissing:
    have = sorted({name for presence in workers for name in _engines(presence)})
    other = f" Or take what is there: --engine {' or '.join(have)}" if have else ""
    hint = f"Run there: sleap-rtc engine install {engine}.{other}"
    return EngineMissing(engine=engine, where=where, hint=hint)
