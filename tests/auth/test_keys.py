from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.auth.keys import SigningKey, verify
from sleap_rtc.errors import NotTrusted

KEY = SigningKey.from_seed(bytes(range(32)))


def check(
    payload: bytes, signature: bytes, *, public: str | bytes = KEY.device, context: str = "a/b"
) -> None:
    verify(public, context, payload, signature, who="It", why="wrong")


def test_a_signature_is_over_context_and_payload() -> None:
    signature = KEY.sign("a/b", b"payload")
    check(b"payload", signature)
    check(b"payload", signature, public=KEY.public)
    # RFC 8032 leaves no choice: the bytes are the same everywhere.
    assert signature == KEY._private.sign(b"sleap-rtc/a/b\0payload")


@given(st.binary(max_size=200), st.binary(max_size=80))
def test_any_other_signature_is_refused(payload: bytes, signature: bytes) -> None:
    with pytest.raises(NotTrusted, match="It is not trusted: wrong"):
        check(payload, signature)


@given(st.binary(min_size=1, max_size=50), st.integers(0, 63), st.integers(1, 255))
def test_a_changed_bit_anywhere_is_refused(payload: bytes, at: int, change: int) -> None:
    signature = bytearray(KEY.sign("a/b", payload))
    signature[at] ^= change
    with pytest.raises(NotTrusted):
        check(payload, bytes(signature))


def test_another_context_is_refused() -> None:
    with pytest.raises(NotTrusted):
        check(b"payload", KEY.sign("a/b", b"payload"), context="a/c")


def test_context_and_payload_cannot_run_into_each_other() -> None:
    signature = KEY.sign("a", b"b\0payload")
    with pytest.raises(NotTrusted):
        check(b"payload", signature, context="a/b")


@pytest.mark.parametrize("public", ["", "ab", "zz" * 32, "00" * 31, b"", bytes(31), "ff" * 32])
def test_what_is_no_key_is_refused(public: str | bytes) -> None:
    with pytest.raises(NotTrusted):
        check(b"payload", KEY.sign("a/b", b"payload"), public=public)


@pytest.mark.parametrize("context", ["", "A", "a\0b", "a b", "é", "-a", "a" * 65])
def test_a_bad_context_is_a_mistake_of_ours(context: str) -> None:
    with pytest.raises(RuntimeError):
        KEY.sign(context, b"")
    with pytest.raises(RuntimeError):
        check(b"", bytes(64), context=context)


def test_a_device_is_its_public_key_in_hex() -> None:
    assert KEY.device == KEY.public.hex()
    assert len(KEY.device) == 64


def test_the_secret_is_not_shown() -> None:
    shown = f"{KEY!r} {KEY}"
    assert KEY.device in shown
    assert KEY.seed.hex() not in shown
    assert not hasattr(KEY, "__dict__")


def test_a_seed_makes_the_same_key_again() -> None:
    key = SigningKey.generate()
    assert SigningKey.from_seed(key.seed).device == key.device
    assert SigningKey.generate().device != key.device
    with pytest.raises(ValueError, match="32"):
        SigningKey.from_seed(b"short")
