"""The index: what lists and searches read instead of every model's directory.

::

    <local disk>/index/<hash of the library's path>-1/
    ├── current              name of the database in use
    ├── 5f0c….sqlite         the database
    └── lock                 held by whoever rebuilds

It can be deleted at any time. A new one is built beside the old one, and
``current`` is then replaced; processes that still have the old one open see
that at their next question. (A database is never renamed over another: SQLite
would take the old one's log for the new one's.)

Before it answers, it takes in the models named by marks that it hasn't seen.
It looks through the whole tree when it is new, when it slept for longer than
marks are kept, and every 10 minutes; on a large library in the background.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from hashlib import blake2b
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from loguru import logger

from sleap_rtc.errors import NewerFormat, SleapRtcError
from sleap_rtc.files.drives import drive_of
from sleap_rtc.files.durable import disk_errors, write_replacing
from sleap_rtc.files.locking import try_lock
from sleap_rtc.library import building, layout, marks, rows
from sleap_rtc.library.entries import Page, Query
from sleap_rtc.library.outgrown import remove_outgrown
from sleap_rtc.library.remembering import Shown
from sleap_rtc.library.telling import Told, unseen
from sleap_rtc.storage.sqlite import Database, local_folder

SCHEMA: Final = 5
"""Part of the folder's name: an older and a newer sleap-rtc never share an index. Those of earlier
formats are removed once nobody uses them (``outgrown.py``)."""

LOOK_EVERY_S: Final = 600.0
"""Seconds between looks through the whole tree."""

_NAME: Final = re.compile(r"[0-9a-f]{16}\.sqlite")
_NAMES: Final = 256
"""Bytes that are read of what should be such a name."""
_SMALL: Final = 5_000
"""Models up to which the tree is looked through at once: some 50 ms."""
_BATCH: Final = 200
"""Models that are taken in by one transaction, for whose time no other process can write."""
_WAIT_S: Final = 0.05
"""Seconds between looks whether another process has built the index."""
_DAMAGED: Final = "damaged-"
_KEPT_DAMAGED: Final = 3
_MAPPED: Final = 4 * 10**9
"""Bytes of the index that are read through a memory map."""
_TIDY_AFTER: Final = 50
"""Changes after which the log is moved into the database, in the background: some 20 MB."""
_MOST_LOG_PAGES: Final = 16_000
"""Pages of the log after which whoever writes does that: 64 MB."""
_TRUSTED_AGE_NS: Final = 2_000_000_000
"""A directory's time stamp tells of every change only when it is older than its clock is coarse."""

_T = TypeVar("_T")


class Recovered(msgspec.Struct, frozen=True):
    """What was built anew in place of a damaged index.

    Attributes:
        models: Number of models, from their records.
        aside: Where the damaged database is now.
    """

    models: int
    aside: Path


