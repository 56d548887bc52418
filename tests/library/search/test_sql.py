"""Searches as SQL: what a person types never is a part of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.errors import InvalidSearch
from sleap_rtc.library.search.conditions import FIELDS
from sleap_rtc.library.search.parser import parse
from sleap_rtc.library.search.sql import compile_search


@pytest.fixture(scope="module")
def db() -> Iterator[sqlite3.Connection]:
    """An empty index."""
    connection = sqlite3.connect(":memory:")
    folder = files("sleap_rtc.library") / "migrations"
    for step in sorted(folder.iterdir(), key=lambda file: file.name):
        connection.executescript(step.read_text("utf-8"))
    yield connection
    connection.close()


def run(db: sqlite3.Connection, text: str) -> list[tuple[int]]:
    found = compile_search(parse(text))
    given_ = list(found.given)
    clauses = list(found.clauses)
    if found.match:
        clauses.insert(0, "n IN (SELECT rowid FROM words WHERE words MATCH ?)")
        given_.insert(0, found.match)
    return db.execute(
        f"SELECT n FROM model WHERE {' AND '.join(clauses) or '1'}", given_
    ).fetchall()


PARTS = st.sampled_from(
    [
        *(f"{name}:" for name in FIELDS),
        *"\":<>=,-*\\ ()^+{}'%_",
        "AND ",
        "OR ",
        "NEAR",
        "fly",
        "0.5",
    ]
)


@given(st.text(max_size=40) | st.lists(PARTS, max_size=12).map("".join))
def test_any_search_runs(db: sqlite3.Connection, text: str) -> None:
    try:
        parse(text)
    except InvalidSearch:
        return
    assert run(db, text) == []


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("sign", ["", "-"])
def test_every_field_runs(db: sqlite3.Connection, name: str, sign: str) -> None:
    field = FIELDS[name]
    value = {"number": "0.5", "count": "5", "size": "5MB", "date": "2026-03"}.get(
        field.kind, field.choices[0] if field.choices else "fly"
    )
    assert run(db, f"{sign}{name}:{value}") == []


def test_words_are_one_expression_and_values_are_parameters() -> None:
    found = compile_search(
        parse('fly "a b" notes:x,"y ""z" -old type:c* tag:Big'.replace('""', '\\"'))
    )
    assert found.match == '"fly" AND "a b" AND ({notes} : ("x" OR "y ""z"))'
    assert found.clauses == (
        "NOT ifnull(n IN (SELECT rowid FROM words WHERE words MATCH ?), 0)",
        "((type >= ? AND type < ?))",
        "n IN (SELECT n FROM tag WHERE (tag = ?))",
    )
    assert found.given == ('"old"', "c", "c\U0010ffff", "big")


@pytest.mark.parametrize(
    ("text", "first", "after"),
    [
        ("created:2026", (2026, 1, 1), (2027, 1, 1)),
        ("created:2026-02", (2026, 2, 1), (2026, 3, 1)),
        ("created:2024-02-29", (2024, 2, 29), (2024, 3, 1)),
        ("created:2026-12-31", (2026, 12, 31), (2027, 1, 1)),
    ],
)
def test_days_begin_and_end_by_a_clock(
    text: str, first: tuple[int, int, int], after: tuple[int, int, int]
) -> None:
    zone = timezone(timedelta(hours=-5))
    found = compile_search(parse(text), zone=zone)
    moments = [datetime(*day, 5, tzinfo=UTC) for day in (first, after)]
    assert found.given == tuple(round(moment.timestamp() * 1e6) for moment in moments)


@pytest.mark.parametrize(
    ("how", "clause", "edge"),
    [
        (">", "(made >= ?)", 2027),
        (">=", "(made >= ?)", 2026),
        ("<", "(made < ?)", 2026),
        ("<=", "(made < ?)", 2027),
    ],
)
def test_after_a_year_is_after_its_end(how: str, clause: str, edge: int) -> None:
    found = compile_search(parse(f"created{how}2026"), zone=UTC)
    assert found.clauses == (clause,)
    assert found.given == (round(datetime(edge, 1, 1, tzinfo=UTC).timestamp() * 1e6),)
