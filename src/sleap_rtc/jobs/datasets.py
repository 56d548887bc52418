"""Where the files of a job's inputs are: a closed set of ways, each with size and checksum.

==========  ===========================  ===================================================
``type``    ``path``                     who gives it
==========  ===========================  ===================================================
``webrtc``  in the job's package         whoever submitted the job, over the link
``s3``      key in the room's storage    the storage, while the submitter may be away
``local``   on a disk that both see      the worker's own disk, if its owner permits that
==========  ===========================  ===================================================

A job names all files of its package or none; named by none, all come over the
link. Whatever is named here is checked: the package's id says what every block is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from sleap_rtc.domain.models import Hex64
from sleap_rtc.domain.packages import MAX_PATH, MAX_SIZE, PackageRef, check_path
from sleap_rtc.domain.values import Value, encode
from sleap_rtc.errors import UsageError

MAX_DATASETS: Final = 100
"""Files that a job may name; a package of more comes over the link."""
MAX_ROOM: Final = 32 * 1024
"""Bytes that their names and places may take of a message."""

Name = Annotated[str, Meta(min_length=1, max_length=MAX_PATH)]
Place = Annotated[str, Meta(min_length=1, max_length=4096)]
Size = Annotated[int, Meta(ge=0, le=MAX_SIZE)]


class _File(Value, frozen=True, tag_field="type"):
    """A file of a job's inputs, as a job names it.

    Attributes:
        name: Its path in the package.
        path: Where it is; what that means, each kind says.
        size_bytes: Bytes.
        checksum: BLAKE3 of the whole file.
    """

    name: Name
    path: Place
    size_bytes: Size
    checksum: Hex64


class LinkedFile(_File, frozen=True, tag="webrtc"):
    """A file that comes over the link; ``path`` is its path in the package, as ``name`` is."""


class StoredFile(_File, frozen=True, tag="s3"):
    """A file that the room's storage has, in its area of uploads.

    ``path`` is its key, which is made of room and checksum.
    """


class SharedFile(_File, frozen=True, tag="local"):
    """A file that the worker sees where it is; ``path`` is its absolute path on the worker."""


Dataset = LinkedFile | StoredFile | SharedFile
Datasets = Annotated[tuple[Dataset, ...], Meta(max_length=MAX_DATASETS)]


class NamedFile(msgspec.Struct, frozen=True):
    """A file of a job's inputs, wherever it is.

    Attributes:
        name: Its path in the package.
        size: Bytes.
        checksum: BLAKE3 of the whole file.
        place: Its absolute path on this machine.
    """

    name: str
    size: int
    checksum: str
    place: str


def linked(file: NamedFile) -> LinkedFile:
    """The file as one that comes over the link."""
    return LinkedFile(name=file.name, path=file.name, size_bytes=file.size, checksum=file.checksum)


def stored(file: NamedFile, key: str) -> StoredFile:
    """The file as one that is in storage, under this key."""
    return StoredFile(name=file.name, path=key, size_bytes=file.size, checksum=file.checksum)


def shared(file: NamedFile) -> SharedFile:
    """The file as one that the worker sees where it is."""
    return SharedFile(name=file.name, path=file.place, size_bytes=file.size, checksum=file.checksum)


def fit(datasets: Sequence[Dataset]) -> bool:
    """Whether a job can name so many files: it has to fit into a message."""
    if len(datasets) > MAX_DATASETS:
        return False
    return sum(len(encode(each)) + 1 for each in datasets) <= MAX_ROOM


def in_order(datasets: Sequence[Dataset]) -> list[Dataset]:
    """The files as their package has them: sorted by the bytes of their names."""
    return sorted(datasets, key=lambda each: each.name.encode("utf-8", "surrogatepass"))


def waits_for_nobody(datasets: Sequence[Dataset]) -> bool:
    """Whether a worker gets all of it while whoever submitted the job is away."""
    return bool(datasets) and all(
        not isinstance(each, LinkedFile) or not each.size_bytes for each in datasets
    )


def check(datasets: Sequence[Dataset], package: PackageRef) -> None:
    """See that a job names the files of its package, each once.

    Raises:
        UsageError: It doesn't.
        UnsafePath: A name that no package has.
    """
    if not datasets:
        return
    why = next(_faults(datasets, package), None)
    if why is not None:
        raise UsageError(message=f"The job names its files wrongly: {why}.")


def _faults(datasets: Sequence[Dataset], package: PackageRef) -> Iterator[str]:
    names = {check_path(each.name) for each in datasets}
    if len(names) < len(datasets):
        yield "one is named twice"
    if len(datasets) != package.files:
        yield f"{len(datasets)} are named, and {package.files} are in its package"
    if sum(each.size_bytes for each in datasets) != package.size:
        yield "together they have another size than its package"
