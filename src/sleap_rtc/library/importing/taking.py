"""From what was examined to a model of the library.

::

    link     hash the files ─────────────► links in .incoming ──┐
    copy     copy and hash, in one pass ─► .incoming ───────────┼─► claim the content ─► there
    move     hash what was unpacked ─────► .incoming ───────────┘   already? say so, else place
    adopt    hash what lies in the library ─► its record

Files are hashed at once, also for a link: the id of a foreign model is made
from its checkpoint's hash, a record lists no file without one, and "it is here
already" can be said by nothing else. With all cores that is 0.3 s for 2 GB, and
nothing for a file whose hash is remembered.

Two imports of one model, at once too, give one: whoever holds the claim on the
content looks for it and places it; the other finds it there.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import msgspec
from blake3 import blake3
from loguru import logger

from sleap_rtc.domain.ids import ModelId, Recipe, recipe
from sleap_rtc.domain.models import ModelFile, ModelRecord, Training, Trust
from sleap_rtc.domain.packages import FileEntry, package
from sleap_rtc.errors import AlreadyExists, Busy, DataError, NotFound, UnsafePath
from sleap_rtc.files.beneath import open_file
from sleap_rtc.files.claim import Claim
from sleap_rtc.files.copying import copy_hashed
from sleap_rtc.files.durable import TEMPORARY, disk_errors, sync_directory
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.hashing import FileHashes, hash_open, stamp_of
from sleap_rtc.files.linking import make
from sleap_rtc.library import layout, repair
from sleap_rtc.library.checking import state_of
from sleap_rtc.library.entries import MAX_LIMIT, Entry, Query
from sleap_rtc.library.importing.examining import Examined
from sleap_rtc.library.inspection.profiles import Profile
from sleap_rtc.library.registry import Registry

Way = Literal["link", "copy", "move", "adopt"]
Progress = Callable[[int], None]
"""Told of the bytes that were just hashed, from several threads; what it raises ends the import."""

_WAIT_S: Final = 0.05
_ENGINES: Final = {"sleap-nn": "sleap-nn", "sleap": "sleap"}


class Taken(msgspec.Struct, frozen=True):
    """A model that was imported.

    Attributes:
        entry: The model.
        known: Whether it was here already, and nothing was added.
        mended: How many files of a model that was here already are others now: it lacked them, or
            they were links and copies were asked for.
    """

    entry: Entry
    known: bool
    mended: int = 0


class Hashed(msgspec.Struct, frozen=True):
    """A file that was hashed."""

    size: int
    hashes: FileHashes


def take(
    registry: Registry,
    examined: Examined,
    *,
    way: Way,
    model_type: str,
    name: str,
    trusted: bool,
    streams: int,
    clock: Callable[[], datetime],
    cache: HashCache | None = None,
    progress: Progress | None = None,
    random_id: Callable[[], str] = lambda: secrets.token_hex(4),
) -> Taken:
    """Import a model.

    Args:
        registry: The library.
        examined: What is known of it.
        way: By links, by copies, by moving files that lie in the library's ``.incoming``, or by
            giving a record to a folder of the library that has none (REG-9).
        model_type: Its head.
        name: What it is called if its configuration doesn't say.
        trusted: Whether a person said yes to what was found in its files.
        streams: Files that are read at once.
        clock: The time now, UTC.
        cache: Hashes of unchanged files.
        progress: Told of what was hashed.
        random_id: The id of a model that has no configuration.

    Raises:
        NotTrusted: Something was found in a file, and nobody said yes.
        SourceChanged: A file changed while it was read.
        OutOfSpace: The disk is full; nothing was added.
        NotPermitted: The library's file system has no links.
        SleapRtcError: A file can't be read.
    """
    if not trusted:
        examined.check_trusted()
    folder = registry.incoming / f"{TEMPORARY}import-{secrets.token_hex(8)}"
    with disk_errors(folder):
        folder.mkdir()
    try:
        hashed = _bring(folder, examined, way=way, streams=streams, cache=cache, progress=progress)
        record = _record(
            examined,
            hashed,
            way=way,
            model_type=model_type,
            name=name,
            trusted=trusted,
            at=clock(),
            random_id=random_id,
        )
        with _claimed(registry, record):
            there = find_same(registry, record)
            if there is None and examined.candidate.origin == "file":
                there = _of_same_recipe(registry, record)
            if there is not None:
                return _make_good(registry, there, examined, hashed, folder, way=way, cache=cache)
            if way == "adopt":
                return _adopt(registry, examined.candidate.path, record)
            if way == "link":
                _link(folder, record)
            entry = registry.place(folder, record, links=way == "link")
            return Taken(entry=entry, known=folder.exists())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def find_same(registry: Registry, record: ModelRecord) -> Entry | None:
    """The model with the same content that is here already, whatever its files are called."""
    wanted = content_of(record)
    query = Query(text=f"size:{record.size}", types=(record.model_type,), limit=MAX_LIMIT)
    while True:
        page = registry.list(query)
        for entry in page.entries:
            if entry.record.files and content_of(entry.record) == wanted:
                return entry
        if page.cursor is None:
            return None
        query = msgspec.structs.replace(query, cursor=page.cursor)


def _of_same_recipe(registry: Registry, record: ModelRecord) -> Entry | None:
    """The model that a checkpoint by itself is of: its recipe has the checkpoint's hash in it."""
    if record.full_hash is None:
        return None
    with contextlib.suppress(NotFound, DataError):
        entry = registry.get(record.id)
        if entry.record.full_hash == record.full_hash:
            return entry
    return None


