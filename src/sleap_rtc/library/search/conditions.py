"""What a search says: conditions that a model has to meet, all of them.

==================  ======================  =============================================
typed               value                   a model fits when
==================  ======================  =============================================
``fly mouse``       two :class:`Words`      each is in its words, the last as a beginning
``"left eye"``      :class:`Words`          the words stand side by side
``tag:flies,mice``  :class:`Is`             it has one of the tags
``loss<0.01``       :class:`Compare`        it has a loss, and that is lower
``created>2026-01`` :class:`Made`           it was made after January 2026
``-tag:old``        ``negated``             it doesn't fit the rest
==================  ======================  =============================================
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from sleap_rtc.domain.models import SOURCES, STATUSES

Comparison = Literal["=", "<", "<=", ">", ">="]
Kind = Literal["words", "exact", "choice", "number", "count", "size", "date"]

COMPARED: Final = frozenset({"number", "count", "size", "date"})
"""Kinds of field that ``<`` and ``>`` are for."""


class Field(msgspec.Struct, frozen=True):
    """Something of a model that a search can name.

    Attributes:
        kind: ``words``: some of its words; ``exact``: the whole value, whatever its case, or with
            ``*`` its beginning; ``choice``: one of a few; the others are compared.
        help: What it is.
        choices: What a choice is made from.
    """

    kind: Kind
    help: str
    choices: tuple[str, ...] = ()


PLACES: Final = ("local", "worker", "room", "both", "nowhere")

FIELDS: Final[dict[str, Field]] = {
    "name": Field("words", "the run's name"),
    "alias": Field("words", "what people call it"),
    "notes": Field("words", "its notes"),
    "family": Field("words", "its backbone, as unet"),
    "config": Field("words", "its hyperparameters, points, labels, engine and device"),
    "id": Field("exact", "its id, or the beginning of it"),
    "type": Field("exact", "its head, as centroid"),
    "tag": Field("exact", "one of its tags"),
    "at": Field("exact", "a worker or a room that has it"),
    "parent": Field("exact", "the id of the model that it was made from"),
    "status": Field("choice", "where it stands", STATUSES),
    "source": Field("choice", "how it came here", SOURCES),
    "location": Field("choice", "where its files are", PLACES),
    "loss": Field("number", "its best validation loss"),
    "epochs": Field("count", "whole epochs done"),
    "size": Field("size", "bytes of its files, as 100MB"),
    "created": Field("date", "when it was made, as 2026, 2026-03 or 2026-03-01, by this clock"),
}
"""Name → field."""

SYNONYMS: Final = {"backbone": "family", "date": "created", "where": "location"}
"""What people write instead."""


class Text(msgspec.Struct, frozen=True):
    """Words to find.

    Attributes:
        text: At least one letter or digit, where words are looked for.
        prefix: Whether what stands there may go on after it.
    """

    text: str
    prefix: bool = False


class Words(msgspec.Struct, frozen=True):
    """Words that are anywhere in what is known of a model, side by side."""

    text: Text
    negated: bool = False


class Is(msgspec.Struct, frozen=True):
    """A field is, or has in it, one of these."""

    field: str
    texts: tuple[Text, ...]
    negated: bool = False


class Compare(msgspec.Struct, frozen=True):
    """A number compares so; a model without it doesn't fit."""

    field: str
    how: Comparison
    number: int | float
    negated: bool = False


class Day(msgspec.Struct, frozen=True):
    """A year, a month, or a day."""

    year: int
    month: int | None = None
    day: int | None = None

    def __str__(self) -> str:
        parts = (f"{self.year:04d}", *(f"{part:02d}" for part in (self.month, self.day) if part))
        return "-".join(parts)


class Made(msgspec.Struct, frozen=True):
    """It was made in, before or after a day, month or year."""

    field: str
    how: Comparison
    day: Day
    negated: bool = False


Condition = Words | Is | Compare | Made


class Search(msgspec.Struct, frozen=True):
    """All conditions of a search; without any, every model fits."""

    conditions: tuple[Condition, ...] = ()

    @property
    def has_words(self) -> bool:
        """Whether models fit it more or less well, and can be ranked."""
        return any(
            not condition.negated
            and (
                isinstance(condition, Words)
                or (isinstance(condition, Is) and FIELDS[condition.field].kind == "words")
            )
            for condition in self.conditions
        )
