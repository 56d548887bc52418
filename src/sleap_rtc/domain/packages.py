r"""Packages: a set of files, addressed by its content.

A file is a list of blocks of 1 MiB (the last one shorter), each with its
BLAKE3. The listing of a package, in this order and with integers big-endian::

    "SRPK" | version u8 = 1 | files u32 |
    for each file, sorted by the bytes of its path:
        path length u16 | path UTF-8 | size u64 | one 32-byte BLAKE3 per block

and the package's id is the BLAKE3 of that listing. An empty file has no block.
Nothing else is in it: a record or a SHA-256 travels beside it.

Paths are relative, with ``/``; see :func:`check_path` for what is refused.
"""

from __future__ import annotations

import itertools
import re
import struct
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Annotated, Final

import msgspec
from blake3 import blake3
from msgspec import Meta

from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.values import Value
from sleap_rtc.errors import DataError, UnsafePath

BLOCK: Final = 1024 * 1024
HASH: Final = 32
MAX_FILES: Final = 1_000_000
MAX_SIZE: Final = 1 << 50
"""Bytes of the largest file, 1 PiB: far beyond use, and safe to compute with."""
MAX_LISTING: Final = 256 * 1024 * 1024
"""Bytes of the largest listing: 1 million files with 200-byte paths, or 8 TiB of content."""
MAX_PATH: Final = 1024
MAX_NAME: Final = 255