def _make_good(
    registry: Registry,
    entry: Entry,
    examined: Examined,
    hashed: dict[str, Hashed],
    folder: Path,
    *,
    way: Way,
    cache: HashCache | None,
) -> Taken:
    """Give a model that is here already what this import brings and it lacks.

    Files that aren't there any more are linked to where they are now, or copied; whoever asks for
    copies gets them in place of links, since the originals may be about to be deleted.
    """
    brought: dict[str, list[str]] = {}
    for path, each in hashed.items():
        brought.setdefault(each.hashes.blake3, []).append(path)
    wanted: dict[str, str] = {}
    remembered = cache or HashCache(folder / "no-such-folder")
    for file in entry.record.files:
        same = brought.get(file.blake3)
        copied = way in ("copy", "move")
        if same and (
            (copied and file.link is not None)
            or state_of(entry.directory, file, remembered) != "ok"
        ):
            wanted[file.path] = same.pop() if copied else same[-1]
    if not wanted or way == "adopt":
        return Taken(entry=entry, known=True)
    try:
        if way == "link":
            found = {path: examined.candidate.files[mine] for path, mine in wanted.items()}
            entry = repair.relink(registry, entry, found)
        else:
            entry = _put_copies(registry, entry, folder, wanted)
    except UnsafePath as error:  # something of a person's is in the way: repair-model shows it
        logger.bind(model=entry.id, why=error.message).warning("a model that is here stays broken")
        return Taken(entry=entry, known=True)
    if entry.record.status == "missing" and not repair.examine(entry, remembered):
        entry = repair.found_again(registry, entry)
    return Taken(entry=entry, known=True, mended=len(wanted))


def _put_copies(registry: Registry, entry: Entry, folder: Path, wanted: dict[str, str]) -> Entry:
    """Move files out of a folder to their places in a model that is here already."""
    ready = registry.claims.new_folder()
    try:
        for path, mine in wanted.items():
            target = ready / path
            with disk_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                (folder / mine).rename(target)
        return repair.put_back(registry, entry, ready)
    finally:
        shutil.rmtree(ready, ignore_errors=True)


