"""What a job brings: its inputs, and the models that its worker lacks, each of them a package."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from msgspec.structs import replace

from sleap_rtc.client.composing import Composed
from sleap_rtc.files.packing import Packed
from sleap_rtc.jobs.datasets import NamedFile


class Part(msgspec.Struct, frozen=True):
    """A package that comes with a job.

    Attributes:
        packed: The package; its files are named by their whole paths.
        files: Its files, as they are named to a worker.
        seen: Names of those that the worker sees where they are.
    """

    packed: Packed
    files: tuple[NamedFile, ...]
    seen: frozenset[str] = frozenset()


def parts_of(composed: Composed) -> tuple[Part, ...]:
    """Everything that a job brings, its inputs first."""
    models = (with_whole_paths(packed) for packed in composed.models)
    return (
        Part(packed=composed.packed, files=inputs_of(composed)),
        *(Part(packed=packed, files=files_of(packed)) for packed in models),
    )


def inputs_of(composed: Composed) -> tuple[NamedFile, ...]:
    """The files of a job's inputs, as they are named to a worker."""
    hashes = composed.packed.file_hashes
    return tuple(
        NamedFile(
            name=entry.path,
            size=entry.size,
            checksum=hashes[entry.path],
            # As the user named it: what its links lead to may have another path over there.
            place=os.path.abspath(composed.files[entry.path]),  # noqa: PTH100 - without links
        )
        for entry in composed.packed.package.files
    )


def with_whole_paths(packed: Packed) -> Packed:
    """The same with the files' whole paths; a package of the library names them in its root."""
    root = packed.root
    if root is None:
        return packed
    sources = tuple(
        replace(source, path=str(Path(root) / source.path), beneath=False)
        if source.beneath
        else source
        for source in packed.sources
    )
    return replace(packed, sources=sources, root=None)


def files_of(packed: Packed) -> tuple[NamedFile, ...]:
    """The files of a package that has whole paths, as they are named to a worker."""
    return tuple(
        NamedFile(
            name=entry.path,
            size=entry.size,
            checksum=packed.file_hashes[entry.path],
            place=source.path,
        )
        for entry, source in zip(packed.package.files, packed.sources, strict=True)
    )
