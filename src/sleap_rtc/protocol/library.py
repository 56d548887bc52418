"""Asking a worker about its library: the bodies of the feature ``library``.

::

    client                                              worker
      │ ── list_models (filters, cursor) ────────────►   │  a page, and the cursor of the next
      │ ◄── models ───────────────────────────────────   │
      │ ── ask_model (name, first file) ─────────────►   │  everything about one model; files
      │ ◄── model_info ───────────────────────────────   │  by the page
      │ ── check_models (names) ─────────────────────►   │  which of these there are
      │ ◄── models_checked ───────────────────────────   │
      │ ── want_part (model, hashes) ────────────────►   │  let me fetch these files of it
      │ ◄── part (package) ───────────────────────────   │
      │ ── watch_library ────────────────────────────►   │
      │ ◄── library_changed (models) ─────────────────   │  from then on, at each change

They are sent only to a peer that named the feature: an older one would take
them for a breach of the protocol. Words that may be added to later (a status to
filter by, a sort) are plain text here, so that what a worker doesn't know is a
refusal that names what it does know, and not the end of the connection.

Whatever the library holds, a page fits one message: the worker ends it early,
and the cursor goes on from there.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta
from msgspec.structs import replace

from sleap_rtc.domain.models import (
    Hex64,
    Id,
    Location,
    ModelFile,
    ModelRecord,
    ModelType,
    Package,
    Source,
    Status,
    Tag,
    Training,
    Utc,
)
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.domain.values import Value, encode
from sleap_rtc.protocol.codec import Body

FEATURE: Final = "library"
"""What a peer that answers these names in its handshake."""

MAX_PAGE: Final = 100
"""Models on one page, and names in one check."""
MAX_FILES_TOLD: Final = 1_000
"""Files of a model on one page."""
MAX_FILES: Final = 10_000
"""Files that a record lists at most."""
MAX_PART: Final = 256
"""Files that are asked for at a time."""
MAX_PLACES: Final = 4
"""Other places of a model that a list names."""
MAX_NAME_TOLD: Final = 200
"""Characters of a name that a list tells."""
MAX_PATH_TOLD: Final = 1_024

Word = Annotated[str, Meta(min_length=1, max_length=64)]
Words = Annotated[tuple[Word, ...], Meta(max_length=32)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
MAX_COUNT: Final = 2**53
Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Cursor = Annotated[str, Meta(min_length=1, max_length=8_192)]
FileNumber = Annotated[int, Meta(ge=0, le=MAX_FILES)]
Told = Annotated[str, Meta(max_length=MAX_NAME_TOLD)]
PathTold = Annotated[str, Meta(max_length=MAX_PATH_TOLD)]

FileState = Literal["there", "missing", "changed"]


# ── requests ─────────────────────────────────────────────────────────────────


class ListModels(Body, frozen=True, tag="list_models"):
    """Which models do you have? A page of at most ``limit``, as the filters and the sort say.

    Attributes:
        statuses: One of these; an empty filter lets everything through.
        types: One of these model types.
        sources: One of these.
        tags: All of these.
        where: ``any``, ``local``, ``worker``, ``room`` or ``both``, as the worker sees it.
        at: Name of a worker or room that has it.
        text: What a person would type to search.
        sort: ``date``, ``name``, ``type``, ``loss`` or ``size``.
        reverse: The other way round.
        limit: Models on the page, at most.
        cursor: From the page before, with the same filters and sort.
        count: Whether to count how many follow the page, too.
    """

    statuses: Words = ()
    types: Words = ()
    sources: Words = ()
    tags: Annotated[tuple[Tag, ...], Meta(max_length=32)] = ()
    where: Word = "any"
    at: Name | None = None
    text: Annotated[str, Meta(max_length=1_000)] = ""
    sort: Word = "date"
    reverse: bool = False
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 50
    cursor: Cursor | None = None
    count: bool = False


class AskModel(Body, frozen=True, tag="ask_model"):
    """What do you know of the model with this id, id prefix or alias?

    ``first`` is the number of the first file to tell of, from 0, in the order of the record.
    """

    name: Name
    first: FileNumber = 0


class CheckModels(Body, frozen=True, tag="check_models"):
    """Which of these ids and aliases name a model of yours?"""

    names: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=MAX_PAGE)]


class WantPart(Body, frozen=True, tag="want_part"):
    """Let me fetch those files of a model that have these hashes, BLAKE3 of the whole file."""

    model: Id
    hashes: Annotated[tuple[Hex64, ...], Meta(min_length=1, max_length=MAX_PART)]


class WatchLibrary(Body, frozen=True, tag="watch_library"):
    """Tell me of every change of your library while this connection lasts."""


# ── replies ──────────────────────────────────────────────────────────────────


class ListedModel(Value, frozen=True):
    """A model as lists show it.

    Attributes:
        id: Its id there.
        alias: Its own name there, or ``alias:type`` in a pair; empty for none.
        name: The run's, cut to 200 characters.
        model_type: The head.
        status: Where it stands.
        source: How it came there.
        created_at: When its record was made.
        completed_at: When training ended well.
        full_hash: Of its recipe.
        package: Id of its content: the same id is the same content, wherever it is.
        size: Bytes of its files there, 0 where it has none.
        files: Number of its files there.
        best_val_loss: The lowest validation loss.
        final_val_loss: That of the last epoch.
        epochs: Whole epochs done.
        tags: Sorted.
        locations: Where else it is: at most 4 places, without paths.
        path: Its directory there; empty where it is too long to be told.
    """

    id: Id
    name: Told
    model_type: ModelType
    status: Status
    source: Source
    created_at: Utc
    alias: Annotated[str, Meta(max_length=MAX_NAME_TOLD)] = ""
    completed_at: Utc | None = None
    full_hash: Hex64 | None = None
    package: Package | None = None
    size: Count = 0
    files: Count = 0
    best_val_loss: float | None = None
    final_val_loss: float | None = None
    epochs: Count | None = None
    tags: Annotated[tuple[Tag, ...], Meta(max_length=100)] = ()
    locations: Annotated[tuple[Location, ...], Meta(max_length=MAX_PLACES)] = ()
    path: PathTold = ""


class ModelsTold(Body, frozen=True, tag="models"):
    """A page of models.

    Attributes:
        models: In the order that was asked for.
        cursor: For the next page, None at the end.
        more: How many follow this page, None if that was not asked.
    """

    models: Annotated[tuple[ListedModel, ...], Meta(max_length=MAX_PAGE)]
    cursor: Cursor | None = None
    more: Count | None = None


class FileTold(Value, frozen=True):
    """A file of a model there: whether it is there, with its size; it was not read."""

    file: ModelFile
    state: FileState


class ModelInfoTold(Body, frozen=True, tag="model_info"):
    """Everything about one model.

    Attributes:
        record: Without its files and its canonical recipe.
        alias: Its own name there, or ``alias:type`` in a pair; empty for none.
        path: Its directory there.
        cut: Whether the record says more than one message can hold.
        size: Bytes of all its files.
        files: Number of all its files.
        first: Number of the first file that is told here.
        told: The files from there on; the rest is asked for by another request.
    """

    record: ModelRecord
    alias: Annotated[str, Meta(max_length=MAX_NAME_TOLD)] = ""
    path: PathTold = ""
    cut: bool = False
    size: Count = 0
    files: FileNumber = 0
    first: FileNumber = 0
    told: Annotated[tuple[FileTold, ...], Meta(max_length=MAX_FILES_TOLD)] = ()


class ModelsChecked(Body, frozen=True, tag="models_checked"):
    """For each name, in their order, whether there is such a model."""

    exist: Annotated[tuple[bool, ...], Meta(max_length=MAX_PAGE)]


class PartTold(Body, frozen=True, tag="part"):
    """Those of the files that are there, as a package that can be fetched from now on."""

    package: PackageRef


# ── notices ──────────────────────────────────────────────────────────────────


class LibraryChanged(Body, frozen=True, tag="library_changed"):
    """These models changed, came or went; none are named where it may be any."""

    models: Annotated[tuple[Id, ...], Meta(max_length=MAX_PAGE)] = ()


# ── records that fit ─────────────────────────────────────────────────────────

_SHORTER: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"locations": ()},
    {"skeleton": ()},
    {"failure": None, "unknown": {}, "interruption": None},
    {"training": Training(), "notes": ""},
)
"""What a record that no message can hold is told without, step by step."""


def fit_record(
    record: ModelRecord, room: int, *, canonical: bool = False
) -> tuple[ModelRecord, bool]:
    """A record without its files, as a message can hold it.

    Args:
        record: Any record.
        room: Bytes that there are for it, at least 4,096.
        canonical: Whether its canonical recipe is told where there is room.

    Returns:
        The record, and whether more of it had to go.
    """
    slim = replace(record, files=())
    if canonical and len(encode(slim)) <= room:
        return slim, False
    slim = replace(slim, canonical=None)
    for number, without in enumerate(_SHORTER):
        slim = replace(slim, **without)
        if len(encode(slim)) <= room:
            return slim, number > 0
    bare = ModelRecord(
        id=record.id,
        name=record.name[:MAX_NAME_TOLD],
        model_type=record.model_type,
        status=record.status,
        source=record.source,
        created_at=record.created_at,
        full_hash=record.full_hash,
        package=record.package,
    )
    return bare, True