def _adopt(registry: Registry, folder: Path, record: ModelRecord) -> Taken:
    """Give a folder of the library its record; the id is the one in its name."""
    named = layout.parse(folder.name)
    if named is None:
        raise DataError(what=str(folder), why="its name is not of the form type_0123abcd")
    adopted = msgspec.structs.replace(record, model_type=named[0], id=named[1])
    entry = registry.settle(adopted, revive=True)
    if entry is None:
        raise AlreadyExists(what=f"the model {folder.name}")
    return Taken(entry=entry, known=False)


def content_of(record: ModelRecord) -> list[tuple[int, str]]:
    """What a model's files hold, apart from their names."""
    return sorted((file.size, file.blake3) for file in record.files)


# ── files ────────────────────────────────────────────────────────────────────


def _bring(
    folder: Path,
    examined: Examined,
    *,
    way: Way,
    streams: int,
    cache: HashCache | None,
    progress: Progress | None,
) -> dict[str, Hashed]:
    """Hash all files, and copy or move them; as many at once as the drive likes."""
    stopped = threading.Event()

    def told(more: int) -> None:
        if stopped.is_set():
            raise InterruptedError
        if progress is not None:
            progress(more)

    def one(path: str, real: Path) -> Hashed:
        target = folder / path
        if way in ("copy", "move"):
            with disk_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
        if way == "copy":
            copied = copy_hashed(real, target, cache=cache, progress=told)
            return Hashed(size=copied.stamp.size, hashes=copied.hashes)
        hashed = _hash(real, cache=cache, progress=told, sync=way == "move")
        if way == "move":
            with disk_errors(target):
                real.rename(target)
        return hashed

    files = examined.candidate.files
    found: dict[str, Hashed] = {}
    pool = ThreadPoolExecutor(max_workers=max(1, streams), thread_name_prefix="import")
    try:
        work = {pool.submit(one, path, real): path for path, real in files.items()}
        for done in as_completed(work):
            found[work[done]] = done.result()
    except BaseException:
        stopped.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    if way in ("copy", "move"):
        for each in {folder, *(p for path in files for p in (folder / path).parents
                               if p.is_relative_to(folder))}:  # fmt: skip
            sync_directory(each)
    return found


def _hash(path: Path, *, cache: HashCache | None, progress: Progress, sync: bool) -> Hashed:
    fd = open_file(path)
    try:
        if sync:
            os.fsync(fd)
        stamp = stamp_of(fd)
        known = None if cache is None else cache.get(stamp)
        if known is not None:
            progress(stamp.size)
            return Hashed(size=stamp.size, hashes=known)
        stamp, hashes = hash_open(fd, name=str(path), progress=progress)
        if cache is not None:
            cache.put(stamp, hashes)
        return Hashed(size=stamp.size, hashes=hashes)
    finally:
        os.close(fd)


def _link(folder: Path, record: ModelRecord) -> None:
    """Make the links; they are absolute, since the folder will be renamed to another depth."""
    folders = {folder}
    for file in record.files:
        path = folder / file.path
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        folders |= {each for each in path.parents if each.is_relative_to(folder)}
        make("symlink", Path(file.link or ""), path)
    for each in folders:
        sync_directory(each)


@contextlib.contextmanager
def _claimed(registry: Registry, record: ModelRecord) -> Iterator[None]:
    """Let nobody else import this content meanwhile."""
    key = blake3(msgspec.json.encode(content_of(record))).hexdigest()[:32]
    while True:
        try:
            claim = Claim(registry.incoming / f"{TEMPORARY}claim-{key}", what="this import")
            break
        except Busy:
            time.sleep(_WAIT_S)
    try:
        yield
    finally:
        claim.remove()


# ── the record ───────────────────────────────────────────────────────────────


