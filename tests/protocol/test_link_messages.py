"""Link messages: every one of them comes back, as does what a later version adds to it.

The values are made from the declarations themselves, bounds included, so a
message that is added is tested here without a word.
"""

from __future__ import annotations

import json
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from sleap_rtc.domain.ids import JobId
from sleap_rtc.domain.values import Document, Value, to_plain
from sleap_rtc.errors import ProtocolError
from sleap_rtc.protocol import link
from sleap_rtc.protocol.codec import MAX_MESSAGE
from sleap_rtc.protocol.link import FindModel, Frame, JobsTold, Notice, Reply, Request, frames
from sleap_rtc.testing.made_room import NOON

LATER = "a later version's"
SHORT = 3
"""Items of the longest list that is made; the bounds of lists have a test of their own."""


def _numbers(kind: inspect.IntType | inspect.FloatType, least: float, most: float) -> Any:
    low = least if kind.ge is None else kind.ge
    high = most if kind.le is None else kind.le
    if isinstance(kind, inspect.IntType):
        low = low if kind.gt is None else kind.gt + 1
        high = high if kind.lt is None else kind.lt - 1
        return st.integers(int(low), int(high))
    return st.floats(
        low if kind.gt is None else kind.gt,
        high,
        exclude_min=kind.gt is not None,
        allow_nan=False,
        allow_infinity=False,
    )


def _items(kind: inspect.VarTupleType | inspect.DictType) -> dict[str, int]:
    low = kind.min_length or 0
    return {"min_size": low, "max_size": max(low, min(SHORT, kind.max_length or SHORT))}


