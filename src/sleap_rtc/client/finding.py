"""Which worker is meant where none is named.

::

    one is online ──────────────────────────► that one
    several ─ nothing is sought ────────────► the person says which
            └ models are sought ─► all are asked ─ one has them ─► that one
                                                  └ others ──────► the person says which

A person is told which one was taken, and why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
from loguru import logger

from sleap_rtc.auth.store import RoomEntry
from sleap_rtc.client.asking import WorkerLibrary, only_worker, open_library
from sleap_rtc.client.online import Online
from sleap_rtc.errors import (
    AmbiguousName,
    FeatureMissing,
    SleapRtcError,
    UnknownModel,
    UsageError,
    from_wire,
)
from sleap_rtc.protocol.moving import NameModels

AT_ONCE: Final = 8
"""Workers that are asked at a time."""
WITHIN_S: Final = 15.0
"""Seconds for a worker to be reached and to answer; a silent one counts as one without models."""


class Chosen(msgspec.Struct, frozen=True):
    """A worker that was taken without being named.

    Attributes:
        name: Its name.
        why: The reason, as the end of a sentence.
    """

    name: str
    why: str


class _Asked(msgspec.Struct, frozen=True):
    """What one worker says of some names.

    Attributes:
        worker: Its name.
        lacks: The names that it doesn't know.
        silent: Why it couldn't be asked; empty if it could.
    """

    worker: str
    lacks: tuple[str, ...]
    silent: str = ""


async def choose_worker(online: Online, room: RoomEntry, names: Sequence[str] = ()) -> Chosen:
    """The worker that is meant where none is named.

    Args:
        online: This device, present in the room.
        room: The room.
        names: Models that it must have, as a person would name them there; none for any worker.

    Raises:
        NotFound: No worker is online.
        UnknownModel: None of them has all of the models.
        UsageError: Several are online; or several have the models.
    """
    there = online.workers(room.room)
    if not names or len(there) < 2:
        return Chosen(name=only_worker(online, room), why="no other worker is online")
    turns = asyncio.Semaphore(AT_ONCE)

    async def ask(worker: str) -> _Asked:
        async with turns:
            try:
                async with (
                    asyncio.timeout(WITHIN_S),
                    open_library(online, room, worker) as library,
                ):
                    lacks = [name for name in names if not await _knows(library, name)]
            except TimeoutError:
                return _Asked(worker, tuple(names), silent=f"no answer within {WITHIN_S:g} s")
            except SleapRtcError as error:
                logger.bind(code=error.code, worker=worker).info("not asked: {}", error)
                return _Asked(worker, tuple(names), silent=error.message)
            return _Asked(worker, tuple(lacks))

    return decide(names, await asyncio.gather(*(ask(each.name) for each in there)))


def decide(names: Sequence[str], asked: Sequence[_Asked]) -> Chosen:
    """Which of several workers it is, by what they said.

    Raises:
        UnknownModel: None of them has all of the models.
        UsageError: Several have.
    """
    what = " and ".join(repr(name) for name in names)
    having = [each.worker for each in asked if not each.lacks]
    silent = [each.worker for each in asked if each.silent]
    beside = f" ({', '.join(silent)} gave no answer)" if silent else ""
    if len(having) == 1:
        return Chosen(name=having[0], why=f"no other worker has {what}{beside}")
    if having:
        raise UsageError(
            message=f"Several workers have {what}: {', '.join(having)}.",
            hint=f"Add --worker {having[0]}; with --worker for each of them they share the work.",
        )
    nobody = [name for name in names if all(name in each.lacks for each in asked)]
    others = ", ".join(each.worker for each in asked if not each.silent)
    if not nobody:
        raise _unknown(what, f"No single worker has {what}.", "Pull them one by one.")
    answered = f" of {others}" if others else ""
    raise _unknown(
        nobody[0],
        f"None{answered} has a model {nobody[0]!r}{beside}.",
        "sleap-rtc worker list-models --worker WORKER shows what one has.",
    )


def _unknown(name: str, message: str, hint: str) -> SleapRtcError:
    """The error, in other words than where one library is asked."""
    return from_wire(UnknownModel.code, {"name": name}, message=message, hint=hint)


async def _knows(library: WorkerLibrary, name: str) -> bool:
    """Whether a worker knows a name; one that means several models there counts, too."""
    try:
        await library.link.request(NameModels(name=name), within_s=WITHIN_S)
    except UnknownModel:
        return False
    except AmbiguousName:
        return True
    except FeatureMissing:  # an older worker knows ids and aliases of single models
        [there] = await library.exists(name)
        return there
    return True