def _record(
    examined: Examined,
    hashed: dict[str, Hashed],
    *,
    way: Way,
    model_type: str,
    name: str,
    trusted: bool,
    at: datetime,
    random_id: Callable[[], str],
) -> ModelRecord:
    candidate, profile = examined.candidate, examined.profile
    checkpoint = _checkpoint(examined)
    files = tuple(_listed(examined, path, hashed[path], way=way) for path in sorted(hashed))
    suspicious = examined.suspicious
    trust = None
    if trusted and suspicious:
        why = "; ".join(f"{path}: {found}" for path, found in suspicious.items())[:1_000]
        trust = Trust(at=at, files=tuple(suspicious), why=why)
    common = {
        "status": "imported",
        "source": "local-import",
        "checkpoint": checkpoint,
        "config": None if profile is None else profile.path,
        "files": files,
        "package": package_id(
            FileEntry(path=path, size=file.size, hashes=file.hashes.blocks)
            for path, file in hashed.items()
        ),
        "downloaded_at": at,
        "trust": trust,
        "interruption": None,
        "failure": None,
        "deleted_at": None,
        "same_recipe_as": None,
    }
    if examined.record is not None:
        # Its id travels with it; what it is here, and what may be believed of it, does not.
        return msgspec.structs.replace(examined.record, model_type=model_type, **common)
    run_name = profile.run_name if profile is not None and profile.run_name else name
    made = _recipe(examined, hashed[checkpoint], model_type=model_type, run_name=run_name)
    return ModelRecord(
        id=ModelId(random_id()) if made is None else made.model_id,
        full_hash=None if made is None else made.full_hash,
        canonical=None if made is None else made.canonical,
        name=run_name[:1_000],
        model_type=model_type,
        created_at=at,
        completed_at=None if way == "move" else _changed(candidate.files[checkpoint]),
        metrics=examined.metrics,
        training=training_of(profile, candidate.weights),
        skeleton=() if profile is None else profile.skeleton,
        **common,  # type: ignore[arg-type]
    )


def _recipe(
    examined: Examined, checkpoint: Hashed, *, model_type: str, run_name: str
) -> Recipe | None:
    """The recipe: the checkpoint's hash stands for the labels', which nobody knows."""
    if examined.profile is None:
        return None
    made = recipe(
        model_type=model_type,
        backbone=examined.profile.backbone,
        run_name=run_name,
        dataset_hash=checkpoint.hashes.blake3,
    )
    return made if len(made.canonical) <= 100_000 else None


def _checkpoint(examined: Examined) -> str:
    """The file to use first: what the model's own record says, else by name."""
    weights = examined.candidate.weights
    told = examined.record.checkpoint if examined.record is not None else None
    return told if told in weights else weights[0]


def _listed(examined: Examined, path: str, hashed: Hashed, *, way: Way) -> ModelFile:
    looked = examined.looked.get(path)
    return ModelFile(
        path=path,
        size=hashed.size,
        blake3=hashed.hashes.blake3,
        link=str(examined.candidate.files[path]) if way == "link" else None,
        safety=None if looked is None else looked.tier,
        found="" if looked is None else looked.sentence,
    )


def package_id(entries: Iterable[FileEntry]) -> str | None:
    """Id of the package of a model's files; None for names that only case tells apart.

    A model of such files can stay here, and not travel.
    """
    try:
        return package(entries).id
    except DataError:
        return None


def training_of(profile: Profile | None, files: Iterable[str]) -> Training:
    """How a model came to be, as far as its configuration tells.

    Args:
        profile: The configuration, if there is one that can be read.
        files: Paths of the model's weights.
    """
    if profile is None:
        return Training()
    tiny = any(path.endswith(".npz") for path in files)
    return Training(
        engine="tiny" if tiny else _ENGINES[profile.family],
        engine_version=profile.version,
        dataset_name=profile.dataset,
        hyperparameters=profile.hyperparameters,
    )


def _changed(path: Path) -> datetime | None:
    """When a file was last written: for a checkpoint, about when its training ended."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except (OSError, ValueError, OverflowError):
        return None