def values_of(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Everything that the declared type allows, made of plain values."""
    match kind:
        case inspect.StructType():
            given = {f.encode_name: f for f in kind.fields if f.name != "unknown"}
            needed = {name: values_of(f.type) for name, f in given.items() if f.required}
            rest = {name: values_of(f.type) for name, f in given.items() if not f.required}
            if issubclass(get_origin(kind.cls) or kind.cls, Document):
                rest["format"] = st.from_regex(r"\A1\.[0-9]{1,3}\Z")
            made = st.fixed_dictionaries(needed, optional=rest | {LATER: st.integers(0, 9)})
            if kind.tag_field is None:
                return made
            tag = {kind.tag_field: kind.tag}
            return made.map(lambda fields: tag | fields)
        case inspect.UnionType():
            return st.one_of(*(values_of(each) for each in kind.types))
        case inspect.VarTupleType():
            return st.lists(values_of(kind.item_type), **_items(kind))
        case inspect.TupleType():
            return st.tuples(*(values_of(each) for each in kind.item_types)).map(list)
        case inspect.DictType():
            return st.dictionaries(
                values_of(kind.key_type), values_of(kind.value_type), **_items(kind)
            )
    return scalars_of(kind)


def scalars_of(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """What is neither made of parts nor a choice."""
    match kind:
        case inspect.IntType():
            return _numbers(kind, -(2**53), 2**53)
        case inspect.FloatType():
            return _numbers(kind, -1e300, 1e300)
        case inspect.StrType(pattern=str() as pattern):
            return st.from_regex(pattern)
        case inspect.StrType():
            return st.text(min_size=kind.min_length or 0, max_size=min(40, kind.max_length or 40))
        case inspect.LiteralType():
            return st.sampled_from(kind.values)
        case inspect.DateTimeType():
            return st.datetimes().map(lambda at: at.isoformat() + "Z")
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.AnyType():
            return st.none() | st.integers(0, 9) | st.text(max_size=9)
    raise AssertionError(f"{kind} can't be made yet")


MESSAGES = values_of(inspect.type_info(Frame))
BODIES = tuple(
    body for union in (link.AnyRequest, link.AnyReply, link.NoticeBody) for body in get_args(union)
)
"""What requests, replies and notices carry."""


def later_fields(plain: Any, at: str = "") -> set[str]:
    """Where in a message the fields of a later version are."""
    if isinstance(plain, list):
        return {p for n, item in enumerate(plain) for p in later_fields(item, f"{at}[{n}]")}
    if not isinstance(plain, dict):
        return set()
    found = {p for name, item in plain.items() for p in later_fields(item, f"{at}.{name}")}
    return found | {f"{at}.{LATER}={plain[LATER]}"} if LATER in plain else found


@given(MESSAGES)
def test_any_message_comes_back_with_what_is_new_in_it(plain: dict[str, Any]) -> None:
    message = frames.decode(json.dumps(plain), peer="a peer")
    raw = frames.encode(message)
    assert frames.decode(raw, peer="a peer") == message
    assert later_fields(json.loads(raw)) == later_fields(plain)


@pytest.mark.parametrize("body", BODIES)
@given(st.data())
@settings(max_examples=20)
def test_every_body_comes_back(body: type[Value], data: st.DataObject) -> None:
    plain = data.draw(values_of(inspect.type_info(body)))
    if body in get_args(link.AnyRequest):
        frame = {"type": "request", "id": "a", "within_s": 1, "body": plain}
    elif body in get_args(link.AnyReply):
        frame = {"type": "reply", "id": "a", "body": plain}
    else:
        frame = {"type": "notice", "body": plain}
    message = frames.decode(json.dumps(frame), peer="a peer")
    assert isinstance(message, Request | Reply | Notice)
    assert type(message.body) is body
    assert frames.decode(frames.encode(message), peer="a peer") == message


def test_every_body_and_frame_has_its_own_tag() -> None:
    for kinds in (BODIES, get_args(Frame)):
        tags = [kind.__struct_config__.tag for kind in kinds]
        assert len(set(tags)) == len(tags)


@given(st.recursive(st.none() | st.text() | st.floats(), st.lists) | st.binary().map(str))
def test_no_body_is_believed(junk: Any) -> None:
    for tag in ("request", "reply", "notice", "failure"):
        plain = {"type": tag, "id": "a", "within_s": 1, "code": "c", "message": "m", "body": junk}
        try:
            message = frames.decode(json.dumps(plain), peer="a peer")
        except ProtocolError:
            continue
        assert isinstance(message, link.Failure)


@pytest.mark.parametrize(
    ("frame", "name"),
    [
        ({"type": "request", "id": "", "within_s": 1, "body": {"op": "describe"}}, "id"),
        ({"type": "request", "id": "a", "within_s": 0, "body": {"op": "describe"}}, "within_s"),
        ({"type": "request", "id": "a", "within_s": 4e3, "body": {"op": "describe"}}, "within_s"),
        (
            {
                "type": "request",
                "id": "a",
                "within_s": 1,
                "body": {"op": "list_jobs", "limit": 101},
            },
            "limit",
        ),
        (
            {
                "type": "request",
                "id": "a",
                "within_s": 1,
                "body": {"op": "follow_job", "job": "x" * 36},
            },
            "job",
        ),
        (
            {"type": "request", "id": "a", "within_s": 1, "body": {"op": "find_model", "name": ""}},
            "name",
        ),
        ({"type": "ping", "n": -1}, "n"),
        ({"type": "failure", "id": "a", "code": "c" * 65, "message": ""}, "code"),
        ({"type": "bye", "reason": "x" * 1_001}, "reason"),
    ],
)
def test_bounds_hold(frame: dict[str, Any], name: str) -> None:
    with pytest.raises(ProtocolError, match=rf"\.{name}"):
        frames.decode(json.dumps(frame), peer="a peer")


def test_an_unknown_body_is_no_other_body() -> None:
    raw = b'{"type": "request", "id": "a", "within_s": 1, "body": {"op": "format_disk"}}'
    with pytest.raises(ProtocolError, match="format_disk"):
        frames.decode(raw, peer="a peer")


def test_a_message_of_64_kib_is_the_largest() -> None:
    def of(size: int) -> bytes:
        bare = len(frames.encode(Request(id="a", within_s=1.5, body=FindModel(name="x"))))
        # A field of a later version is what can be of any size.
        pad = {"pad": "x" * (size - bare - len(',"pad":""'))}
        asked = Request(id="a", within_s=1.5, body=FindModel(name="x"), unknown=pad)
        return json.dumps(to_plain(asked), separators=(",", ":")).encode()

    largest = of(MAX_MESSAGE)
    assert len(largest) == MAX_MESSAGE
    assert frames.encode(frames.decode(largest, peer="a peer")) == largest
    with pytest.raises(ProtocolError, match="65537 bytes"):
        frames.decode(of(MAX_MESSAGE + 1), peer="a peer")
    with pytest.raises(ValueError, match="65536 are allowed"):
        frames.encode(Request(id="a", within_s=1, body=FindModel(name="x" * MAX_MESSAGE)))


def test_a_list_of_jobs_fits_a_message() -> None:
    # `list_jobs` asks for up to 100; at their usual size that many have to fit.
    job = link.JobSummary(
        id=JobId("01977f00-0000-7000-8000-000000000000"),
        name="two-mice.pkg.slp, a name of usual length",
        kind="train",
        engine="sleap-nn",
        state="interrupted",
        submitted_at=NOON,
        last_event=99_999,
        mine=True,
    )
    frames.encode(Reply(id="a" * 36, body=JobsTold(jobs=(job,) * 100)))
