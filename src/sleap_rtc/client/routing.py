"""By which way what a job brings gets to its worker: looked at, planned, and carried out.

That is its inputs, and the models that the worker lacks: one plan is for all of it.

::

    survey ──► what has the worker? what does it see? what has storage?     (asked if it matters)
       │
    plan_data ──► ways in their order, each with its reason                 (pure)
       │
    carry_out ──► s3: stored and verified ──► the job names its files, with where each is
                   └─ fails ──► the next way, unless the user asked for just that

A job is submitted only after this: when it fails, nothing is queued.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Final

import msgspec
from loguru import logger
from msgspec.structs import replace

from sleap_rtc.client.composing import Composed
from sleap_rtc.client.part_storing import OnProgress, store_part
from sleap_rtc.client.parts import Part, parts_of
from sleap_rtc.client.room_storage import RoomStorage
from sleap_rtc.client.unwaited import unwaited
from sleap_rtc.config import Settings
from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.packages import ref
from sleap_rtc.errors import (
    Cancelled,
    FeatureMissing,
    NotFound,
    PathNotPermitted,
    SleapRtcError,
)
from sleap_rtc.jobs.datasets import (
    Dataset,
    Datasets,
    NamedFile,
    SharedFile,
    StoredFile,
    fit,
    linked,
    shared,
    stored,
)
from sleap_rtc.jobs.spec import JobSpec, TrackSpec
from sleap_rtc.protocol.datasets import DataWeighed, WeighData
from sleap_rtc.transfer.choice import Data, Kind, Plan, plan_data
from sleap_rtc.transports.link import Link

if TYPE_CHECKING:
    from sleap_rtc.client.api import AsyncClient

ONCE_S: Final = 60.0
"""Seconds for a question: the worker may just be coming back."""
_INSTEAD: Final = "Nothing was queued. Or send it over the link: --transport webrtc."


class Planned(msgspec.Struct, frozen=True):
    """The ways that a job's data takes.

    Attributes:
        plan: In their order, with reasons.
        given: What is known.
        parts: What the job brings.
        failure: Why storage can't be asked, if that is what's wrong with it.
    """

    plan: Plan
    given: Data
    parts: tuple[Part, ...]
    failure: SleapRtcError | None = None

    @property
    def files(self) -> list[NamedFile]:
        """All files of all parts."""
        return [file for part in self.parts for file in part.files]


class Routed(msgspec.Struct, frozen=True):
    """A job that is ready to be submitted.

    Attributes:
        composed: The job, which names its files.
        way: How most of its data goes.
        sent: Bytes that were sent to storage.
        there: Bytes that storage had already.
    """

    composed: Composed
    way: Kind
    sent: int = 0
    there: int = 0

    @property
    def places(self) -> tuple[str, ...]:
        """Where in storage, or on a shared disk, its files are."""
        parts = self.composed.spec.parts
        return tuple(d.path for _, datasets in parts for d in datasets if d.path != d.name)


async def plan_for(
    client: AsyncClient,
    composed: Composed,
    worker: str,
    *,
    leaves: bool = False,
    ask: bool = False,
) -> Planned:
    """By which way a job's data gets to a worker, and why; nothing is sent by this.

    Args:
        client: This machine.
        composed: The job.
        worker: The worker's name.
        leaves: Whether this machine lets go as soon as the job is submitted.
        ask: Whether worker and storage are asked even if it doesn't matter.

    Raises:
        UnknownWorker: It isn't online.
    """
    planned = first = first_look(client.settings, composed, leaves=leaves)
    if (ask or planned.given.asks) and _can_be_named(planned):
        room = client.devices.room(composed.spec.room)
        async with client.link(worker, room) as link:
            weighed = await weigh(link, planned.parts)
        with closing(RoomStorage(client.settings, room)) as storage:
            # Nobody waits for a server that doesn't answer once the command is ended.
            planned = await unwaited(lambda: survey(first, weighed, storage), name="storage")
    logger.bind(job=composed.spec.id).info("ways of the data:\n{}", planned.plan.explain())
    return planned


def send_first(
    client: AsyncClient,
    planned: Planned,
    composed: Composed,
    *,
    on_progress: OnProgress | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Routed:
    """Store a job's data, if it goes that way, before the job is submitted.

    Blocks: a program with an event loop calls it in a thread. Args and errors as `carry_out`.
    """
    room = client.devices.room(composed.spec.room)
    with closing(RoomStorage(client.settings, room)) as storage:
        return carry_out(
            planned,
            composed,
            settings=client.settings,
            storage=storage,
            on_progress=on_progress,
            say=say,
        )


async def weigh(link: Link, parts: Sequence[Part]) -> list[DataWeighed] | None:
    """What a worker has and sees of each part; None from one that is too old to say."""
    answers = []
    for part in parts:
        question = WeighData(
            package=ref(part.packed.package), datasets=tuple(shared(file) for file in part.files)
        )
        try:
            answer = await link.request(question, within_s=ONCE_S)
        except FeatureMissing:
            return None
        assert isinstance(answer, DataWeighed)  # noqa: S101 - the protocol's table says so
        answers.append(answer)
    return answers


def first_look(settings: Settings, composed: Composed, *, leaves: bool) -> Planned:
    """The plan by what this machine knows: it says whether more is to be asked.

    Args:
        settings: The wish, and from which size on storage is taken.
        composed: The job.
        leaves: Whether this machine lets go as soon as the job is submitted.
    """
    parts = parts_of(composed)
    given = Data(
        size=sum(part.packed.package.size for part in parts),
        what="the data",
        wish=settings.transport,
        threshold=settings.large_file_threshold,
        no_storage="it wasn't asked: the data is small",
        leaves=leaves,
    )
    planned = Planned(plan=plan_data(given), given=given, parts=parts)
    if _can_be_named(planned):
        return planned
    given = replace(given, no_storage="no job can name so many files")
    return Planned(plan=plan_data(given), given=given, parts=parts)


def _can_be_named(planned: Planned) -> bool:
    """Whether a job can name so many files; else all of them come over the link."""
    return fit([shared(file) for file in planned.files])


def survey(
    planned: Planned, weighed: Sequence[DataWeighed] | None, storage: RoomStorage
) -> Planned:
    """The plan by what worker and storage say. Blocks while storage is asked.

    Args:
        planned: By what this machine knows.
        weighed: What the worker says of each part; None from one that is too old.
        storage: The room's storage.
    """
    parts = planned.parts
    if weighed is not None:
        both = zip(parts, weighed, strict=True)
        parts = tuple(replace(part, seen=frozenset(told.seen)) for part, told in both)
    given = replace(
        planned.given,
        here=sum(told.here for told in weighed or ()),
        seen=sum(file.size for part in parts for file in part.files if file.name in part.seen),
    )
    failure: SleapRtcError | None = None
    if weighed is None:
        given = replace(given, no_storage="the worker is too old for it")
    elif not all(told.storage for told in weighed):
        given = replace(given, no_storage="the worker lacks the extra http, with which it is asked")
    else:
        try:
            given = replace(given, stored=_bytes_there(storage, planned.files))
        except SleapRtcError as error:
            logger.bind(code=error.code).info("storage can't be asked: {}", error)
            given, failure = replace(given, no_storage=error.message.rstrip(".")), error
    return Planned(plan=plan_data(given), given=given, parts=parts, failure=failure)


def _bytes_there(storage: RoomStorage, files: Sequence[NamedFile]) -> int:
    from sleap_rtc.client.storing import bytes_there  # noqa: PLC0415 - most jobs don't ask

    return bytes_there(storage.open(), files)


def carry_out(
    planned: Planned,
    composed: Composed,
    *,
    settings: Settings,
    storage: RoomStorage,
    on_progress: OnProgress | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Routed:
    """Do what has to be done before a job is submitted: store files, and name them all. Blocks.

    Args:
        planned: The plan.
        composed: The job.
        settings: Where unfinished uploads are noted, and how much goes at once.
        storage: The room's storage.
        on_progress: Told of how far the storing is, from any thread.
        say: Told in a sentence when a way fails and the next one is taken.

    Returns:
        The job with its files named.

    Raises:
        PathNotPermitted: The worker was to read the files where they are, and doesn't see them.
        SleapRtcError: Storing failed, and the user asked for just that. Nothing is queued.
    """
    check_wish(planned)
    named: dict[PackageId, Datasets] = {}
    sent = there = 0
    stores = _wants_storage(planned.plan)
    for part in planned.parts:
        seen = part.seen if planned.plan.uses("local") else frozenset()
        rest = [file for file in part.files if file.name not in seen]
        keys: dict[str, str] = {}
        if stores and any(file.size for file in rest):
            try:
                done = store_part(
                    storage,
                    part,
                    rest,
                    spec=composed.spec,
                    settings=settings,
                    replaced=planned.given.wish != "s3",
                    on_progress=on_progress,
                )
            except Cancelled:
                raise
            except SleapRtcError as error:
                if planned.given.wish == "s3":
                    raise _unqueued(error) from None
                say(f"Storage failed: {error.message} The data goes over the link instead.")
                stores = False
            else:
                keys = done.keys
                sent, there = sent + done.sent, there + done.there
        named[part.packed.package.id] = _named(part.files, seen, keys)
    everything = [each for datasets in named.values() for each in datasets]
    spec = _with(composed.spec, named) if fit(everything) else composed.spec
    way: Kind = "webrtc"
    if any(isinstance(each, SharedFile) for each in everything):
        way = "local"
    elif any(isinstance(each, StoredFile) for each in everything):
        way = "s3"
    return Routed(composed=replace(composed, spec=spec), way=way, sent=sent, there=there)


def _with(spec: JobSpec, named: Mapping[PackageId, Datasets]) -> JobSpec:
    """The job with where its files are, by package: its inputs, and the models that it brings."""
    spec = replace(spec, datasets=named[spec.inputs.id])
    if not isinstance(spec.work, TrackSpec):
        return spec
    models = tuple(
        model if model.offered is None else replace(model, datasets=named.get(model.package, ()))
        for model in spec.work.models
    )
    return replace(spec, work=replace(spec.work, models=models))


def _wants_storage(plan: Plan) -> bool:
    """Whether storage comes before the link."""
    order = [way.kind for way in plan.ways if way.kind != "local"]
    return bool(order) and order[0] == "s3"


def check_wish(planned: Planned) -> None:
    """See that what the user asked for can be done at all.

    Raises:
        PathNotPermitted: The worker was to read the files where they are, and doesn't see them.
        SleapRtcError: They were to be stored, and can't be.
    """
    wish, plan = planned.given.wish, planned.plan
    if wish not in ("s3", "local") or plan.uses(wish):
        return
    why = next(way.why for way in plan.without if way.kind == wish)
    if wish == "local":
        largest = max(planned.files, key=lambda file: file.size)
        raise PathNotPermitted(
            path=largest.place,
            why=why,
            hint="Its owner permits a folder with the setting worker_shared. Nothing was queued.",
        )
    raise _unqueued(planned.failure or NotFound(message=f"The data can't be stored: {why}."))


def _unqueued(error: SleapRtcError) -> SleapRtcError:
    """The same error, with what can be done instead."""
    error.hint_text = f"{error.hint_text} {_INSTEAD}".strip()
    return error


def _named(files: Sequence[NamedFile], seen: frozenset[str], keys: dict[str, str]) -> Datasets:
    found: list[Dataset] = []
    for file in files:
        if file.name in seen:
            found.append(shared(file))
        elif file.name in keys:
            found.append(stored(file, keys[file.name]))
        else:
            found.append(linked(file))
    return tuple(found)
