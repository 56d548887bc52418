"""Hashes of big files, remembered by what tells that they haven't changed.

::

    <directory>/<2 hex digits>/<62 hex digits>      named by the BLAKE3 of the file's stamp
        "SRHC" | version u8 = 1 | whole file's BLAKE3, 32 bytes | blocks' BLAKE3s | check, 32 bytes

One small file per hashed file, written whole or not at all: any number of
processes may read and write at once, and the folder may be deleted at any
time. An entry that is damaged, or cut short, counts as none.

A file changed within the last two seconds is not remembered: on a file system
with coarse times it may change again without its stamp telling.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from blake3 import blake3

from sleap_rtc.domain.packages import HASH, blocks_of
from sleap_rtc.errors import SleapRtcError
from sleap_rtc.files.durable import write_replacing
from sleap_rtc.files.hashing import FileHashes, FileStamp

SMALLEST: Final = 8 * 1024 * 1024
"""Bytes from which a file is remembered: hashing a smaller one takes a few milliseconds."""
SETTLED_NS: Final = 2_000_000_000
KEPT_NS: Final = 90 * 86_400 * 1_000_000_000

_MAGIC: Final = b"SRHC\x01"


class HashCache:
    """A folder of remembered hashes.

    Args:
        directory: Made when the first entry is kept.
        now_ns: Nanoseconds since 1970.
    """

    def __init__(self, directory: Path, *, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._directory = directory
        self._now_ns = now_ns

    def get(self, stamp: FileStamp) -> FileHashes | None:
        """The hashes of the file with this stamp, or None when they aren't known."""
        if stamp.size < SMALLEST:
            return None
        try:
            data = self._path(stamp).read_bytes()
        except OSError:
            return None
        body, check = data[:-HASH], data[-HASH:]
        whole = len(_MAGIC) + HASH
        if (
            len(body) != whole + blocks_of(stamp.size) * HASH
            or not body.startswith(_MAGIC)
            or blake3(body).digest() != check
        ):
            return None
        return FileHashes(blocks=body[whole:], blake3=body[len(_MAGIC) : whole].hex())

    def put(self, stamp: FileStamp, hashes: FileHashes) -> None:
        """Remember the hashes of a file that is big and old enough; a full disk is no error."""
        if stamp.size < SMALLEST:
            return
        if self._now_ns() - max(stamp.mtime_ns, stamp.ctime_ns) < SETTLED_NS:
            return
        path = self._path(stamp)
        body = _MAGIC + bytes.fromhex(hashes.blake3) + hashes.blocks
        with contextlib.suppress(OSError, SleapRtcError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_replacing(path, body + blake3(body).digest())
            self._prune(path.parent)

    def _path(self, stamp: FileStamp) -> Path:
        key = blake3(msgspec.json.encode(msgspec.structs.astuple(stamp))).hexdigest()
        return self._directory / key[:2] / key[2:]

    def _prune(self, folder: Path) -> None:
        """Forget the folder's entries that were written long ago: most are of files long gone."""
        oldest = self._now_ns() - KEPT_NS
        for path in folder.iterdir():
            if path.stat().st_mtime_ns < oldest:
                path.unlink(missing_ok=True)
