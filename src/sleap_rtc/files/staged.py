"""A package that has arrived whole and waits to be placed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from sleap_rtc.domain.packages import Package
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
