from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.domain.values import to_plain
from sleap_rtc.errors import ProtocolError
from sleap_rtc.protocol.handshake import (
    HandshakeMessage,
    Hello,
    MembershipOffer,
    Proof,
    Refusal,
    handshake_codec,
)
from sleap_rtc.protocol.signed import Signed, SignedMembership

LINK = Signed(
    context="certificate/owner", payload=b"{}", signer="ab" * 32, signature=bytes(range(64))
)
HELLO = Hello(
    device="ab" * 32,
    chain=(LINK, LINK),
    side="offerer",
    room="a" * 32,
    session="0190a1b2-0000-7000-8000-000000000000",
    purpose="control",
    nonce=bytes(32),
    versions=(1, 2),
    features=("a", "b-c"),
    membership=3,
    membership_digest=bytes([1]) * 32,
)
EXAMPLES: list[HandshakeMessage] = [
    HELLO,
    MembershipOffer(membership=SignedMembership(signed=LINK, chain=(LINK,))),
    Proof(signature=bytes(64)),
    Refusal(code="not_trusted", why="No."),
]


def decode(data: bytes) -> HandshakeMessage:
    return handshake_codec.decode(data, peer="the other side")


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_round_trip(message: HandshakeMessage) -> None:
    assert decode(handshake_codec.encode(message)) == message


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_fields_of_a_later_version_are_kept(message: HandshakeMessage) -> None:
    later = msgspec.structs.replace(message, unknown={"colour": {"unknown": [1]}})
    assert decode(handshake_codec.encode(later)) == later


def test_the_types_are_the_documented_ones() -> None:
    tags = [type(message).__struct_config__.tag for message in EXAMPLES]
    assert tags == ["hello", "membership", "proof", "refusal"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device", "AB" * 32),
        ("device", "ab" * 31),
        ("device", "ab" * 32 + "\n"),
        ("chain", []),
        ("chain", [to_plain(LINK)] * 5),
        ("side", "server"),
        ("room", "a" * 33),
        ("room", "1" * 32),
        ("session", ""),
        ("session", "a b"),
        ("session", "x" * 65),
        ("purpose", "signaling"),
        ("nonce", "AAAA"),
        ("nonce", "not base64!"),
        ("versions", []),
        ("versions", [0]),
        ("versions", [70_000]),
        ("versions", [1] * 17),
        ("features", ["A"]),
        ("features", ["a"] * 33),
        ("features", ["a\n"]),
        ("membership", -1),
        ("membership", 2**60),
        ("membership", 1.5),
        ("membership_digest", ""),
        ("handshake", 0),
    ],
)
def test_every_field_of_a_hello_is_bounded(field: str, value: Any) -> None:
    plain = to_plain(HELLO) | {field: value}
    with pytest.raises(ProtocolError):
        decode(msgspec.json.encode(plain))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("context", "Certificate"),
        ("context", ""),
        ("payload", "A" * 44_000),
        ("signer", "zz"),
        ("signature", "AAAA"),
        ("format", 2),
    ],
)
def test_every_field_of_a_link_is_bounded(field: str, value: str) -> None:
    plain = to_plain(HELLO) | {"chain": [to_plain(LINK) | {field: value}]}
    with pytest.raises(ProtocolError):
        decode(msgspec.json.encode(plain))


@pytest.mark.parametrize("missing", ["device", "chain", "side", "room", "session", "nonce"])
def test_nothing_can_be_left_out(missing: str) -> None:
    plain = to_plain(HELLO)
    del plain[missing]
    with pytest.raises(ProtocolError):
        decode(msgspec.json.encode(plain))


@pytest.mark.parametrize("kind", ["ping", "request", "relay", "", "Hello"])
def test_other_messages_are_refused(kind: str) -> None:
    with pytest.raises(ProtocolError, match="unknown type"):
        decode(msgspec.json.encode({"type": kind}))


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(data)


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.sampled_from(EXAMPLES), st.data())
def test_any_json_in_any_field_is_refused_or_read(message: HandshakeMessage, data: Any) -> None:
    plain = to_plain(message)
    field = data.draw(st.sampled_from(sorted(plain)))
    plain[field] = data.draw(plain_values)
    try:
        found = decode(msgspec.json.encode(plain))
    except ProtocolError:
        return
    assert decode(handshake_codec.encode(found)) == found
