"""STUN binding (RFC 8489): a device asks which address it is seen to come from.

::

     0                   1                   2                   3
    |0 0|      message type         |       length of the rest      |
    |                    magic cookie 0x2112A442                    |
    |                 transaction id, 12 bytes                      |
    |  attribute type               |  its length                   |  any number,
    |  value, padded to 4 bytes …                                   |  FINGERPRINT last

A request without authentication is answered with XOR-MAPPED-ADDRESS, and with
FINGERPRINT if it has one itself; one with attributes that must be understood and aren't, with error
420 that lists them. Everything else gets no answer at all, as the RFC wants:
whoever sends garbage under somebody else's address causes no traffic to it. An
answer is never longer than 56 bytes, and never more than 2.2 times its request.
"""

from __future__ import annotations

import ipaddress
import struct
import zlib
from typing import Final

import msgspec

from sleap_rtc.errors import ProtocolError

DEFAULT_PORT: Final = 3478
TRANSACTION: Final = 12
"""Bytes of a transaction id."""
MAX_DATAGRAM: Final = 1_280
"""Bytes of the longest request that is read: what fits every IPv6 link unfragmented."""

_COOKIE: Final = 0x2112A442
_COOKIE_BYTES: Final = _COOKIE.to_bytes(4, "big")
_HEADER: Final = struct.Struct("!HHI12s")
_ATTRIBUTE: Final = struct.Struct("!HH")

_REQUEST, _SUCCESS, _ERROR = 0x0001, 0x0101, 0x0111
_ERROR_CODE, _UNKNOWN_ATTRIBUTES, _XOR_MAPPED_ADDRESS = 0x0009, 0x000A, 0x0020
_FINGERPRINT: Final = 0x8028
_FINGERPRINT_XOR: Final = 0x5354554E
_KNOWN: Final = frozenset(
    # What a request may carry and a server without authentication passes over.
    {0x0001, 0x0006, 0x0008, 0x0009, 0x000A, 0x0014, 0x0015, 0x001C, 0x001D, 0x001E, 0x0020}
)
_MAX_LISTED: Final = 8
_V4, _V6 = 1, 2

Address = tuple[str, int]
"""An IP address as text, and a port."""


class _Parsed(msgspec.Struct, frozen=True):
    kind: int
    transaction: bytes
    attributes: tuple[tuple[int, bytes], ...]
    fingerprint: bool


def answer(datagram: bytes, source: Address) -> bytes | None:
    """What a server answers to a datagram.

    Args:
        datagram: As it came.
        source: Where it came from.

    Returns:
        The response, or None: no binding request, and so no answer.
    """
    if len(datagram) > MAX_DATAGRAM:
        return None
    parsed = _parse(datagram)
    if parsed is None or parsed.kind != _REQUEST:
        return None
    unknown = [kind for kind, _ in parsed.attributes if kind < 0x8000 and kind not in _KNOWN]
    if unknown:
        return _error_420(parsed, unknown[:_MAX_LISTED])
    return _build(
        _SUCCESS,
        parsed.transaction,
        [(_XOR_MAPPED_ADDRESS, _xor_address(source, parsed.transaction))],
        # Whoever didn't send one doesn't need one, and may not be who asked.
        fingerprint=parsed.fingerprint,
    )


def make_request(transaction: bytes) -> bytes:
    """A binding request.

    Args:
        transaction: 12 random bytes; the answer has the same.
    """
    if len(transaction) != TRANSACTION:
        raise ValueError(f"a transaction id has {TRANSACTION} bytes")
    return _build(_REQUEST, transaction, [])


def read_response(datagram: bytes, transaction: bytes) -> Address:
    """The address that a server saw.

    Args:
        datagram: What came back.
        transaction: That of the request.

    Raises:
        ProtocolError: Not the answer to this request, or an error.
    """
    parsed = _parse(datagram)
    if parsed is None or parsed.transaction != transaction or parsed.kind == _REQUEST:
        raise ProtocolError(peer="the STUN server", why="no answer to the request")
    attributes = dict(parsed.attributes)
    if parsed.kind != _SUCCESS:
        code = attributes.get(_ERROR_CODE, bytes(4))[:4].ljust(4, b"\0")
        raise ProtocolError(peer="the STUN server", why=f"error {code[2] * 100 + code[3]}")
    address = _read_address(attributes.get(_XOR_MAPPED_ADDRESS, b""), transaction)
    if address is None:
        raise ProtocolError(peer="the STUN server", why="an answer without an address")
    return address


def _parse(datagram: bytes) -> _Parsed | None:
    if len(datagram) < _HEADER.size:
        return None
    kind, length, cookie, transaction = _HEADER.unpack_from(datagram)
    if kind >> 14 or cookie != _COOKIE or length % 4 or length != len(datagram) - _HEADER.size:
        return None
    attributes: list[tuple[int, bytes]] = []
    fingerprint = False
    at = _HEADER.size
    while at < len(datagram):
        attribute, size = _ATTRIBUTE.unpack_from(datagram, at)
        end = at + _ATTRIBUTE.size + size
        if end > len(datagram):
            return None
        value = datagram[at + _ATTRIBUTE.size : end]
        if attribute == _FINGERPRINT:
            if value != _fingerprint(datagram[:at]) or end != len(datagram):
                return None
            fingerprint = True
        else:
            attributes.append((attribute, value))
        at = end + -size % 4
    return _Parsed(
        kind=kind,
        transaction=transaction,
        attributes=tuple(attributes),
        fingerprint=fingerprint,
    )


def _build(
    kind: int,
    transaction: bytes,
    attributes: list[tuple[int, bytes]],
    *,
    fingerprint: bool = True,
) -> bytes:
    body = b"".join(
        _ATTRIBUTE.pack(attribute, len(value)) + value + bytes(-len(value) % 4)
        for attribute, value in attributes
    )
    if not fingerprint:
        return _HEADER.pack(kind, len(body), _COOKIE, transaction) + body
    # The fingerprint is over the message as it will be, its own 8 bytes counted in the length.
    head = _HEADER.pack(kind, len(body) + 8, _COOKIE, transaction)
    return head + body + _ATTRIBUTE.pack(_FINGERPRINT, 4) + _fingerprint(head + body)


def _fingerprint(before: bytes) -> bytes:
    return (zlib.crc32(before) ^ _FINGERPRINT_XOR).to_bytes(4, "big")


def _error_420(parsed: _Parsed, unknown: list[int]) -> bytes:
    listed = b"".join(kind.to_bytes(2, "big") for kind in unknown)
    return _build(
        _ERROR,
        parsed.transaction,
        [(_ERROR_CODE, bytes((0, 0, 4, 20))), (_UNKNOWN_ATTRIBUTES, listed)],
        fingerprint=parsed.fingerprint,
    )


def _xor_address(address: Address, transaction: bytes) -> bytes:
    ip = ipaddress.ip_address(address[0].partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    port = address[1] ^ (_COOKIE >> 16)
    family = _V4 if ip.version == 4 else _V6
    return struct.pack("!xBH", family, port) + _xor(ip.packed, _COOKIE_BYTES + transaction)


def _read_address(value: bytes, transaction: bytes) -> Address | None:
    if len(value) not in (8, 20):
        return None
    family, port = struct.unpack_from("!xBH", value)
    if family != (_V4 if len(value) == 8 else _V6):
        return None
    raw = _xor(value[4:], _COOKIE_BYTES + transaction)
    return str(ipaddress.ip_address(raw)), port ^ (_COOKIE >> 16)


def _xor(data: bytes, mask: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(data, mask, strict=False))
