"""Binary frames of block connections: asking for content and sending it.

One frame is one message of at most 64 KiB. Integers are big-endian::

    get listing   01 | request u32 | package 32 bytes
    get block     02 | request u32 | package 32 bytes | file u32 | block u32
    data          03 | request u32 | offset u32 | bytes
    end           04 | request u32 | length u32
    refuse        05 | request u32 | code, a zero byte, message (UTF-8)
    withdraw      06 | request u32

Whoever wants content numbers its requests, each number once per connection. An
answer is data frames in order, then ``end`` with the whole length; or ``refuse``.
A block is at most 1 MiB, a listing as long as its package's reference said.

What is asked for and not yet answered is the credit: at most
:data:`MAX_OUTSTANDING` requests, so that neither side ever buffers more than
that many blocks for the other. Asking for more ends the connection.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from sleap_rtc.domain.ids import PackageId
from sleap_rtc.errors import ProtocolError
from sleap_rtc.protocol.codec import MAX_MESSAGE

MAX_OUTSTANDING: Final = 16
MAX_CHUNK: Final = MAX_MESSAGE - 16
"""Bytes of content in one data frame."""

_GET_LISTING: Final = struct.Struct(">BI32s")
_GET_BLOCK: Final = struct.Struct(">BI32sII")
_DATA: Final = struct.Struct(">BII")
_END: Final = struct.Struct(">BII")
_SHORT: Final = struct.Struct(">BI")


class GetListing(msgspec.Struct, frozen=True):
    """Asks for a package's listing."""

    request: int
    package: PackageId


class GetBlock(msgspec.Struct, frozen=True):
    """Asks for block ``block`` of file ``file`` of a package, both from 0."""

    request: int
    package: PackageId
    file: int
    block: int


class Data(msgspec.Struct, frozen=True):
    """A piece of an answer, ``offset`` bytes from its beginning."""

    request: int
    offset: int
    content: memoryview


class End(msgspec.Struct, frozen=True):
    """The answer is complete, ``length`` bytes long."""

    request: int
    length: int


class Refuse(msgspec.Struct, frozen=True):
    """There will be no (more) answer."""

    request: int
    code: str
    message: str


class Withdraw(msgspec.Struct, frozen=True):
    """The answer isn't wanted any more."""

    request: int


BlockFrame = GetListing | GetBlock | Data | End | Refuse | Withdraw


def encode(frame: GetListing | GetBlock | End | Refuse | Withdraw) -> bytes:
    """Write any frame but data, which :func:`data_frames` makes."""
    match frame:
        case GetListing():
            return _GET_LISTING.pack(1, frame.request, bytes.fromhex(frame.package))
        case GetBlock():
            package = bytes.fromhex(frame.package)
            return _GET_BLOCK.pack(2, frame.request, package, frame.file, frame.block)
        case End():
            return _END.pack(4, frame.request, frame.length)
        case Refuse():
            text = f"{frame.code[:64]}\0{frame.message[:4000]}".encode("utf-8", "replace")
            return _SHORT.pack(5, frame.request) + text
        case Withdraw():
            return _SHORT.pack(6, frame.request)


def data_frame(request: int, piece: memoryview, offset: int) -> bytes:
    """The data frame with a piece of at most :data:`MAX_CHUNK` bytes that begins at ``offset``."""
    return _DATA.pack(3, request, offset) + piece


def decode(raw: bytes, *, peer: str) -> BlockFrame:
    """Read one frame.

    Raises:
        ProtocolError: Too long, of no known kind, or not of its kind's length.
    """
    if not 5 <= len(raw) <= MAX_MESSAGE:
        raise ProtocolError(peer=peer, why=f"a block frame of {len(raw)} bytes")
    kind = raw[0]
    try:
        match kind:
            case 1:
                _, request, package = _GET_LISTING.unpack(raw)
                return GetListing(request, PackageId(package.hex()))
            case 2:
                _, request, package, file, block = _GET_BLOCK.unpack(raw)
                return GetBlock(request, PackageId(package.hex()), file, block)
            case 3:
                _, request, offset = _DATA.unpack_from(raw)
                return Data(request, offset, memoryview(raw)[_DATA.size :])
            case 4:
                _, request, length = _END.unpack(raw)
                return End(request, length)
            case 5:
                (_, request), text = _SHORT.unpack_from(raw), raw[_SHORT.size :]
                code, _, message = text.decode("utf-8", "replace").partition("\0")
                return Refuse(request, code[:64], message[:4000])
            case 6:
                _, request = _SHORT.unpack(raw)
                return Withdraw(request)
            case _:
                raise ProtocolError(peer=peer, why=f"a block frame of the unknown kind {kind}")
    except struct.error:
        why = f"a block frame of kind {kind} with {len(raw)} bytes"
        raise ProtocolError(peer=peer, why=why) from None
