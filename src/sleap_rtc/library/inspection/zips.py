"""Zip archives of weights, looked into without trusting what they say of themselves.

PyTorch, Keras and numpy write zips. Whoever loads one finds its members by the
directory at its end, so that is what is read here; what could make two programs
see different files in one archive (something before it, two members of one
name, members that overlap) is refused.
"""

from __future__ import annotations

import contextlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sleap_rtc.errors import Damaged
from sleap_rtc.library.inspection.content import Content

MAGIC: Final = b"PK\x03\x04"
MAX_DIRECTORY: Final = 64 * 1024 * 1024
MAX_MEMBERS: Final = 200_000

_END: Final = struct.Struct("<4s4H2LH")
_LOCAL: Final = 30
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED: Final = 0x1

FAULTS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
    struct.error,
)
"""What reading a zip raises that isn't right."""


@contextlib.contextmanager
def opened(content: Content, path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip of weights.

    Args:
        content: The file.
        path: The same one.

    Raises:
        Damaged: It was cut, or isn't as a program writes it. Also for what the block raises of
            `FAULTS`.
    """
    check_end(content)
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            _check_members(content, archive)
            yield archive
    except Damaged:
        raise
    except FAULTS as error:
        raise content.damaged(f"its archive can't be read ({str(error)[:100]})") from None


def check_end(content: Content) -> None:
    """See that a zip's directory is there and can be read into memory.

    Raises:
        Damaged: It isn't.
    """
    tail = content.at(max(content.size - 65_557, 0), min(content.size, 65_557))
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise content.ends()
    _, _, _, _, members, size, _, comment = _END.unpack_from(tail, at)
    if len(tail) - at != _END.size + comment:
        raise content.damaged("something follows its archive")
    if size == 0xFFFFFFFF or members == 0xFFFF:
        far = tail.rfind(b"PK\x06\x06", 0, at)
        if far < 0 or at - far < 56:
            raise content.damaged("the directory of its archive can't be read")
        members, size = struct.unpack_from("<32xQQ", tail, far)
    if size > MAX_DIRECTORY or members > MAX_MEMBERS:
        raise content.damaged("its archive has too many members")


def read(archive: zipfile.ZipFile, name: str, *, limit: int) -> bytes:
    """A member's content.

    Raises:
        ValueError: It has more than ``limit`` bytes, whatever the directory says.
        zipfile.BadZipFile: Its checksum is wrong.
    """
    with archive.open(name) as member:
        data = member.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{name[:80]} is too large")
    return data


def _check_members(content: Content, archive: zipfile.ZipFile) -> None:
    members = sorted(archive.infolist(), key=lambda member: member.header_offset)
    if not members:
        raise content.damaged("its archive is empty")
    if members[0].header_offset != 0:
        raise content.damaged("something stands before its archive")
    if len({member.filename for member in members}) != len(members):
        raise content.damaged("two members of its archive have one name")
    at = 0
    for member in members:
        if member.flag_bits & _ENCRYPTED or member.compress_type not in _METHODS:
            raise content.damaged("its archive is encrypted, or packed in an unknown way")
        if member.header_offset < at:
            raise content.damaged("members of its archive overlap")
        at = member.header_offset + _LOCAL + member.compress_size
        if at > archive.start_dir:
            raise content.ends()
