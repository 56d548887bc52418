"""What a registry answers with, and how it is asked for lists."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sleap_rtc.domain.ids import ModelId
from sleap_rtc.domain.models import ModelRecord, Source, Status
from sleap_rtc.errors import UsageError

Sort = Literal["date", "name", "type", "loss", "size", "rank"]
SortedBy = Sort | Literal["field"]
"""What a list is sorted by: of many models that fit words, it is where the words are."""
Where = Literal["any", "local", "worker", "room", "both"]

MAX_LIMIT = 1_000
NOT_OURS = "the cursor is not one that a list gave"

_IN_A_ROW = Meta(ge=-(2**63), le=2**63 - 1)
"""SQLite's integers. A cursor may come from anywhere."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A model in a library. It holds no loops, so the garbage collector leaves it alone.

    Attributes:
        record: What is known of it.
        alias: Its own name, else its name in a pair (``fly:centroid``), else None.
        folder: Where its files are, as text: of a page's paths hardly any is asked for, and making
            them took a fifth of its time.
    """

    record: ModelRecord
    alias: str | None
    folder: str

    @property
    def directory(self) -> Path:
        """Where its files are."""
        return Path(self.folder)

    @property
    def id(self) -> ModelId:
        """The model's id."""
        return self.record.id

    @property
    def label(self) -> str:
        """What people call it: its alias, else its id."""
        return self.alias or self.record.id


class Group(msgspec.Struct, frozen=True):
    """The models that one alias names together: a top-down pair.

    Attributes:
        alias: The alias.
        entries: The models, in the order in which they run.
    """

    alias: str
    entries: tuple[Entry, ...]


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which models to list, and how. An empty filter lets everything through.

    Types, tags and names of places are compared whatever their case.

    Attributes:
        statuses: One of these.
        types: One of these model types.
        sources: One of these.
        tags: All of these.
        where: ``local``: the files are here; ``worker``, ``room``: a worker or room has it;
            ``both``: here and elsewhere.
        at: Name of a worker or room that has it.
        text: What a person types into a search box, as `search.parser` reads it.
        sort: ``date`` newest first, ``name`` and ``type`` from A, ``loss`` lowest first (models
            without one last), ``size`` largest first, ``rank`` what fits the text's words best
            first; then by date, newest first.
        reverse: The other way round.
        limit: Models per page, 1 to 1,000.
        cursor: From the page before, with the same sort.
    """

    statuses: tuple[Status, ...] = ()
    types: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    tags: tuple[str, ...] = ()
    where: Where = "any"
    at: str | None = None
    text: str = ""
    sort: Sort = "date"
    reverse: bool = False
    limit: int = 50
    cursor: str | None = None


class Page(msgspec.Struct, frozen=True):
    """One page of a list.

    Attributes:
        entries: The models.
        cursor: For the next page, None at the end.
    """

    entries: tuple[Entry, ...]
    cursor: str | None


class Position(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a cursor holds: the sort, and the sort keys of the last model on the page.

    Attributes:
        sort: What it was sorted by; by rank, of many models, it is by the field of the words.
        reverse: The other way round.
        key: The last model's.
        row: Its row, which decides among equal keys.
    """

    sort: SortedBy
    reverse: bool
    key: Annotated[int, _IN_A_ROW] | float | str
    row: Annotated[int, _IN_A_ROW]


def cursor_of(position: Position) -> str:
    """A position as text that nobody needs to understand."""
    # MessagePack, since JSON has no infinity, which stands for a missing loss.
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(position)).decode("ascii")


def position_of(query: Query) -> Position | None:
    """Where a query goes on, None from the beginning.

    Raises:
        UsageError: The cursor is no cursor, or of another sort.
    """
    if query.cursor is None:
        return None
    try:
        raw = base64.b64decode(query.cursor.encode("ascii"), altchars=b"-_", validate=True)
        position = msgspec.msgpack.decode(raw, type=Position)
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise UsageError(message=NOT_OURS) from None
    sorts = ("rank", "field", "date") if query.sort == "rank" else (query.sort,)
    if position.sort not in sorts or position.reverse != query.reverse:
        raise UsageError(message="the cursor belongs to a list with another sort")
    return position
