"""What each side of a connection signs.

Fields follow each other in a fixed order, each behind its length, so that two
different connections can never have the same bytes::

    field   = length u32 | bytes
    list    = field of (count u32 | that many fields)
    number  = field of u64

    text    "sleap-rtc-link"            number  handshake version
    text    side of the signer          text    room
    bytes   offerer's key               bytes   answerer's key
    bytes   offerer's nonce             bytes   answerer's nonce
    bytes   offerer's fingerprint       bytes   answerer's fingerprint
    list    offerer's versions          list    answerer's versions
    list    offerer's features          list    answerer's features
    text    offerer's name              text    answerer's name
    number  chosen version              list    chosen features
    number  membership number           bytes   membership digest
    text    session                     text    purpose

Integers are big-endian, texts UTF-8. The signature's context is
``handshake/offerer`` or ``handshake/answerer``: one side's signature is never
the other's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

import msgspec

from sleap_rtc.domain.ids import DeviceId, RoomId
from sleap_rtc.protocol.handshake import HANDSHAKE_VERSION, PROTOCOL_NAME, Purpose, Side

CONTEXTS: Final[dict[Side, str]] = {
    "offerer": "handshake/offerer",
    "answerer": "handshake/answerer",
}

_LENGTH: Final = struct.Struct(">I")
_NUMBER: Final = struct.Struct(">Q")


class Party(msgspec.Struct, frozen=True):
    """What one side brings into the transcript.

    Attributes:
        device: Its public key.
        nonce: 32 bytes.
        fingerprint: SHA-256 of its DTLS certificate, 32 bytes, from the description in use.
        versions: What it offered.
        features: What it offered.
        name: What it is called in the room; empty without a name there.
    """

    device: DeviceId
    nonce: bytes
    fingerprint: bytes
    versions: tuple[int, ...]
    features: tuple[str, ...]
    name: str = ""


class Transcript(msgspec.Struct, frozen=True):
    """One connection, as one side sees it; both must see the same.

    Attributes:
        room: The room.
        offerer: Who made the offer.
        answerer: Who answered it.
        version: The link version that was chosen.
        features: The features that both have.
        membership: Number of the list that both hold now.
        membership_digest: SHA-256 of it.
        session: The link's id.
        purpose: What the connection is for.
    """

    room: RoomId
    offerer: Party
    answerer: Party
    version: int
    features: tuple[str, ...]
    membership: int
    membership_digest: bytes
    session: str
    purpose: Purpose

    def signed_by(self, side: Side) -> bytes:
        """The bytes that the given side signs."""
        one, other = self.offerer, self.answerer
        return b"".join(
            (
                _text(PROTOCOL_NAME),
                _number(HANDSHAKE_VERSION),
                _text(side),
                _text(self.room),
                _field(bytes.fromhex(one.device)),
                _field(bytes.fromhex(other.device)),
                _field(one.nonce),
                _field(other.nonce),
                _field(one.fingerprint),
                _field(other.fingerprint),
                _list(_number(version) for version in one.versions),
                _list(_number(version) for version in other.versions),
                _list(_text(feature) for feature in one.features),
                _list(_text(feature) for feature in other.features),
                _text(one.name),
                _text(other.name),
                _number(self.version),
                _list(_text(feature) for feature in self.features),
                _number(self.membership),
                _field(self.membership_digest),
                _text(self.session),
                _text(self.purpose),
            )
        )


def _field(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


def _text(text: str) -> bytes:
    return _field(text.encode("utf-8"))


def _number(number: int) -> bytes:
    return _field(_NUMBER.pack(number))


def _list(fields: Iterable[bytes]) -> bytes:
    items = tuple(fields)
    return _field(_LENGTH.pack(len(items)) + b"".join(items))