_MAGIC: Final = b"SRPK\x01"
_COUNT: Final = struct.Struct(">I")
_PATH_LENGTH: Final = struct.Struct(">H")
_SIZE: Final = struct.Struct(">Q")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""Unicode's category Cc; asking each character for its category took most of a check's time."""


class FileEntry(msgspec.Struct, frozen=True):
    """One file of a package.

    Attributes:
        path: Relative, with ``/``.
        size: Bytes.
        hashes: The blocks' BLAKE3, 32 bytes each, one after the other.
    """

    path: str
    size: int
    hashes: bytes

    @property
    def block_count(self) -> int:
        """Number of blocks; 0 for an empty file."""
        return blocks_of(self.size)

    def block_hash(self, index: int) -> bytes:
        """The BLAKE3 of block ``index``, 32 bytes."""
        return self.hashes[index * HASH : (index + 1) * HASH]

    def block_size(self, index: int) -> int:
        """Bytes of block ``index``: 1 MiB but for the last."""
        return min(BLOCK, self.size - index * BLOCK)


class Package(msgspec.Struct, frozen=True):
    """A set of files, addressed by its content.

    Attributes:
        id: BLAKE3 of the listing.
        files: Sorted by the bytes of the path.
    """

    id: PackageId
    files: tuple[FileEntry, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)

    @property
    def block_count(self) -> int:
        """Blocks of all files."""
        return sum(entry.block_count for entry in self.files)


class PackageRef(Value, frozen=True):
    """What is said of a package before its listing is fetched.

    Attributes:
        id: 64 hex digits.
        size: Bytes of all files.
        files: Number of files.
        listing: Bytes of the listing.
    """

    id: Annotated[PackageId, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    size: Annotated[int, Meta(ge=0, le=MAX_SIZE)]
    files: Annotated[int, Meta(ge=0, le=MAX_FILES)]
    listing: Annotated[int, Meta(ge=9, le=MAX_LISTING)]

    @property
    def is_possible(self) -> bool:
        """Whether so many files of so many bytes can have so long a listing."""
        paths = self.files * (_PATH_LENGTH.size + MAX_PATH + _SIZE.size)
        hashes = (self.size // BLOCK + self.files) * HASH
        return self.listing <= len(_MAGIC) + _COUNT.size + paths + hashes


def blocks_of(size: int) -> int:
    """How many blocks a file of ``size`` bytes has."""
    return -(-size // BLOCK)


def package(files: Iterable[FileEntry]) -> Package:
    """Make a package of files in any order.

    Raises:
        UnsafePath: A path that is refused, or two that could not stand side by side everywhere.
        DataError: Sizes and hashes that don't belong together, or too many files.
    """
    ordered = tuple(sorted(files, key=lambda entry: entry.path.encode("utf-8", "surrogatepass")))
    _check(ordered)
    return Package(id=_id_of(listing_of(ordered)), files=ordered)


def ref(value: Package) -> PackageRef:
    """What is said of the package before its listing is fetched."""
    return PackageRef(
        id=value.id,
        size=value.size,
        files=len(value.files),
        listing=len(listing_of(value.files)),
    )


def listing_of(files: Iterable[FileEntry]) -> bytes:
    """The canonical listing of files that are already sorted and checked."""
    parts: list[bytes] = []
    count = 0
    for entry in files:
        count += 1
        path = entry.path.encode("utf-8")
        parts += [_PATH_LENGTH.pack(len(path)), path, _SIZE.pack(entry.size), entry.hashes]
    return b"".join([_MAGIC, _COUNT.pack(count), *parts])


def parse(listing: bytes, *, expect: PackageId | None = None) -> Package:
    """Read a listing, trusting nothing in it.

    Args:
        listing: The bytes as received.
        expect: The id that it must have.

    Raises:
        DataError: Malformed, too large, not in canonical order, or another package.
        UnsafePath: A path that is refused.
    """
    if len(listing) > MAX_LISTING:
        raise _bad(f"the listing has {len(listing)} bytes, more than the {MAX_LISTING} allowed")
    found = _id_of(listing)
    if expect is not None and found != expect:
        raise _bad(f"the listing is of package {found[:12]}…, not of {expect[:12]}…")
    files = tuple(_entries(listing))
    keys = [entry.path.encode("utf-8") for entry in files]
    if any(a >= b for a, b in itertools.pairwise(keys)):
        raise _bad("its paths are not in order")
    _check(files)
    return Package(id=found, files=files)


def _entries(listing: bytes) -> Iterator[FileEntry]:
    head = len(_MAGIC) + _COUNT.size
    if len(listing) < head or listing[: len(_MAGIC)] != _MAGIC:
        raise _bad("it is not a package listing of version 1")
    (count,) = _COUNT.unpack_from(listing, len(_MAGIC))
    if count > MAX_FILES:
        raise _bad(f"it names {count} files, more than the {MAX_FILES} allowed")
    at = head
    for _ in range(count):
        if at + _PATH_LENGTH.size > len(listing):
            raise _bad("it ends in the middle of a file")
        (length,) = _PATH_LENGTH.unpack_from(listing, at)
        at += _PATH_LENGTH.size
        raw = listing[at : at + length]
        at += length
        if at + _SIZE.size > len(listing):
            raise _bad("it ends in the middle of a file")
        try:
            path = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise _bad("a path is not UTF-8") from None
        (size,) = _SIZE.unpack_from(listing, at)
        at += _SIZE.size
        if size > MAX_SIZE:
            raise _bad(f"{path[:80]!r} claims {size} bytes")
        end = at + blocks_of(size) * HASH
        if end > len(listing):
            raise _bad("it ends in the middle of a file")
        yield FileEntry(path=path, size=size, hashes=listing[at:end])
        at = end
    if at != len(listing):
        raise _bad(f"{len(listing) - at} bytes follow its last file")


def check_path(path: str) -> str:
    """Return the path if it can be joined to any root on any platform and stay inside.

    Refused: empty or absolute paths, ``.`` and ``..``, empty parts, backslashes, drive letters,
    control characters, unpaired surrogates, parts over 255 bytes or paths over 1024, and parts
    that end in a space or a dot (Windows drops those, so two names would become one).

    Raises:
        UnsafePath: With the reason.
    """
    why = _fault(path)
    if why:
        raise UnsafePath(path=path[:120], why=why)
    return path


def _fault(path: str) -> str:
    try:
        raw = path.encode("utf-8")
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    if not raw or len(raw) > MAX_PATH:
        return f"it has {len(raw)} bytes; 1 to {MAX_PATH} are allowed"
    if _CONTROL.search(path):
        return "it contains a control character"
    if "\\" in path:
        return "it contains a backslash"
    parts = path.split("/")
    if not parts[0] or (len(parts[0]) > 1 and parts[0][1] == ":"):
        return "it is absolute"
    if any(part in ("", ".", "..") for part in parts):
        return "it has a part that is empty, '.' or '..'"
    if any(len(part.encode("utf-8")) > MAX_NAME for part in parts):
        return f"a part of it is longer than {MAX_NAME} bytes"
    if any(part[-1] in " ." for part in parts):
        return "a part of it ends in a space or a dot"
    return ""


def _check(files: tuple[FileEntry, ...]) -> None:
    if len(files) > MAX_FILES:
        raise _bad(f"it has {len(files)} files, more than the {MAX_FILES} allowed")
    seen: dict[str, str] = {}
    for entry in files:
        check_path(entry.path)
        if not 0 <= entry.size <= MAX_SIZE or len(entry.hashes) != entry.block_count * HASH:
            raise _bad(f"the size and the blocks of {entry.path!r} don't belong together")
        folded = _folded(entry.path)
        if folded in seen:
            raise UnsafePath(path=entry.path, why=f"it can't stand beside {seen[folded]!r}")
        seen[folded] = entry.path
    # With a separator that sorts before every other character, what is below a path follows it
    # at once. Listing each file's folders instead would cost a hostile listing's depth squared.
    for above, below in itertools.pairwise(sorted(path.replace("/", "\0") for path in seen)):
        if below.startswith(above + "\0"):
            outer, inner = (seen[path.replace("\0", "/")] for path in (above, below))
            raise UnsafePath(path=outer, why=f"it is also a folder, of {inner!r}")


def _folded(path: str) -> str:
    """What file systems without case, or with normalised names, would take for the same path."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _id_of(listing: bytes) -> PackageId:
    return PackageId(blake3(listing).hexdigest())


def _bad(why: str) -> DataError:
    return DataError(what="package listing", why=why)
