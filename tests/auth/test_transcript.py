from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.auth.transcript import CONTEXTS, Party, Transcript
from sleap_rtc.domain.ids import DeviceId, RoomId

ONE = Party(
    device=DeviceId("11" * 32), nonce=b"n" * 32, fingerprint=b"f" * 32, versions=(1, 2), features=()
)
OTHER = Party(
    device=DeviceId("22" * 32),
    nonce=b"m" * 32,
    fingerprint=b"g" * 32,
    versions=(1,),
    features=("a", "b"),
    name="gpu-1",
)
BASE = Transcript(
    room=RoomId("a" * 32),
    offerer=ONE,
    answerer=OTHER,
    version=1,
    features=("a",),
    membership=7,
    membership_digest=b"d" * 32,
    session="s-1",
    purpose="control",
)

CHANGES: list[dict[str, Any]] = [
    {"room": "b" * 32},
    {"offerer": OTHER, "answerer": ONE},
    {"version": 2},
    {"features": ()},
    {"features": ("b",)},
    {"membership": 8},
    {"membership_digest": b"e" * 32},
    {"session": "s-2"},
    {"purpose": "blocks"},
    *[
        {side: msgspec.structs.replace(party, **change)}
        for side, party in (("offerer", ONE), ("answerer", OTHER))
        for change in (
            {"device": "33" * 32},
            {"nonce": b"x" * 32},
            {"fingerprint": b"x" * 32},
            {"versions": (1, 2, 3)},
            {"versions": (12,)},
            {"features": ("ab",)},
            {"features": ("a", "b", "c")},
            {"name": "gpu-9"},
        )
    ],
]


@pytest.mark.parametrize("change", CHANGES)
def test_everything_is_signed(change: dict[str, Any]) -> None:
    changed = msgspec.structs.replace(BASE, **change)
    for side in CONTEXTS:
        assert changed.signed_by(side) != BASE.signed_by(side)


def test_the_sides_never_sign_the_same() -> None:
    assert BASE.signed_by("offerer") != BASE.signed_by("answerer")
    assert len(set(CONTEXTS.values())) == 2


def read(data: bytes) -> list[bytes]:
    """The fields, by the rules on the module's page."""
    fields = []
    while data:
        length = int.from_bytes(data[:4], "big")
        fields.append(data[4 : 4 + length])
        assert len(fields[-1]) == length
        data = data[4 + length :]
    return fields


def test_the_layout_is_the_documented_one() -> None:
    def number(value: int) -> bytes:
        return value.to_bytes(8, "big")

    def listing(*items: bytes) -> bytes:
        body = b"".join(len(item).to_bytes(4, "big") + item for item in items)
        return len(items).to_bytes(4, "big") + body

    assert read(BASE.signed_by("answerer")) == [
        b"sleap-rtc-link",
        number(1),
        b"answerer",
        b"a" * 32,
        b"\x11" * 32,
        b"\x22" * 32,
        b"n" * 32,
        b"m" * 32,
        b"f" * 32,
        b"g" * 32,
        listing(number(1), number(2)),
        listing(number(1)),
        listing(),
        listing(b"a", b"b"),
        b"",
        b"gpu-1",
        number(1),
        listing(b"a"),
        number(7),
        b"d" * 32,
        b"s-1",
        b"control",
    ]


words = st.text(alphabet="ab-", max_size=4)


@given(
    st.tuples(words, st.lists(words, max_size=3), st.lists(words, max_size=3)),
    st.tuples(words, st.lists(words, max_size=3), st.lists(words, max_size=3)),
)
def test_different_connections_never_have_the_same_bytes(left: Any, right: Any) -> None:
    def of(parts: Any) -> bytes:
        session, ours, chosen = parts
        offerer = msgspec.structs.replace(ONE, features=tuple(ours))
        return msgspec.structs.replace(
            BASE, session=session, offerer=offerer, features=tuple(chosen)
        ).signed_by("offerer")

    assert (of(left) == of(right)) == (left == right)
