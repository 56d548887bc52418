"""STUN: any datagram gets an answer or none, and never a crash."""

from __future__ import annotations

import ipaddress
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.errors import ProtocolError
from sleap_rtc.protocol.stun import MAX_DATAGRAM, answer, make_request, read_response

TRANSACTION = bytes(range(12))
transactions = st.binary(min_size=12, max_size=12)
ports = st.integers(0, 65535)
addresses = st.tuples(st.ip_addresses().map(str), ports)

# RFC 5769, section 2.2 and 2.3: sample responses with their addresses.
SAMPLE_TRANSACTION = bytes.fromhex("b7e7a701bc34d686fa87dfae")


def with_attributes(*attributes: tuple[int, bytes]) -> bytes:
    body = b"".join(
        kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)
        for kind, value in attributes
    )
    return b"\0\1" + len(body).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + TRANSACTION + body


@given(transactions, addresses)
def test_the_address_comes_back(transaction: bytes, source: tuple[str, int]) -> None:
    response = answer(make_request(transaction), source)
    assert response is not None
    assert len(response) <= 52
    ip = ipaddress.ip_address(source[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    assert read_response(response, transaction) == (str(mapped or ip), source[1])


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("002000080001a147e112a643", ("192.0.2.1", 32853)),
        (
            "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9",
            ("2001:db8:1234:5678:11:2233:4455:6677", 32853),
        ),
    ],
)
def test_the_sample_vectors_of_rfc_5769(attribute: str, expected: tuple[str, int]) -> None:
    value = bytes.fromhex(attribute)
    head = b"\1\1" + len(value).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + SAMPLE_TRANSACTION
    assert read_response(head + value, SAMPLE_TRANSACTION) == expected
    # And the same bytes are what we write for that address.
    request = b"\0\1\0\0\x21\x12\xa4\x42" + SAMPLE_TRANSACTION
    assert value in (answer(request, expected) or b"")


@given(st.binary(max_size=MAX_DATAGRAM + 1), addresses)
def test_any_datagram(data: bytes, source: tuple[str, int]) -> None:
    response = answer(data, source)
    assert response is None or len(response) <= max(52, len(data) + 32)


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=40)), max_size=8), addresses)
def test_any_attributes(attributes: list[tuple[int, bytes]], source: tuple[str, int]) -> None:
    response = answer(with_attributes(*attributes), source)
    if response is not None:
        assert len(response) <= 60


@given(st.binary(max_size=100), transactions)
def test_any_response(data: bytes, transaction: bytes) -> None:
    for datagram in (data, b"\1\1\0\x08\x21\x12\xa4\x42" + transaction + data[:8]):
        try:
            read_response(datagram, transaction)
        except ProtocolError:
            continue


@pytest.mark.parametrize("source", [("192.0.2.1", 1), ("2001:db8::1", 1)])
@pytest.mark.parametrize("known", [True, False])
def test_no_request_causes_much_more_than_itself(source: tuple[str, int], known: bool) -> None:
    """A forged source address is good for little."""
    for request in (with_attributes(), with_attributes((0x0006, b"u"))):
        response = answer(request, source)
        assert response is not None
        assert len(response) <= 2.2 * len(request)
        assert b"\x80\x28" not in response
    unknown = [(0x7000 + number, b"") for number in range(1 if known else 8)]
    response = answer(with_attributes(*unknown), source)
    assert response is not None
    assert len(response) <= 2 * len(with_attributes(*unknown))


def test_attributes_that_must_be_understood_are_listed() -> None:
    response = answer(with_attributes((0x0003, bytes(4)), (0x8022, b"x")), ("192.0.2.1", 1))
    assert response is not None
    assert response[:2] == b"\1\x11"
    assert b"\x00\x0a\x00\x02\x00\x03\0\0" in response
    with pytest.raises(ProtocolError, match="420"):
        read_response(response, TRANSACTION)


def test_fingerprints_are_checked() -> None:
    request = bytearray(make_request(TRANSACTION))
    assert answer(bytes(request), ("192.0.2.1", 1)) is not None
    assert zlib.crc32(request[:-8]) ^ 0x5354554E == int.from_bytes(request[-4:], "big")
    request[-1] ^= 1
    assert answer(bytes(request), ("192.0.2.1", 1)) is None
    not_last = with_attributes((0x8028, bytes(4)), (0x8022, b"x"))
    assert answer(not_last, ("192.0.2.1", 1)) is None


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        make_request(TRANSACTION)[:-1],
        b"\x40" + make_request(TRANSACTION)[1:],
        make_request(TRANSACTION).replace(b"\x21\x12", b"\x21\x13"),
        answer(make_request(TRANSACTION), ("192.0.2.1", 1)) or b"",
        with_attributes((0x8022, bytes(1_300))),
    ],
)
def test_what_is_no_request_gets_no_answer(datagram: bytes) -> None:
    assert answer(datagram, ("192.0.2.1", 1)) is None


def test_a_response_to_another_request_is_refused() -> None:
    response = answer(make_request(TRANSACTION), ("192.0.2.1", 1)) or b""
    with pytest.raises(ProtocolError, match="no answer"):
        read_response(response, bytes(12))
    with pytest.raises(ValueError, match="12 bytes"):
        make_request(b"")
