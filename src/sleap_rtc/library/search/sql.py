"""A search as SQL over the index, whose tables ``migrations`` describes.

Words become one full-text expression, so that they are ranked together; every
other condition is an expression over the row ``model``. What a person typed is
only ever a parameter, or stands in a full-text string with its quotes doubled.
"""

from __future__ import annotations

import calendar
from datetime import datetime, timedelta, tzinfo
from typing import Any, Final

import msgspec

from sleap_rtc.library.search.conditions import (
    FIELDS,
    Compare,
    Condition,
    Day,
    Is,
    Made,
    Search,
    Text,
    Words,
)

_COLUMN: Final = {"epochs": "epochs", "loss": "loss", "size": "-size", "type": "type"}
_LAST: Final = "\U0010ffff"
"""Sorts after every beginning of a word."""

LOCATION: Final = {
    "local": "here",
    "worker": "on_worker",
    "room": "in_room",
    "both": "(here AND (on_worker OR in_room))",
    "nowhere": "NOT (here OR on_worker OR in_room)",
}
"""Where files are → an expression over the row ``model``."""


class Filter(msgspec.Struct, frozen=True):
    """Which rows fit.

    Attributes:
        match: A full-text expression that has to match, empty for none.
        clauses: Expressions over the row ``model``, which have to be true.
        given: Their parameters, in order.
    """

    match: str
    clauses: tuple[str, ...]
    given: tuple[Any, ...]


def compile_search(search: Search, *, zone: tzinfo | None = None) -> Filter:
    """Which rows of the index fit a search.

    Args:
        search: The search.
        zone: Days begin and end by its clock; by this machine's unless given.
    """
    matches: list[str] = []
    clauses: list[str] = []
    given: list[Any] = []
    for condition in search.conditions:
        match = _match(condition)
        if match and not condition.negated:
            matches.append(match)
            continue
        if match:
            clause, values = "n IN (SELECT rowid FROM words WHERE words MATCH ?)", [match]
        else:
            clause, values = _clause(condition, zone)
        # What is unknown isn't so: a model without a count of epochs hasn't 50.
        clauses.append(f"NOT ifnull({clause}, 0)" if condition.negated else clause)
        given += values
    return Filter(" AND ".join(matches), tuple(clauses), tuple(given))


def _match(condition: Condition) -> str:
    """The full-text expression of a condition that has one."""
    match condition:
        case Words(text=text):
            return _quoted(text)
        case Is(field=field, texts=texts) if FIELDS[field].kind == "words":
            either = " OR ".join(_quoted(text) for text in texts)
            return f"({{{field}}} : ({either}))"
    return ""


def _quoted(text: Text) -> str:
    inside = text.text.replace('"', '""')
    return f'"{inside}"*' if text.prefix else f'"{inside}"'


def _clause(condition: Condition, zone: tzinfo | None) -> tuple[str, list[Any]]:
    match condition:
        case Compare(field="loss", how=how, number=number):
            return f"(loss {how} ? AND loss < 9e999)", [number]  # infinite is unknown
        case Compare(field=field, how=how, number=number):
            return f"({_COLUMN[field]} {how} ?)", [number]
        case Made(how=how, day=day):
            return _made(how, day, zone)
        case Is(field="location", texts=texts):
            return f"({' OR '.join(LOCATION[text.text] for text in texts)})", []
        case Is(field="tag", texts=texts):
            return _among("n IN (SELECT n FROM tag WHERE {})", "tag", texts)
        case Is(field="at", texts=texts):
            return _among("n IN (SELECT n FROM place WHERE {})", "key", texts)
        case Is(field="id", texts=texts):
            return _among("{}", "id", tuple(Text(text.text, prefix=True) for text in texts))
        case Is(field=field, texts=texts):
            return _among("{}", field, texts)
    raise AssertionError(condition)


def _among(around: str, column: str, texts: tuple[Text, ...]) -> tuple[str, list[Any]]:
    """Whether a column is one of the texts, all casefolded, or begins with one."""
    clauses: list[str] = []
    given: list[Any] = []
    for text in texts:
        value = text.text.casefold()
        if text.prefix:
            clauses.append(f"({column} >= ? AND {column} < ?)")
            given += [value, value + _LAST]
        else:
            clauses.append(f"{column} = ?")
            given.append(value)
    return around.format(f"({' OR '.join(clauses)})"), given


def _made(how: str, day: Day, zone: tzinfo | None) -> tuple[str, list[Any]]:
    start, end = (round(moment.timestamp() * 1e6) for moment in _span(day, zone))
    match how:
        case ">":
            return "(made >= ?)", [end]
        case ">=":
            return "(made >= ?)", [start]
        case "<":
            return "(made < ?)", [start]
        case "<=":
            return "(made < ?)", [end]
    return "(made >= ? AND made < ?)", [start, end]


def _span(day: Day, zone: tzinfo | None) -> tuple[datetime, datetime]:
    """When a year, a month or a day begins, and when the next one does."""
    first = datetime(day.year, day.month or 1, day.day or 1)  # noqa: DTZ001 - the zone comes below
    if day.day:
        after = first + timedelta(days=1)
    elif day.month:
        after = first + timedelta(days=calendar.monthrange(day.year, day.month)[1])
    else:
        after = first.replace(year=day.year + 1)
    if zone is None:
        return first.astimezone(), after.astimezone()
    return first.replace(tzinfo=zone), after.replace(tzinfo=zone)
