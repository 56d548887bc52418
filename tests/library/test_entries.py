import base64
import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.errors import UsageError
from sleap_rtc.library.entries import Entry, Position, Query, cursor_of, position_of


def test_a_model_is_called_by_its_alias_else_by_its_id(
    record_of: Callable[..., ModelRecord],
) -> None:
    record = record_of()
    entry = Entry(record=record, alias=None, folder="x")
    assert (entry.label, entry.id) == (record.id, record.id)
    assert replace(entry, alias="fly").label == "fly"
    assert entry.directory == Path("x")


@given(
    st.builds(
        Position,
        sort=st.sampled_from(["date", "name", "type", "loss", "size", "rank"]),
        reverse=st.booleans(),
        key=st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | st.text(max_size=80),
        row=st.integers(-(2**63), 2**63 - 1),
    )
)
def test_a_cursor_holds_a_position(position: Position) -> None:
    query = Query(sort=position.sort, reverse=position.reverse, cursor=cursor_of(position))
    assert position_of(query) == position


def test_a_cursor_holds_a_missing_loss() -> None:
    position = Position(sort="loss", reverse=False, key=math.inf, row=1)
    assert position_of(Query(sort="loss", cursor=cursor_of(position))) == position


def test_no_cursor_is_the_beginning() -> None:
    assert position_of(Query()) is None


@pytest.mark.parametrize("cursor", ["", "x", "é", "AAAA", "lKRkYXRl", "=" * 9, "a" * 10_000])
def test_a_cursor_that_is_none_is_refused(cursor: str) -> None:
    with pytest.raises(UsageError, match="not one that a list gave"):
        position_of(Query(cursor=cursor))


@pytest.mark.parametrize("number", [2**63, 2**64 - 1])
def test_a_cursor_with_a_number_that_no_row_has_is_refused(number: int) -> None:
    for key, row in ((number, 1), (1, number)):
        made = base64.urlsafe_b64encode(msgspec.msgpack.encode(("date", False, key, row))).decode()
        with pytest.raises(UsageError, match="not one that a list gave"):
            position_of(Query(cursor=made))


@given(st.text(max_size=40) | st.binary(max_size=30).map(lambda b: b.hex()))
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    with pytest.raises(UsageError):
        position_of(Query(cursor=text))


def test_a_cursor_of_another_sort_is_refused() -> None:
    cursor = cursor_of(Position(sort="date", reverse=False, key=1, row=1))
    for query in (Query(sort="size", cursor=cursor), Query(reverse=True, cursor=cursor)):
        with pytest.raises(UsageError, match="another sort"):
            position_of(query)
