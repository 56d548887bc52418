"""Telling the server what storage gave wrong, and telling people what comes of that.

Whoever fetches compares each block, so a file that rotted in storage, or was changed
behind it, is noticed by everybody. Who notices reports it; the server reads it itself,
and whoever stores the same the next time is then asked to send it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from loguru import logger

from sleap_rtc.client.room_storage import RoomStorage
from sleap_rtc.client.unwaited import unwaited
from sleap_rtc.errors import Damaged, DataError, SleapRtcError

if TYPE_CHECKING:
    from sleap_rtc.storage.service import Found

VERDICT_S: Final = 25.0
"""Seconds that somebody whose fetching failed waits for what the server finds."""
REPORT_S: Final = 5.0
"""The same of one who has it all by now, from somewhere else."""
_WORST: Final[tuple[Found, ...]] = ("damaged", "open", "good", "gone")


class Giver(Protocol):
    """What a package is fetched from.

    Attributes:
        damaged: Contents that storage gave wrong, each with the store's mark of what was read.
    """

    @property
    def damaged(self) -> Mapping[str, str]:
        """See above."""


async def report(
    storage: RoomStorage, damaged: Mapping[str, str], *, within: float = VERDICT_S
) -> Found | None:
    """Tell the server of contents that storage gave wrong.

    Args:
        storage: The room's, that gave them.
        damaged: The BLAKE3 of each, and the store's mark of what was read.
        within: Seconds to wait for what it finds.

    Returns:
        The worst of what it finds; None where it takes no reports, or can't be asked.
    """

    def tell() -> list[Found]:
        store = storage.open()
        return [store.report_damaged(blake3, etag) for blake3, etag in damaged.items()]

    try:
        async with asyncio.timeout(within):
            found = await unwaited(tell, name="damaged")
    except TimeoutError:
        return "open"
    except SleapRtcError as error:  # an older server takes no reports
        logger.info("what storage gave wrong isn't reported: {}", error)
        return None
    return min(found, key=_WORST.index, default=None)


@contextlib.asynccontextmanager
async def reporting(storage: RoomStorage | None, giver: Giver, *, anew: str) -> AsyncIterator[None]:
    """Report what storage gave wrong, if the block fails, and say so where that is why.

    Args:
        storage: The room's; None where there is none.
        giver: What is fetched from.
        anew: How what is damaged is stored anew, as a sentence.

    Raises:
        Damaged: The block raised a `DataError`; this one has what the server found.
    """
    try:
        yield
    except DataError as error:
        if storage is None or not giver.damaged:
            raise
        found = await report(storage, giver.damaged)
        raise explained(error, found, anew=anew) from error


async def report_later(storage: RoomStorage | None, giver: Giver) -> None:
    """Report what storage gave wrong to somebody who has it all by now, from elsewhere."""
    if storage is not None and giver.damaged:
        await report(storage, giver.damaged, within=REPORT_S)


def explained(error: DataError, found: Found | None, *, anew: str) -> Damaged:
    """What failed because storage gave something wrong, in words that say what to do.

    Args:
        error: As the transfer has it.
        found: What the server found.
        anew: How what is damaged is stored anew, as a sentence.
    """
    what = error.details.get("what") or error.details.get("path", "A file")
    why = error.details.get("why", "it is another one than before")
    match found:
        case "damaged":
            what, why = f"{what} in the room's storage", "it isn't any more what was stored there"
            hint = anew
        case "good":
            why += ", and what the room's storage has is right"
            hint = "It changes on its way, or here: look at this machine's memory and its network."
        case "gone":
            hint = "Something else is in its place in the room's storage by now: try again."
        case "open":
            hint = f"The server looks into what it has. {anew}"
        case None:
            hint = "Whether that is so in the room's storage is not known: its server can't say."
    return Damaged(what=what, why=why, hint=hint)
