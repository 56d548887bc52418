"""SQLite files: one writer, many readers, a schema in numbered SQL files.

A schema is a folder of ``0001_what.sql``, ``0002_…``; ``PRAGMA user_version``
is the number of the last one that was applied. Each runs in a transaction of
its own, and a file that already has content is copied beside itself
(``….before-2``) before the first of a new lot.

The write-ahead log needs shared memory and locks that network file systems
don't keep, so such a file belongs on a local disk: :func:`network_file_system`
tells, :func:`local_folder` finds one.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import re
import sqlite3
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final, Literal

import platformdirs
from loguru import logger

from sleap_rtc.errors import Busy, NewerFormat, OutOfSpace
from sleap_rtc.files.durable import sync_file

VAR_TMP: Final = Path("/var/tmp")  # noqa: S108 - who owns what is in it is checked

_FILLING: Final = (
    "journal_mode = OFF",
    "synchronous = OFF",
    "cache_size = -65536",
    "mmap_size = 0",  # what was written stays in memory no longer than need be
)
_FILE: Final = re.compile(r"(\d{4})_\w+\.sql")
_NETWORK: Final = frozenset(
    (
        *("9p", "afs", "beegfs", "ceph", "cifs", "fuse.sshfs", "glusterfs", "gpfs", "lustre"),
        *("nfs", "nfs4", "orangefs", "panfs", "smb3", "smbfs", "virtiofs"),
    )
)


class Database:
    """One SQLite file in WAL mode.

    Threads may share it: writers take turns, each reader has a connection of its own. Other
    processes may have it open too.
    """

    def __init__(
        self,
        path: Path,
        schema: Traversable,
        *,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        wait_s: float = 30.0,
        mapped: int = 0,
        log_pages: int = 1_000,
        name: str = "",
    ) -> None:
        """Open the file, making it if need be, and bring its schema up to date.

        Args:
            path: The file, on a local disk; its folder exists.
            schema: Folder of the numbered SQL files.
            synchronous: ``FULL`` keeps each commit through a power cut; ``NORMAL`` may lose the
                last ones, never the file.
            wait_s: How long a writer waits for another process.
            mapped: Bytes of the file that are read through a memory map, which makes long scans
                several times quicker; 0 for none.
            log_pages: Pages of the log after which a commit moves them into the file, and waits for
                the disk; more where :meth:`checkpoint` is called now and then.
            name: What errors call it, where those who hear them aren't to know its path, which is
                then in the log.

        Raises:
            NewerFormat: A later sleap-rtc has changed the schema.
            sqlite3.DatabaseError: Not a database, or a damaged one.
        """
        self.path = path
        self._name = name
        self._wait_s = wait_s
        self._mapped = mapped
        self._synchronous = synchronous
        self._writing = threading.Lock()
        self._readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._closed = False
        self._writer = self._connect()
        try:
            self._write_ahead()
            self._writer.execute(f"PRAGMA synchronous = {synchronous}")
            self._writer.execute(f"PRAGMA wal_autocheckpoint = {log_pages}")
            self._migrate(_steps(schema))
        except BaseException:
            self._writer.close()
            raise

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that nobody else writes in; rolled back when its block raises."""
        with self._writing, self._translated():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def fill(self) -> Iterator[sqlite3.Connection]:
        """One large transaction for a new file that nobody else has open, several times quicker.

        There is no log and no waiting for the disk until its block has ended; then all of it is on
        the disk. If the block raises, the file is no database any more, and is to be removed.
        """
        with self._writing, self._translated():
            self._close_readers()  # the log can only be left by the last one who reads it
            writer = self._writer
            for setting in _FILLING:
                writer.execute(f"PRAGMA {setting}")
            writer.execute("BEGIN IMMEDIATE")
            yield writer
            writer.execute("COMMIT")
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                sync_file(fd)
            finally:
                os.close(fd)
            self._write_ahead()
            usual = ("cache_size = -2000", f"mmap_size = {self._mapped}")
            for setting in (f"synchronous = {self._synchronous}", *usual):
                writer.execute(f"PRAGMA {setting}")

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One consistent view, which no writer disturbs or waits for.

        Raises:
            sqlite3.ProgrammingError: It was closed.
        """
        try:
            reader = self._readers.get_nowait()
        except queue.Empty:
            if self._closed:  # a file that is gone by now would be made again
                raise sqlite3.ProgrammingError(f"{self.path} is closed") from None
            reader = self._connect()
            reader.execute("PRAGMA query_only = ON")
        try:
            with self._translated():
                reader.execute("BEGIN")
                yield reader
        finally:
            with contextlib.suppress(sqlite3.Error):
                reader.rollback()
            if self._closed:
                reader.close()
            else:
                self._readers.put(reader)

    def checkpoint(self) -> None:
        """Move what is in the log into the file, as far as no reader needs it; nobody has to wait.

        Raises:
            sqlite3.Error: It was closed, or can't be written.
        """
        if self._closed:
            raise sqlite3.ProgrammingError(f"{self.path} is closed")
        with contextlib.closing(self._connect()) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def close(self) -> None:
        """Close every connection; a reader that is still at work closes its own."""
        self._closed = True
        self._close_readers()
        with self._writing:
            self._writer.close()

    def _close_readers(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._readers.get_nowait().close()

    def _write_ahead(self) -> None:
        """Have writers not disturb readers.

        SQLite waits for no lock here, since two that open a new file at once would wait for each
        other: whoever is refused lets go, and tries again.
        """
        end = time.monotonic() + self._wait_s
        while True:
            try:
                self._writer.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                    raise
                time.sleep(random.uniform(0.002, 0.02))  # noqa: S311 - so that they don't meet again
            else:
                return

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=self._wait_s, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA foreign_keys = ON")
        if self._mapped:
            connection.execute(f"PRAGMA mmap_size = {self._mapped}")
        return connection

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if primary == sqlite3.SQLITE_BUSY:
                self._log(error)
                what = self._name or str(self.path)
                raise Busy(what=what, by=f" for more than {self._wait_s:g} s") from error
            if primary == sqlite3.SQLITE_FULL:
                self._log(error)
                where = self._name or str(self.path.parent)
                raise OutOfSpace(path=where, free="too little", need="more bytes") from error
            raise

    def _log(self, error: sqlite3.Error) -> None:
        if self._name:
            logger.error("{}: {}", self.path, error)

    def _migrate(self, steps: list[tuple[int, str]]) -> None:
        newest = steps[-1][0]
        found = self._version()
        if found > newest:
            raise NewerFormat(what=str(self.path), found=found, known=newest)
        if 0 < found < newest:
            self._back_up(found)
        for number, script in steps:
            if number <= found:
                continue
            with self.write() as writer:
                if self._version() < number:  # another process may have been quicker
                    for statement in _statements(script):
                        writer.execute(statement)
                    writer.execute(f"PRAGMA user_version = {number}")

    def _version(self) -> int:
        (version,) = self._writer.execute("PRAGMA user_version").fetchone()
        return int(version)

    def _back_up(self, version: int) -> None:
        copy = self.path.with_name(f"{self.path.name}.before-{version + 1}")
        if copy.exists():
            return
        # What a full disk or a power cut left of one must not count as one.
        half = copy.with_name(f"{copy.name}.{os.getpid()}.half")
        half.unlink(missing_ok=True)
        try:
            self._writer.execute("VACUUM INTO ?", (str(half),))
            fd = os.open(half, os.O_RDONLY | os.O_CLOEXEC)
            try:
                sync_file(fd)
            finally:
                os.close(fd)
            half.replace(copy)
        finally:
            half.unlink(missing_ok=True)


def network_file_system(path: Path) -> str | None:
    """The kind of network file system that a path is on (``nfs4``), or None on a local one.

    Known on Linux; elsewhere every path counts as local. The path need not exist yet.
    """
    if not sys.platform.startswith("linux"):
        return None
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    kind = _kind_of(path.resolve(), mounts)
    return kind if kind in _NETWORK else None


def local_folder(name: str) -> Path:
    """A folder on a local disk for files that may be lost: the user's cache, else temporary space.

    Args:
        name: Its name there.

    Returns:
        The folder, made, and readable by this user alone.
    """
    uid = os.getuid()
    candidates = [
        platformdirs.user_cache_path("sleap-rtc"),
        VAR_TMP / f"sleap-rtc-{uid}",
        Path(tempfile.gettempdir()) / f"sleap-rtc-{uid}",
    ]
    for parent in candidates:
        if network_file_system(parent) is None:
            with contextlib.suppress(OSError):
                folder = parent / name
                parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.mkdir(mode=0o700, exist_ok=True)
                if _own(parent) and os.access(folder, os.W_OK):
                    return folder
    return Path(tempfile.mkdtemp(prefix="sleap-rtc-"))


def _own(folder: Path) -> bool:
    """Whether a folder is a real one and this user's: others may write beside it."""
    found = folder.stat(follow_symlinks=False)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


def _kind_of(path: Path, mounts: str) -> str:
    """The file system type of the innermost mount above a path, from mountinfo's text."""
    best, kind = -1, ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = Path(re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), fields[4]))
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split()[0]
    return kind


def _steps(schema: Traversable) -> list[tuple[int, str]]:
    found = [(_FILE.fullmatch(item.name), item) for item in schema.iterdir()]
    steps = sorted((int(match[1]), item.read_text("utf-8")) for match, item in found if match)
    if [number for number, _ in steps] != list(range(1, len(steps) + 1)) or not steps:
        raise ValueError(f"the SQL files in {schema} are not numbered 0001, 0002, …")
    return steps


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, triggers in one piece."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if pending.strip():
        yield pending
