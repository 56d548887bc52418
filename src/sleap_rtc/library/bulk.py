"""Taking in thousands of models: the disk is waited for once for hundreds of them.

::

    put together   ──►  their file system is synced  ──►  each gets its name
    500 models, in      once, with all of them            by a rename, as ever;
    .incoming                                             the folder is synced once

So whatever has a name is whole, also after a power cut, as when each is taken in
by itself; but that waits for the disk four times a model. And instead of a mark
for each there is one for all, by which indexes look through the library.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.errors import DataError
from sleap_rtc.files.durable import disk_errors, sync_directory, sync_file
from sleap_rtc.files.space import sync_file_system
from sleap_rtc.library import chain, layout, marks, merging, records
from sleap_rtc.library.claiming import Prepared
from sleap_rtc.library.merging import Report
from sleap_rtc.library.registry import Registry

MODELS: Final = 500
"""Models that are put together before they are synced."""
BYTES: Final = 256 * 1024 * 1024
"""Bytes of their files, likewise."""
RECORDS: Final = 1024 * 1024
"""Bytes of their records, which are held in memory, likewise."""
TOGETHER: Final = 8
"""Models from which on all of the file system is synced, and not each by itself."""


class _Waiting(msgspec.Struct, frozen=True):
    record: ModelRecord
    folder: Path
    links: bool


class Bulk:
    """Takes in models, for as long as it is entered; for one thread.

    Args:
        registry: The library.
        report: Takes what became of each.
        revive: Whether models that were deleted here come back.
    """

    def __init__(self, registry: Registry, report: Report, *, revive: bool) -> None:
        self.registry = registry
        self.report = report
        self.revive = revive
        self._waiting: deque[_Waiting] = deque()
        self._bytes = self._held = 0
        self._prepared: dict[Path, Prepared] = {}
        self._marked = contextlib.ExitStack()
        self._has_mark = False
        self._disk = -1
        self._failed = False

    def __enter__(self) -> Self:
        incoming = self.registry.incoming
        with disk_errors(incoming):
            # Before anything is written: of a write that failed only those are told for sure who
            # had the file system open then.
            self._disk = os.open(incoming, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        with self._marked:
            try:
                # What was read up to a damaged place is taken in; who presses Ctrl-C waits no more.
                # What the disk refused once it would seem to have taken the second time.
                if not self._failed and (kind is None or issubclass(kind, Exception)):
                    self.flush()
            finally:
                os.close(self._disk)
                for waiting in self._waiting:
                    shutil.rmtree(waiting.folder, ignore_errors=True)

    def add(
        self,
        record: ModelRecord,
        folder: Path | None = None,
        *,
        size: int = 0,
        links: bool = False,
    ) -> None:
        """Take in a model, at once or with the next ones.

        Args:
            record: As it was elsewhere.
            folder: Its files, as for :meth:`Registry.take_in`, but they need not be synced; gone
                afterwards. None if there are none.
            size: Bytes in it.
            links: Whether files may be links.

        Raises:
            OutOfSpace: The disk is full; what was taken in before stays.
            PathNotPermitted: The library can't be written to.
        """
        folder = folder or self.registry.claims.new_folder()
        self._waiting.append(_Waiting(record, folder, links))
        self._bytes += size
        with contextlib.suppress(DataError):  # it is said when the model is taken in
            made = records.create(folder, record, sync=False)
            given = made if made == record else record
            self._prepared[folder] = Prepared(given=given, made=made)
            self._held += (folder / layout.RECORD / chain.file_name(1)).stat().st_size
        if len(self._waiting) >= MODELS or self._bytes >= BYTES or self._held >= RECORDS:
            self.flush()

    def flush(self) -> None:
        """Take in what was added; raises as :meth:`add`, and the rest is given up then."""
        try:
            self._flush()
        except BaseException:
            self._failed = True
            raise

    def _flush(self) -> None:
        if len(self._waiting) < TOGETHER or not self._synced():
            for waiting in self._waiting:
                _sync(waiting.folder)
            self._take_in()
            return
        if not self._has_mark:
            models = self.registry.models_dir
            self._marked.enter_context(marks.changing(models, [marks.ALL]))
            self._has_mark = True
        with self.registry.claims.together(self._prepared):
            self._take_in()

    def _take_in(self) -> None:
        while self._waiting:
            one = self._waiting[0]
            merging.take_in(
                self.registry,
                self.report,
                one.record,
                one.folder,
                links=one.links,
                revive=self.revive,
            )
            self._waiting.popleft()
        self._bytes = self._held = 0
        self._prepared.clear()

    def _synced(self) -> bool:
        """Wait until all of it is on the disk; False where that can't be had for all at once."""
        with disk_errors(self.registry.incoming):
            return sync_file_system(self._disk)


def _sync(folder: Path) -> None:
    """Wait until everything in a folder is on the disk."""
    with disk_errors(folder):
        for below, _, names in os.walk(folder, topdown=False):
            for name in names:
                path = Path(below, name)
                if not path.is_symlink():
                    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                    try:
                        sync_file(fd)
                    finally:
                        os.close(fd)
            sync_directory(Path(below))