class Index:
    """The index of one library, for any number of threads; other processes may share its file."""

    def __init__(
        self,
        models: Path,
        *,
        load: Callable[[str], rows.Found | None],
        folder: Path | None = None,
        told: Told = unseen,
    ) -> None:
        """Make the view; the database is opened when it is first asked.

        Args:
            models: The library.
            load: Reads the model in a directory, None if it holds none.
            folder: Where indexes are kept, on a local disk; by default the user's cache.
            told: Told how far the index is, while somebody waits for it.
        """
        self._models = models
        self._load = load
        self._told = told
        self._parent = folder
        self._opening = threading.RLock()
        self._folder: Path | None = None
        self._db: Database | None = None
        self._shown = Shown(models)
        self._marks_stamp = 0
        self._seen: frozenset[str] = frozenset()
        self._looking: threading.Thread | None = None
        self._looks_again = False
        self._tidying: threading.Thread | None = None
        self._untidied = 0
        self.recovered: Recovered | None = None

    def page(self, query: Query) -> Page:
        """One page of a list.

        Raises:
            UsageError: A bad cursor.
            InvalidSearch: Its text can't be read.
            Busy: Another process held the index for too long.
            OutOfSpace: There is no room for the index.
        """

        def ask(db: Database) -> Page:
            with db.read() as reader:
                return rows.page(reader, query, self._shown)

        return self._answer(ask)

    def count(self, query: Query) -> int:
        """How many models a list has from its cursor on, without its limit.

        Raises:
            UsageError: A bad cursor.
            InvalidSearch: Its text can't be read.
        """

        def ask(db: Database) -> int:
            with db.read() as reader:
                return rows.count(reader, query)

        return self._answer(ask)

    def in_use(self, field: rows.Known, beginning: str = "", *, most: int = 1_000) -> list[str]:
        """What models have in a field, in order.

        Args:
            field: Which one.
            beginning: What it begins with, whatever its case.
            most: How many at most.
        """

        def ask(db: Database) -> list[str]:
            with db.read() as reader:
                return rows.in_use(reader, field, beginning, most)

        return self._answer(ask)

    def tombstones(self, before_us: int) -> list[str]:
        """Directories of models that were deleted before a time, microseconds since 1970."""

        def ask(db: Database) -> list[str]:
            with db.read() as reader:
                found = reader.execute(
                    "SELECT directory FROM tombstone WHERE deleted_at < ?", (before_us,)
                )
                return [directory for (directory,) in found]

        return self._answer(ask)

    def close(self) -> None:
        """Wait for what is done in the background, and close the database."""
        for thread in (self._looking, self._tidying):
            if thread is not None:
                thread.join()
        with self._opening:
            if self._db is not None:
                self._db.close()
                self._db = None

    def _answer(self, ask: Callable[[Database], _T]) -> _T:
        """Answer from an index that is up to date, making a new one if this one is damaged."""
        name = self._current()
        try:
            db = self._open(name)
            self._refresh(db)
            return ask(db)
        except sqlite3.ProgrammingError:
            # This thread or another one went over to a newer database, and closed this one.
            db = self._open(self._current())
        except (sqlite3.Error, NewerFormat, msgspec.DecodeError) as error:
            logger.bind(library=str(self._models), why=str(error)).warning(
                "the library's index is unusable and is built anew"
            )
            aside = self._set_aside(name) if isinstance(error, sqlite3.DatabaseError) else None
            db = self._rebuild(instead_of=name, told=self._told)
            if aside is not None:
                self.recovered = Recovered(models=_count(db), aside=aside)
                logger.bind(aside=str(aside), models=self.recovered.models).warning(
                    "the library's index was damaged and built anew from the records"
                )
        self._refresh(db)  # it may have been built by another thread, before the last change
        return ask(db)

    def _set_aside(self, name: str) -> Path | None:
        """Keep a damaged database under a name with the time; None if another process has."""
        folder = self._place()
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        aside = folder / f"{_DAMAGED}{stamp}-{secrets.token_hex(4)}.db"
        try:
            (folder / name).rename(aside)
        except OSError:
            return None
        for old in sorted(folder.glob(f"{_DAMAGED}*.db"))[:-_KEPT_DAMAGED]:
            old.unlink(missing_ok=True)
        return aside

    def _open(self, name: str) -> Database:
        with self._opening:
            if not name or not os.path.isfile(f"{self._place()}/{name}"):  # noqa: PTH113
                return self._rebuild(instead_of=name, told=self._told)
            if self._db is None or self._db.path.name != name:
                self._use(name)
            return self._database()

    def _current(self) -> str:
        """Name of the database in use, empty without a usable one."""
        try:
            # By the system's own calls: each question begins so.
            fd = os.open(f"{self._place()}/current", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return ""
        try:
            name = os.read(fd, _NAMES).decode("ascii", "replace").strip()
        finally:
            os.close(fd)
        return name if _NAME.fullmatch(name) else ""

    def _place(self) -> Path:
        if self._folder is None:
            parent = local_folder("index") if self._parent is None else self._parent
            real = os.fsencode(self._models.resolve())
            self._folder = parent / f"{blake2b(real, digest_size=16).hexdigest()}-{SCHEMA}"
        return self._folder

    def _database(self) -> Database:
        if self._db is None:
            raise RuntimeError("the index is closed")
        return self._db

    def _use(self, name: str) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
        self._db = Database(
            self._place() / name,
            _schema(),
            synchronous="NORMAL",
            mapped=_MAPPED,
            log_pages=_MOST_LOG_PAGES,
        )
        self._marks_stamp = 0
        with self._db.read() as reader:
            self._seen = frozenset(name for (name,) in reader.execute("SELECT name FROM mark"))

    def _rebuild(self, *, instead_of: str, told: Told) -> Database:
        """Build a new database and make it the current one, unless another process has."""
        folder = self._place()
        with disk_errors(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._opening, _locked(folder / "lock", told):
            name = self._current()
            if name not in ("", instead_of) and (folder / name).is_file():
                with contextlib.suppress(sqlite3.Error, NewerFormat):
                    if self._db is None or self._db.path.name != name:
                        self._use(name)
                    return self._database()
            name = f"{secrets.token_hex(8)}.sqlite"
            started = time.monotonic()
            self._use(name)
            db = self._database()
            self._take_in_marks(db, load=False)  # what is read then shows what they tell
            try:
                count = self._fill(db, told)
            except BaseException:
                self._forget(folder / name)
                raise
            write_replacing(folder / "current", name.encode("ascii"))
            for old in folder.glob("*.sqlite*"):
                if not old.name.startswith(name):
                    old.unlink(missing_ok=True)
            logger.bind(
                library=str(self._models), models=count, seconds=time.monotonic() - started
            ).info("the library's index was built")
            return db

    def _fill(self, db: Database, told: Told) -> int:
        """Take in every model, and tell how many there are."""
        # About in the order in which they were made: so they lie on the disk, and so rows are kept.
        names = sorted(
            layout.names(self._models), key=lambda name: stamp_of(f"{self._models}/{name}")
        )
        with db.fill() as writer:
            building.fill(
                writer, names, self._load, readers=drive_of(self._models).streams, told=told
            )
            _note(writer, "tree")
        self._prune()
        return len(names)

    def _forget(self, path: Path) -> None:
        """Remove a database that isn't whole."""
        if self._db is not None:
            self._db.close()
            self._db = None
        for part in path.parent.glob(f"{path.name}*"):
            part.unlink(missing_ok=True)

    def _refresh(self, db: Database) -> None:
        with db.read() as reader:
            looked = dict(reader.execute("SELECT what, at FROM looked"))
        now = time.time()
        overslept = not 0 <= now - looked.get("marks", 0.0) < marks.KEPT_S - LOOK_EVERY_S
        if not 0 <= now - looked.get("tree", 0.0) < LOOK_EVERY_S:
            self._look_soon(db, at_once=overslept)
        if self._take_in_marks(db, looked_at=looked.get("marks", 0.0)):
            # A great many changed, marks were pruned by another process, or the folder is another
            # library's.
            self._look_soon(db, anew=True)

    def _look_soon(self, db: Database, *, at_once: bool = False, anew: bool = False) -> None:
        """Look through the tree: at once in a small library, else while questions are answered.

        Args:
            db: The index.
            at_once: Whether it is done at once in a large one too.
            anew: Whether a look that is under way doesn't do: it may be past what has changed.
        """
        looking = self._looking
        under_way = looking is not None and looking.is_alive()  # then it needn't be counted either
        if at_once or not (under_way or _count(db) > _SMALL):
            self._look(db, self._told)
        else:
            self._look_in_background(db, anew=anew)

    def _look_in_background(self, db: Database, *, anew: bool) -> None:
        def look() -> None:
            again = True
            while again:
                try:
                    self._look(db, unseen)  # whoever watches has the answer already
                except (sqlite3.Error, SleapRtcError, OSError) as error:
                    logger.bind(why=str(error)).warning("the library could not be looked through")
                with self._opening:
                    again, self._looks_again = self._looks_again, False
                    if not again:
                        self._looking = None

        with self._opening:
            if self._looking is not None and self._looking.is_alive():
                self._looks_again |= anew
                return
            self._looks_again = False
            self._looking = threading.Thread(target=look, name="library look")
            self._looking.start()

    def _look(self, db: Database, told: Told) -> None:
        """Compare the tree with the index, and take in what differs.

        Args:
            db: The index.
            told: Told how far it is.
        """
        with db.read() as reader:
            known = rows.stamps(reader)
        found = set(layout.names(self._models))
        changed = {n for n in found if known.get(n, 0) != stamp_of(f"{self._models}/{n}")}
        differing = (known.keys() - found) | changed
        if len(differing) > max(_SMALL, len(known)):  # a new index is built sooner
            self._rebuild(instead_of=db.path.name, told=told)
            return
        for done, names in enumerate(_batches(differing, _BATCH)):
            told(done * _BATCH, len(differing))
            self._take_in(db, names)
        told(len(differing), len(differing))
        with db.write() as writer:
            _note(writer, "tree")
        self._prune()

    def _prune(self) -> None:
        """Remove what nobody needs any more: old marks, and indexes of earlier formats."""
        marks.prune(self._models)
        remove_outgrown(self._place())

    def _take_in_marks(self, db: Database, *, load: bool = True, looked_at: float = 0.0) -> bool:
        """Read the models again that marks name, and remember the marks that are final.

        Returns:
            Whether the whole tree is to be looked through: a mark says so, or some that were seen
            before are gone.
        """
        stamp, now = marks.stamp(self._models), time.time()
        noted = now - looked_at < LOOK_EVERY_S / 10
        if stamp and stamp == self._marks_stamp and noted:
            return False
        names = marks.names(self._models)
        fresh = [mark for name in names - self._seen if (mark := marks.parse(name))]
        over = {mark.name for mark in fresh if marks.is_over(self._models, mark)}
        everything = any(mark.directory == marks.ALL for mark in fresh if mark.name in over)
        if load:
            named = {mark.directory for mark in fresh} - {marks.ALL}
            if len(named) > _SMALL and len(named) > _count(db):
                self._rebuild(instead_of=db.path.name, told=self._told)
                return False
            for directories in _batches(named, _BATCH):
                self._take_in(db, directories)
        gone = self._seen - names
        if over or gone or not noted:
            with db.write() as writer:
                writer.executemany(
                    "INSERT OR IGNORE INTO mark VALUES (?)", [(name,) for name in over]
                )
                writer.executemany("DELETE FROM mark WHERE name = ?", [(name,) for name in gone])
                _note(writer, "marks")
                if everything:  # whoever is killed while it looks leaves that to the next one
                    writer.execute("DELETE FROM looked WHERE what = 'tree'")
            if load:  # else it is about to be filled, while nobody else may have it open
                self._tidy_up(db, len(over))
        self._seen = (self._seen | over) - gone
        settled = int(now * 1e9) - stamp > _TRUSTED_AGE_NS and len(over) == len(fresh)
        self._marks_stamp = stamp if settled else 0
        return bool(gone) or everything

    def _tidy_up(self, db: Database, changes: int) -> None:
        """Have a long log moved into the database, by a thread: that waits for the disk."""

        def tidy() -> None:
            with contextlib.suppress(sqlite3.Error):  # whoever writes next finds it as long
                db.checkpoint()

        with self._opening:
            self._untidied += changes
            if self._untidied >= _TIDY_AFTER and not (self._tidying and self._tidying.is_alive()):
                self._untidied = 0
                self._tidying = threading.Thread(target=tidy, name="library log")
                self._tidying.start()

    def _take_in(self, db: Database, directories: Iterable[str]) -> None:
        # Read within the write transaction: of two processes the later one has read later.
        with db.write() as writer:
            read = []
            for directory in directories:
                found = self._load(directory)
                if found is None:
                    rows.remove(writer, directory)
                else:
                    read.append(found)
            rows.put(writer, read)


def stamp_of(directory: str) -> int:
    """Time of the last change of a model's record, nanoseconds since 1970; 0 without one."""
    try:
        # A path as text: all models' are asked for at each look through the tree.
        return os.stat(f"{directory}/{layout.RECORD}").st_mtime_ns  # noqa: PTH116
    except OSError:
        return 0


def _schema() -> Traversable:
    return files("sleap_rtc.library") / "migrations"


def _count(db: Database) -> int:
    with db.read() as reader:
        (count,) = reader.execute("SELECT count(*) FROM model").fetchone()
        return int(count)


def _note(writer: sqlite3.Connection, what: str) -> None:
    writer.execute("INSERT OR REPLACE INTO looked VALUES (?, ?)", (what, time.time()))


def _batches(items: Iterable[str], most: int) -> Iterator[list[str]]:
    iterator = iter(items)
    while batch := list(islice(iterator, most)):
        yield batch


@contextlib.contextmanager
def _locked(path: Path, told: Told) -> Iterator[None]:
    """Hold a lock among the processes of this host; its file is on a local disk."""
    with disk_errors(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while try_lock(fd) == "taken":
            told(0, 1)  # how far the other process is, it doesn't say
            time.sleep(_WAIT_S)
        told(1, 1)
        yield
    finally:
        os.close(fd)
