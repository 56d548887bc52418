"""Searches are read, written, and refused where they can't be read."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sleap_rtc.errors import InvalidSearch
from sleap_rtc.library.search.conditions import (
    COMPARED,
    FIELDS,
    Compare,
    Day,
    Is,
    Made,
    Search,
    Text,
    Words,
)
from sleap_rtc.library.search.parser import MAX_CONDITIONS, MAX_LENGTH, form, parse


def words(text: str, *, prefix: bool = False, negated: bool = False) -> Words:
    return Words(Text(text, prefix), negated)


def tagged(*tags: str, negated: bool = False) -> Is:
    return Is("tag", tuple(Text(tag) for tag in tags), negated)


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("", []),
        (" \t\n ", []),
        ("fly", [words("fly", prefix=True)]),
        ("fly ", [words("fly", prefix=True)]),
        ("fly mouse", [words("fly"), words("mouse", prefix=True)]),
        ("fly* mouse", [words("fly", prefix=True), words("mouse", prefix=True)]),
        ("fly tag:old", [words("fly"), tagged("old")]),
        ('"left eye"', [words("left eye")]),
        ('"left ey"*', [words("left ey", prefix=True)]),
        (r'"a \"b\" \\ c"', [words(r'a "b" \ c')]),
        ("fly-run_2", [words("fly-run_2", prefix=True)]),
        ("-old", [words("old", negated=True)]),
        ('-"old one"', [words("old one", negated=True)]),
        ("-tag:old", [tagged("old", negated=True)]),
        ("tag:flies,mice", [tagged("flies", "mice")]),
        ('tag:"left eye",x', [tagged("left eye", "x")]),
        ("TAG:x", [tagged("x")]),
        ("tag:fl*", [Is("tag", (Text("fl", prefix=True),))]),
        ("tag=x", [tagged("x")]),
        ("type:centroid", [Is("type", (Text("centroid"),))]),
        ("status:Completed", [Is("status", (Text("completed"),))]),
        ("where:local", [Is("location", (Text("local"),))]),
        ("backbone:unet", [Is("family", (Text("unet"),))]),
        ("loss<0.01", [Compare("loss", "<", 0.01)]),
        ("loss < 1e-3", [Compare("loss", "<", 0.001)]),
        ("loss:.5", [Compare("loss", "=", 0.5)]),
        ("-loss>=.5", [Compare("loss", ">=", 0.5, negated=True)]),
        ("epochs>=50", [Compare("epochs", ">=", 50)]),
        ("size>100MB", [Compare("size", ">", 100_000_000)]),
        ("size > 1.5 GB fly", [Compare("size", ">", 1_500_000_000), words("fly", prefix=True)]),
        ("size<=2kib", [Compare("size", "<=", 2_048)]),
        ("size>1 XB", [Compare("size", ">", 1), words("XB", prefix=True)]),
        ("size=7", [Compare("size", "=", 7)]),
        ("size<2T", [Compare("size", "<", 2 * 10**12)]),
        ("created>2026-01", [Made("created", ">", Day(2026, 1))]),
        ("date:2026", [Made("created", "=", Day(2026))]),
        ("created<=2024-2-29", [Made("created", "<=", Day(2024, 2, 29))]),
        ("3<4", [words("3<4", prefix=True)]),
        ("Käfig", [words("Käfig", prefix=True)]),
        ("飞", [words("飞", prefix=True)]),
    ],
)
def test_what_a_search_says(text: str, conditions: list[object]) -> None:
    assert parse(text) == Search(conditions=tuple(conditions))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "at", "length", "why"),
    [
        ("typ:centroid", 1, 3, "There is no field 'typ' to search by; did you mean 'type'"),
        ("fly qqq:x", 5, 3, "There is no field 'qqq' to search by"),
        ("lr=0.1", 1, 2, "There is no field 'lr'"),
        ("fly < 3", 1, 3, "There is no field 'fly'"),
        ("status:complete", 8, 8, "'complete' is no status; did you mean 'completed'"),
        ("status:failed,x", 15, 1, "'x' is no status"),
        ("status:fail*", 8, 5, "'fail' is no status"),
        ("tag:", 5, 1, "A value is missing after 'tag:'"),
        ("tag: x", 5, 1, "A value is missing after 'tag:'"),
        ("tag:a,", 7, 1, "A value is missing after ','"),
        ("tag:,a", 5, 1, "A value for tag is missing"),
        ("tag:*", 5, 1, "A value for tag is missing"),
        ("tag>x", 4, 1, "tag can't be compared by '>'"),
        ("loss<", 6, 1, "A value is missing after 'loss<'"),
        ("loss<low", 6, 3, "'low' is not a value for loss"),
        ("loss<1e999", 6, 5, "'1e999' is not a value for loss"),
        ("loss<nan", 6, 3, "'nan' is not a value"),
        ("epochs>2.5", 8, 3, "'2.5' is not a value for epochs"),
        ("size>ib", 6, 2, "'ib' is not a value for size"),
        ("size>99999PB", 6, 7, "'99999PB' is not a value for size"),
        ("created>2026-13", 9, 7, "'2026-13' is not a value for created"),
        ("created>2025-02-29", 9, 10, "'2025-02-29' is not a value"),
        ("created>1066", 9, 4, "'1066' is not a value"),
        ("created>0000", 9, 4, "'0000' is not a value"),
        ("created>soon", 9, 4, "'soon' is not a value"),
        ('fly "left', 5, 1, "The quotation mark is not closed"),
        (r'"a\n"', 4, 1, "Only"),
        ('"a\\', 1, 1, "The quotation mark is not closed"),
        ('fl"y', 3, 1, "A quotation mark inside a word"),
        ('"a"b', 4, 1, "A blank is missing"),
        ("fly - x", 5, 1, "'-' stands before"),
        ("-", 1, 1, "'-' stands before"),
        ("<3", 1, 1, "No field stands before '<'"),
        ("fly :x", 5, 1, "No field stands before ':'"),
        ("fly &", 5, 1, "'&' has neither letters nor digits"),
        ('""', 1, 2, "'' has neither letters nor digits"),
        ("notes:!", 7, 1, "'!' has neither letters nor digits"),
        ("a\0b", 2, 1, "can't be searched for"),
        ("a\x1b[2J", 2, 1, "can't be searched for"),
        ("a\ud800", 2, 1, "can't be searched for"),
        ("x" * (MAX_LENGTH + 1), MAX_LENGTH + 1, 1, "up to 1,000 characters"),
        ("a " * (MAX_CONDITIONS + 1), 2 * MAX_CONDITIONS + 1, 1, "up to 32 conditions"),
        ("tag:" + "a," * 32 + "a", 69, 1, "up to 32 values"),
    ],
)
def test_what_is_refused(text: str, at: int, length: int, why: str) -> None:
    with pytest.raises(InvalidSearch) as caught:
        parse(text)
    details = caught.value.details
    assert why in caught.value.message
    assert (int(details["at"]), int(details["length"])) == (at, length)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("qqq:x", "Fields: name, alias,"),
        ("status:x", "One of training, completed"),
        ("location:x", "One of local, worker, room"),
        ("loss<x", "A number, as"),
        ("size>x", "Bytes, as"),
        ("created>x", "A year, a month"),
        ("epochs>x", "A whole number"),
        ("tag>x", "loss, epochs, size, created can be compared"),
        ("-", "list-models --help"),
    ],
)
def test_the_hint_says_what_there_is(text: str, hint: str) -> None:
    with pytest.raises(InvalidSearch) as caught:
        parse(text)
    assert hint in caught.value.hint_text


PARTS = st.sampled_from(
    [
        *FIELDS,
        *':<>=,-"*\\ &',
        "<=",
        ">=",
        "fly",
        "0.5",
        "12",
        "2026-02",
        "100MB",
        "completed",
        "飞",
    ]
)


@given(st.text(max_size=60) | st.lists(PARTS, max_size=12).map("".join))
@example("A" * MAX_LENGTH)
def test_any_text_is_a_search_or_says_where_it_is_none(text: str) -> None:
    try:
        search = parse(text)
    except InvalidSearch as error:
        at, length = int(error.details["at"]), int(error.details["length"])
        assert 1 <= at <= len(text) + 1
        assert length >= 1
    else:
        assert parse(form(search)) == search


LINE = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=12)
FOUND = st.builds(Text, LINE.filter(lambda t: any(c.isalnum() for c in t)), st.booleans())
HOW = st.sampled_from(["=", "<", "<=", ">", ">="])
DAYS = st.dates(date(1970, 1, 1), date(9998, 12, 31))


def about(kind: str) -> st.SearchStrategy[str]:
    return st.sampled_from([name for name, field in FIELDS.items() if field.kind == kind])


def several(texts: st.SearchStrategy[Text]) -> st.SearchStrategy[tuple[Text, ...]]:
    return st.lists(texts, min_size=1, max_size=3).map(tuple)


CONDITIONS = st.one_of(
    st.builds(Words, FOUND, st.booleans()),
    st.builds(Is, about("words"), several(FOUND), st.booleans()),
    st.builds(Is, about("exact"), several(st.builds(Text, LINE, st.booleans())), st.booleans()),
    about("choice").flatmap(
        lambda name: st.builds(
            Is,
            st.just(name),
            several(st.sampled_from(FIELDS[name].choices).map(Text)),
            st.booleans(),
        )
    ),
    st.builds(
        Compare,
        about("number"),
        HOW,
        st.floats(allow_nan=False, allow_infinity=False),
        st.booleans(),
    ),
    st.builds(Compare, about("count"), HOW, st.integers(0, 10**15 - 1), st.booleans()),
    st.builds(Compare, about("size"), HOW, st.integers(0, 2**53), st.booleans()),
    st.builds(
        Made,
        about("date"),
        HOW,
        DAYS.map(lambda d: Day(d.year, d.month, d.day))
        | DAYS.map(lambda d: Day(d.year, d.month))
        | DAYS.map(lambda d: Day(d.year)),
        st.booleans(),
    ),
)


@given(st.lists(CONDITIONS, max_size=5).map(lambda found: Search(conditions=tuple(found))))
def test_a_search_that_is_written_is_read_as_it_was(search: Search) -> None:
    assert parse(form(search)) == search


def test_every_kind_of_field_is_there() -> None:
    assert {field.kind for field in FIELDS.values()} == {"words", "exact", "choice", *COMPARED}
