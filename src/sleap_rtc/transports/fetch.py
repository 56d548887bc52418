"""Fetching a package, or the rest of it.

::

    claim the place ─► listing ─► room on the disk ─► what is here ─► blocks ─► check all ─► staged
                                                      already, copied   ▲           │       folder
                                                                        └── wrong ──┘

What has arrived survives everything: an error, a cancellation, a kill. The
same call takes up from there.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import ParamSpec, TypeVar

from loguru import logger

from sleap_rtc.domain.packages import Package, PackageRef, parse
from sleap_rtc.errors import (
    Cancelled,
    DataError,
    LinkLost,
    NetworkError,
    SleapRtcError,
    UnsafePath,
)
from sleap_rtc.files.claim import Claim
from sleap_rtc.files.copying import room_of_copies
from sleap_rtc.files.filling import fill
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.partial import PartialStore, claim_partial, known_listing
from sleap_rtc.files.partial_files import is_small
from sleap_rtc.files.staged import Staged
from sleap_rtc.transfer.events import WINDOW, SourceId
from sleap_rtc.transfer.progress import Meter
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.receiving import REPORT_SECONDS, OnProgress, Receiving
from sleap_rtc.transports.throttle import Throttle

P = ParamSpec("P")
T = TypeVar("T")


async def fetch(
    ref: PackageRef,
    *,
    sources: Sources,
    destination: str,
    incoming: Path,
    held: Sequence[Path] = (),
    near: Path | None = None,
    on_near: Callable[[int], None] = lambda _: None,
    cache: HashCache | None = None,
    on_progress: OnProgress | None = None,
    throttle: Throttle | None = None,
    patience: float | None = None,
    window: int = WINDOW,
) -> Staged:
    """Fetch a package, or the rest of it.

    While no source is there it waits for one. Cancelled or failed, it leaves what has arrived for
    another call with the same package and destination.

    Args:
        ref: What to fetch.
        sources: Where from; more may be added, and lost ones replaced, at any time.
        destination: Names where the files will go, for example the final path: two calls for the
            same package and destination exclude each other.
        incoming: The folder of all partial data, on the destination's file system.
        held: Folders whose files, and those in ``incoming``, are searched for what is wanted:
            content that is there, under whatever name, is copied and not fetched.
        near: The folder of a peer on this machine that has the package, to be searched after those.
        on_near: Told how many bytes were copied from there.
        cache: Hashes of unchanged big files, for that search.
        on_progress: Called on the event loop, about four times a second and at the end.
        throttle: The bandwidth limit, shared with other transfers.
        patience: Seconds to wait for a source before giving up; None for ever.
        window: Bytes under way from each source, which is what this needs of memory.

    Returns:
        The checked and synced files, to be placed within a ``with`` block.

    Raises:
        Busy: Another process is fetching the same for the same place.
        OutOfSpace: There is no room for it.
        LinkLost: No source for longer than ``patience``.
        Damaged: A block was wrong three times.
        SourceChanged: A file changed at a source.
        DataError: The listing is not of this package, or breaks the rules.
        SleapRtcError: What the last source refused with.
    """
    async with AsyncExitStack() as undo:
        claim = await _make(undo, Claim.release, claim_partial, incoming, ref.id, destination)
        package = await _package(ref, sources, claim, patience)
        shared = near is not None and await asyncio.to_thread(_is_shared, package, near, incoming)
        store = await _make(undo, PartialStore.close, PartialStore, claim, package, shared=shared)
        await _reuse(store, held, cache, on_progress)
        if near is not None and store.here < package.size:
            on_near(await _reuse(store, (near,), cache, on_progress, likely=True))
        receiving = Receiving(
            store,
            sources,
            on_progress=on_progress,
            throttle=throttle,
            patience=patience,
            window=window,
        )
        await receiving.run()
        staged = await _make(undo, Staged.release, store.finish)
        undo.pop_all()
    return staged


def _is_shared(package: Package, near: Path, incoming: Path) -> bool:
    """Whether copies of a package's large files take no room, since they share it on the disk."""
    large = [near / entry.path for entry in package.files if not is_small(entry)]
    try:
        return bool(large) and not room_of_copies(large, incoming)
    except (OSError, UnsafePath):
        return False


async def _reuse(
    store: PartialStore,
    held: Sequence[Path],
    cache: HashCache | None,
    on_progress: OnProgress | None,
    *,
    likely: bool = False,
) -> int:
    """Copy what this machine has already, and tell how far that is; returns the bytes."""
    total = store.layout.package.size
    done = store.here
    meter = Meter("copying", done=done, total=total, now=time.monotonic())
    stop = threading.Event()

    def copied(size: int) -> None:
        nonlocal done
        if stop.is_set():
            raise Cancelled(what="The copying")
        done += size

    copying = asyncio.ensure_future(
        asyncio.to_thread(fill, store, held, cache=cache, progress=copied, likely=likely)
    )
    try:
        while not (await asyncio.wait([copying], timeout=REPORT_SECONDS))[0]:
            if on_progress is not None:
                on_progress(meter.update(done, time.monotonic()))
    finally:
        # A thread can't be cancelled, and nobody else may touch the store before it has ended.
        stop.set()
        await asyncio.wait([copying])
        copying.exception()
    if size := copying.result():
        logger.bind(package=store.layout.package.id, bytes=size).info("copied from this machine")
    return size


async def _make(
    undo: AsyncExitStack,
    close: Callable[[T], None],
    call: Callable[P, T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Make something in a thread, and have it closed when the stack is unwound.

    A thread can't be cancelled: what it makes is closed also when nobody waits for it any more.
    """
    making = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))

    async def unmake() -> None:
        await asyncio.wait([making])
        if making.exception() is None:
            await asyncio.to_thread(close, making.result())

    undo.push_async_callback(unmake)
    return await asyncio.shield(making)


async def _package(
    ref: PackageRef, sources: Sources, claim: Claim, patience: float | None
) -> Package:
    """The package with its files, from an earlier attempt or from a source."""
    package = await asyncio.to_thread(known_listing, claim, ref.id)
    if package is None:
        package = await _ask(ref, sources, patience)
    if package.size != ref.size or len(package.files) != ref.files:
        raise DataError(what=f"package {ref.id[:12]}…", why="it is not as large as was said")
    return package


async def _ask(ref: PackageRef, sources: Sources, patience: float | None) -> Package:
    """The listing, from the first source that gives a right one."""
    changed = asyncio.Event()
    asked: set[SourceId] = set()
    refusal: SleapRtcError | None = None
    with sources.watch(changed.set):
        while True:
            changed.clear()
            key, source = next(
                ((k, s) for k, s in sources.current.items() if k not in asked), (None, None)
            )
            if key is None or source is None:
                if refusal is not None:
                    raise refusal
                try:
                    await asyncio.wait_for(changed.wait(), patience)
                except TimeoutError:
                    raise LinkLost(peer="every source", why=f"none for {patience} s") from None
                continue
            asked.add(key)
            try:
                listing = await source.listing(ref)
                if len(listing) != ref.listing:
                    raise DataError(what="package listing", why="it is not as long as was said")
                return await asyncio.to_thread(parse, listing, expect=ref.id)
            except NetworkError:
                continue
            except SleapRtcError as error:
                refusal = error
