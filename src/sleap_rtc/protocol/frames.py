"""Binary frames of block connections: asking for content and sending it.

One frame is one message of at most 64 KiB. Integers are big-endian::

    get listing   01 | request u32 | package 32 bytes
    get block     02 | request u32 | package 32 bytes | file u32 | block u32
    data          03 | request u32 | offset u32 | bytes
    end           04 | request u32 | length u32
    refuse        05 | request u32 | code, a zero byte, message (UTF-8)
    withdraw      06 | request u32
    get several   07 | request u32 | package 32 bytes | (file u32 | block u32) for each block

Whoever wants content numbers its requests, each number once per connection. An
answer is data frames in order, then ``end`` with the whole length; or ``refuse``.
A block is at most 1 MiB, a listing as long as its package's reference said.
Several blocks that have 1 MiB at most together come as one answer, in the order
in which they are asked for: many small files then cost what a large one costs.
That request is sent only to a peer that has the feature :data:`FEATURE`.

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

FEATURE: Final = "several"
"""The feature of a link that both sides need for asking for several blocks at once."""
MAX_OUTSTANDING: Final = 16
MAX_SEVERAL: Final = 256
"""Blocks in one request."""
MAX_CHUNK: Final = MAX_MESSAGE - 16
"""Bytes of content in one data frame."""

_GET_LISTING: Final = struct.Struct(">BI32s")
_GET_BLOCK: Final = struct.Struct(">BI32sII")
_DATA: Final = struct.Struct(">BII")
_END: Final = struct.Struct(">BII")
_SHORT: Final = struct.Struct(">BI")
_SEVERAL: Final = struct.Struct(">BI32s")
_PLACE: Final = struct.Struct(">II")

MAX_REQUEST: Final = _SEVERAL.size + MAX_SEVERAL * _PLACE.size
"""Bytes of the longest request."""


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


class GetSeveral(msgspec.Struct, frozen=True):
    """Asks for blocks of a package, as (file, block), of at most 1 MiB together."""

    request: int
    package: PackageId
    blocks: tuple[tuple[int, int], ...]


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


Asked = GetListing | GetBlock | GetSeveral
"""What has an answer."""
BlockFrame = Asked | Data | End | Refuse | Withdraw


def encode(frame: Asked | End | Refuse | Withdraw) -> bytes:
    """Write any frame but data, which :func:`data_frame` makes.

    Raises:
        ValueError: More blocks than one request may name, or none.
    """
    match frame:
        case GetListing():
            return _GET_LISTING.pack(1, frame.request, bytes.fromhex(frame.package))
        case GetBlock():
            package = bytes.fromhex(frame.package)
            return _GET_BLOCK.pack(2, frame.request, package, frame.file, frame.block)
        case GetSeveral():
            if not 0 < len(frame.blocks) <= MAX_SEVERAL:
                raise ValueError(f"{len(frame.blocks)} blocks in one request")
            head = _SEVERAL.pack(7, frame.request, bytes.fromhex(frame.package))
            return head + b"".join(_PLACE.pack(*place) for place in frame.blocks)
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
            case 7 if _SEVERAL.size < len(raw) <= MAX_REQUEST:
                _, request, package = _SEVERAL.unpack_from(raw)
                places = tuple(_PLACE.iter_unpack(raw[_SEVERAL.size :]))
                return GetSeveral(request, PackageId(package.hex()), places)
            case 7:
                raise struct.error
            case _:
                raise ProtocolError(peer=peer, why=f"a block frame of the unknown kind {kind}")
    except struct.error:
        why = f"a block frame of kind {kind} with {len(raw)} bytes"
        raise ProtocolError(peer=peer, why=why) from None
