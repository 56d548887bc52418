from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.auth.signed import chain_from_texts, chain_to_texts, open_signed, seal
from sleap_rtc.domain.values import Document, decode, encode
from sleap_rtc.errors import DataError, NewerFormat, NotTrusted, SleapRtcError
from sleap_rtc.protocol.signed import MAX_PAYLOAD, Signed

KEY = SigningKey.from_seed(bytes(32))


class Note(Document, frozen=True):
    text: str


def opened(signed: Signed, context: str = "note") -> Note:
    return open_signed(signed, Note, context, who="It", what="the note")


def sealed(payload: bytes) -> Signed:
    return Signed(
        context="note", payload=payload, signer=KEY.device, signature=KEY.sign("note", payload)
    )


@given(st.text(max_size=100))
def test_round_trip(text: str) -> None:
    note = Note(text=text)
    made = seal(KEY, "note", note, what="the note")
    assert opened(decode(Signed, encode(made), what="x")) == note


def test_bytes_are_checked_as_they_were_signed() -> None:
    payload = b'{ "later" : [1],\n  "text":"t", "format":"1.7" }'
    assert opened(sealed(payload)) == Note(text="t", format="1.7", unknown={"later": [1]})


@pytest.mark.parametrize("field", ["payload", "signature", "signer", "context"])
def test_a_change_is_refused(field: str) -> None:
    made = seal(KEY, "note", Note(text="t"), what="the note")
    other = {
        "payload": made.payload.replace(b"t", b"u"),
        "signature": bytes(64),
        "signer": SigningKey.from_seed(bytes([1]) * 32).device,
        "context": "letter",
    }[field]
    with pytest.raises(NotTrusted):
        opened(msgspec.structs.replace(made, **{field: other}))


def test_a_label_alone_does_not_make_another_kind() -> None:
    made = msgspec.structs.replace(seal(KEY, "note", Note(text="t"), what="n"), context="letter")
    with pytest.raises(NotTrusted):
        opened(made, "letter")


def test_what_is_signed_must_be_of_the_kind() -> None:
    with pytest.raises(DataError):
        opened(sealed(b"[]"))
    with pytest.raises(NewerFormat):
        opened(sealed(b'{"format":"2.0","text":"t"}'))


def test_the_signature_is_checked_before_anything_is_read() -> None:
    made = msgspec.structs.replace(sealed(b"not json"), signature=bytes(64))
    with pytest.raises(NotTrusted):
        opened(made)


def test_too_much_is_not_signed() -> None:
    with pytest.raises(DataError, match="can be signed"):
        seal(KEY, "note", Note(text="x" * MAX_PAYLOAD), what="the note")


def test_a_chain_as_texts() -> None:
    chain = (sealed(b"1"), sealed(b"2"))
    assert chain_from_texts(chain_to_texts(chain)) == chain


@given(st.lists(st.text(max_size=60) | st.just('{"context":"a"}'), max_size=6))
def test_any_texts_are_a_chain_or_an_error(texts: list[str]) -> None:
    with pytest.raises(SleapRtcError):
        chain_from_texts(texts)


@pytest.mark.parametrize("count", [0, 5])
def test_a_chain_has_one_to_four_links(count: int) -> None:
    with pytest.raises(DataError, match="links"):
        chain_from_texts(chain_to_texts((sealed(b"1"),) * count))


def test_a_long_link_is_refused() -> None:
    with pytest.raises(DataError, match="bytes"):
        chain_from_texts([" " * 50_000])
