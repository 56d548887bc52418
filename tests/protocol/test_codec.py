"""The codec: any bytes give a message or a ProtocolError, and messages come back as they were."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sleap_rtc.errors import ProtocolError
from sleap_rtc.protocol.codec import MAX_MESSAGE, Codec, Message
from sleap_rtc.protocol.signaling import Done, FromDevice, from_device, from_server


class Note(Message, frozen=True, tag="note"):
    text: str = ""


codec = Codec[Note](Note)

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=20,
)


@given(st.binary(max_size=200) | st.text(max_size=200))
@example(b"[" * MAX_MESSAGE)
@example(b'{"type":' * 8_000)
@example(b'{"type":"note","text":' + b"[" * 60_000)
@example('{"type": "note", "text": "\ud800"}')
@example(b'{"type": "note", "text": "\\ud800"}')
@example(b'{"type": {"type": "note"}}')
@example(b"\xff\xfe")
@example(b"1e999")
def test_any_bytes(data: bytes | str) -> None:
    for reader in (codec, from_device, from_server):
        try:
            found = reader.decode(data, peer="a peer")
        except ProtocolError:
            continue
        assert isinstance(found, Message)


@given(st.sampled_from(["note", "sign_in", "relay", "refused", "entered"]), plain)
def test_any_json_under_a_known_type(tag: str, found: object) -> None:
    rest = found if isinstance(found, dict) else {"text": found, "id": found}
    data = json.dumps({**rest, "type": tag})
    for reader in (codec, from_device, from_server):
        try:
            reader.decode(data, peer="a peer")
        except ProtocolError:
            continue


@given(st.text(max_size=100), st.dictionaries(st.text(max_size=5), plain, max_size=3))
def test_unknown_fields_come_back(text: str, extra: dict[str, object]) -> None:
    extra = {f"new {name}": value for name, value in extra.items()}
    data = json.dumps({**extra, "type": "note", "text": text}, allow_nan=True)
    try:
        note = codec.decode(data, peer="a peer")
    except ProtocolError:
        assert "NaN" in data or "Infinity" in data
        return
    assert note.text == text
    assert {**extra, "type": "note"}.items() <= json.loads(codec.encode(note)).items()
    assert codec.decode(codec.encode(note), peer="a peer") == note


def test_sizes_are_bounded_both_ways() -> None:
    long = Note(text="x" * MAX_MESSAGE)
    with pytest.raises(ValueError, match="65536 are allowed"):
        codec.encode(long)
    with pytest.raises(ProtocolError, match="bytes"):
        codec.decode(b" " * (MAX_MESSAGE + 1), peer="a peer")
    room = MAX_MESSAGE - len(codec.encode(Note(text="x"))) + 1
    assert codec.decode(codec.encode(Note(text="x" * room)), peer="a peer").text == "x" * room


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(ProtocolError, match="'shout'"):
        codec.decode(b'{"type": "shout"}', peer="a peer")
    with pytest.raises(ProtocolError, match="unknown type"):
        codec.decode(b"[]", peer="a peer")
    # A message of the other direction is as unknown as any.
    with pytest.raises(ProtocolError, match="'done'"):
        from_device.decode(from_server.encode(Done(id=1)), peer="a peer")


def test_a_wrong_shape_says_where() -> None:
    with pytest.raises(ProtocolError, match=r"\$\.text"):
        codec.decode(b'{"type": "note", "text": 1}', peer="a peer")


def test_every_message_of_a_union_has_its_own_tag() -> None:
    tags = [kind.__struct_config__.tag for kind in FromDevice.__args__]
    assert len(set(tags)) == len(tags)
