"""Storing what a job brings, before it is submitted, and remembering how far that is.

What was cut is among the transfers of this machine (``transfers.py``), and goes on there
or with the same command.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sleap_rtc.client.parts import Part, files_of
from sleap_rtc.client.room_storage import RoomStorage
from sleap_rtc.client.transfers import Going, Transfer, Transfers
from sleap_rtc.config import Settings
from sleap_rtc.domain.ids import ModelId
from sleap_rtc.errors import Cancelled, Offline, SleapRtcError, SourceChanged
from sleap_rtc.files.packing import pack
from sleap_rtc.jobs.datasets import NamedFile
from sleap_rtc.jobs.spec import JobSpec, TrackSpec
from sleap_rtc.transfer.progress import Progress

if TYPE_CHECKING:
    from sleap_rtc.client.api import AsyncClient
    from sleap_rtc.client.storing import Stored

OnProgress = Callable[[str, Progress], None]


def store_part(
    storage: RoomStorage,
    part: Part,
    files: Sequence[NamedFile],
    *,
    spec: JobSpec,
    settings: Settings,
    replaced: bool,
    on_progress: OnProgress | None = None,
) -> Stored:
    """Store files of a part of a job. Blocks.

    Args:
        storage: The room's.
        part: The part.
        files: Those of its files that are to be stored.
        spec: The job.
        settings: Where unfinished uploads and transfers are noted, and how much goes at once.
        replaced: Whether another way is taken when it fails: then nobody goes on with it.
        on_progress: Told of how far it is, from any thread.

    Raises:
        SleapRtcError: They can't be stored; what was is kept, and isn't sent again.
    """
    transfers = Transfers(settings.home / "transfers")
    going = transfers.begin(_remembered(spec, part))
    try:
        with going:
            done = _store(storage, part, files, settings=settings, told=_noting(going, on_progress))
            going.finish()
    except SleapRtcError as error:
        if replaced and not isinstance(error, Cancelled):
            transfers.cancel(going.transfer)
        raise
    return done


def store_again(
    client: AsyncClient, transfer: Transfer, *, on_progress: OnProgress | None = None
) -> Stored:
    """Go on with storing what a job brings, whose command was cut. Blocks.

    No job comes of it: the same command submits one, and has nothing left to send.

    Args:
        client: This machine.
        transfer: What was to be stored.
        on_progress: Told of how far it is, from any thread.

    Raises:
        Offline: Nobody is to be asked.
        SourceChanged: The files aren't any more what they were.
        NotFound: One is gone; or this machine isn't in the room any more.
        SleapRtcError: It can't be stored.
    """
    room = client.devices.room(transfer.room)
    if client.settings.offline:
        raise Offline(url=room.server)
    packed = pack({n: Path(p) for n, p in transfer.files.items()}, cache=client.cache)
    if packed.package.id != transfer.package:
        raise SourceChanged(path=next(iter(transfer.files.values()), transfer.label))
    part = Part(packed=packed, files=files_of(packed))
    with (
        closing(RoomStorage(client.settings, room)) as storage,
        client.transfers.begin(transfer) as going,
    ):
        done = _store(
            storage,
            part,
            part.files,
            settings=client.settings,
            told=_noting(going, on_progress),
        )
        going.finish()
    return done


def _remembered(spec: JobSpec, part: Part) -> Transfer:
    """What is to be remembered of a part that is stored."""
    now, package = datetime.now(UTC), part.packed.package
    models = spec.work.models if isinstance(spec.work, TrackSpec) else ()
    model = next((each.id for each in models if each.package == package.id), ModelId(""))
    return Transfer(
        id="",
        direction="store",
        model=model,
        label=model or spec.name,
        model_type="",
        package=package.id,
        size=package.size,
        worker="",
        room=spec.room,
        begun_at=now,
        changed_at=now,
        files={file.name: file.place for file in part.files},
    )


def _noting(going: Going, on_progress: OnProgress | None) -> OnProgress:
    """Notes how far it is, for the list of transfers, and tells it on."""

    def progress(name: str, now: Progress) -> None:
        going.done = now.done
        if on_progress is not None:
            on_progress(name, now)

    return progress


def _store(
    storage: RoomStorage,
    part: Part,
    files: Sequence[NamedFile],
    *,
    settings: Settings,
    told: OnProgress,
) -> Stored:
    from sleap_rtc.client.storing import Limits, store_files  # noqa: PLC0415 - most jobs store none

    limits = Limits(
        in_flight=settings.max_concurrent_parts,
        largest=settings.multipart_chunk_size,
        rate=settings.limit_rate,
    )
    return store_files(
        storage.open(),
        part.packed,
        files,
        state=settings.home / "uploads",
        limits=limits,
        on_progress=told,
    )
