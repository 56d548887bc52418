"""A package that has arrived whole and waits to be placed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from sleap_rtc.domain.packages import FileEntry, Package
from sleap_rtc.files.claim import Claim


class Staged:
    """A folder with exactly a package's files, checked and synced, in a claimed place.

    Rename `path` to where it shall be (`sleap_rtc.files.durable.place_directory`), within a
    ``with`` block: when that ends, the rest of the transfer's folder is removed if the files are
    placed, and otherwise kept, so that another attempt finds everything here.

    Attributes:
        path: The folder with the files.
        package: What it holds.
    """

    def __init__(self, *, path: Path, package: Package, claim: Claim) -> None:
        self.path = path
        self.package = package
        self._claim = claim

    def release(self) -> None:
        """Let go of the folder, removing what is left of it if the files were placed."""
        if os.path.lexists(self.path):
            self._claim.release()
        else:
            self._claim.remove()

    def discard(self) -> None:
        """Remove the files."""
        self._claim.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def remove_others(path: Path, package: Package) -> None:
    """Remove what a package doesn't list, for example what a failed placement had added.

    Args:
        path: The folder with its files.
        package: The package.
    """
    files = {entry.path for entry in package.files}
    folders = folders_of(package.files)
    for here, directories, names in os.walk(path, topdown=False):
        base = Path(here)
        prefix = "" if base == path else f"{base.relative_to(path).as_posix()}/"
        for name in names:
            if prefix + name not in files:
                (base / name).unlink()
        for name in directories:
            if (base / name).is_symlink():
                (base / name).unlink()
            elif prefix + name not in folders:
                (base / name).rmdir()


def folders_of(entries: Iterable[FileEntry]) -> set[str]:
    """The paths of all folders that these files are in, without the uppermost."""
    folders: set[str] = set()
    for entry in entries:
        path = entry.path.rpartition("/")[0]
        while path and path not in folders:
            folders.add(path)
            path = path.rpartition("/")[0]
    return folders
