"""Putting a model's files into the room's storage, where they stay for whoever has need of them.

Each file is kept under the BLAKE3 of its content, and the list of them under the
package's id: what is there isn't sent again, and what was cut goes on.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from sleap_rtc.client.parts import files_of, with_whole_paths
from sleap_rtc.client.unwaited import unwaited
from sleap_rtc.errors import Cancelled, NotFound
from sleap_rtc.files.packing import Packed
from sleap_rtc.transfer.progress import Progress

if TYPE_CHECKING:
    from sleap_rtc.client.moving import Mover


async def store_model(mover: Mover, packed: Packed, on_progress: Callable[[Progress], None]) -> int:
    """Store the files of a model.

    Args:
        mover: Knows the storage, and how much goes at once.
        packed: The model's files.
        on_progress: Told how far it is, on the event loop.

    Returns:
        Bytes that were sent: what was there already doesn't count.

    Raises:
        NotFound: There is no storage.
        StorageOff: The server keeps no files.
        SourceChanged: A file isn't any more what was packed.
        Busy: Another process of this machine is storing the same.
        QuotaExceeded: The room has too much there.
        StorageUnreachable: It fails for too long; what it has is kept.
        SleapRtcError: It says no.
    """
    from sleap_rtc.client.storing import Limits, store_files  # noqa: PLC0415 - behind an extra

    ways = mover.ways
    if ways.storage is None or ways.uploads is None:
        raise NotFound(message="There is no storage to put the model into.")
    limits = Limits(in_flight=ways.in_flight, largest=ways.largest_part, rate=ways.rate)
    store = await asyncio.to_thread(ways.storage.open)
    stop = threading.Event()
    loop = asyncio.get_running_loop()

    def progress(_name: str, now: Progress) -> None:
        if stop.is_set():
            raise Cancelled(what="The storing")
        loop.call_soon_threadsafe(on_progress, now)

    state = ways.uploads

    def store_all() -> int:
        whole = with_whole_paths(packed)
        done = store_files(
            store, whole, files_of(whole), state=state, limits=limits, on_progress=progress
        )
        return done.sent

    # A thread can't be cancelled: it notices at its next report.
    return await unwaited(store_all, name="storing", stop=stop.set)
