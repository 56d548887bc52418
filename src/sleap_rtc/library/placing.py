"""A model's files: are they the listed ones, and how they come into its directory.

Sizes and kinds are checked here, not hashes: whoever put the files together has
verified them. Nothing is followed out of a directory: a link counts only where
the record names its target, which only an import from this machine writes.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec

from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.domain.packages import check_path
from sleap_rtc.errors import AlreadyExists, Damaged, FilesMissing, UnsafePath
from sleap_rtc.files.durable import (
    disk_errors,
    make_directory,
    sync_directory,
    sync_open_directory,
)
from sleap_rtc.library import records
from sleap_rtc.library.layout import is_own

_SHOWN = 5


def check_files(directory: Path, record: ModelRecord, *, links: bool) -> None:
    """Check that every listed file is there, with its size.

    Args:
        directory: Where the files are.
        record: Lists them.
        links: Whether links are allowed, to exactly the path that the record names.

    Raises:
        FilesMissing: With the names of those that aren't there.
        Damaged: A size differs.
        UnsafePath: A path leads elsewhere, or the file is a link or no file at all.
    """
    missing = [f.path for f in record.files if not check_file(directory, f, links=links)]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise FilesMissing(name=record.id, files=", ".join(missing[:_SHOWN]) + more)


def check_file(directory: Path, file: ModelFile, *, links: bool) -> bool:
    """Check one listed file.

    Returns:
        False when it isn't there.

    Raises:
        Damaged: Its size differs.
        UnsafePath: Its path leads elsewhere, or it is a link or no file at all.
    """
    path = directory / check_path(file.path)
    if is_own(file.path):
        raise UnsafePath(path=file.path, why="the library keeps its own data there")
    if file.link is not None and not links:
        raise UnsafePath(path=file.path, why="only a local import may link to other files")
    _check_parents(directory, file.path)
    try:
        found = path.stat(follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            if file.link is None or os.path.realpath(path) != file.link:
                raise UnsafePath(path=file.path, why="it is a link that the record doesn't name")
            found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISREG(found.st_mode):
        raise UnsafePath(path=file.path, why="it is not a file")
    if found.st_size != file.size:
        raise Damaged(
            what=str(path), why=f"it has {found.st_size} bytes; its record says {file.size}"
        )
    return True


def move_in(staged: Path, directory: Path, record: ModelRecord, *, links: bool) -> None:
    """Move a record's files from a staged directory to a model's; done again it goes on.

    Everything is checked before the first file moves. Emptied folders are removed, the staged one
    too.

    Raises:
        FilesMissing: A file is in neither place.
        Damaged: A size differs.
        UnsafePath: A path leads elsewhere, or a link may not be.
        AlreadyExists: A folder stands where a file shall be.
    """
    here = [file for file in record.files if check_file(staged, file, links=links)]
    arrived = {file.path for file in here}
    rest = tuple(file for file in record.files if file.path not in arrived)
    check_files(directory, msgspec.structs.replace(record, files=rest), links=links)
    touched: set[Path] = set()
    with disk_errors(directory):
        for file in here:
            target = directory / file.path
            _check_parents(directory, file.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                (staged / file.path).rename(target)
            except IsADirectoryError:
                raise AlreadyExists(what=f"the folder {target}") from None
            touched |= {parent for parent in target.parents if parent.is_relative_to(directory)}
        for folder in touched:
            sync_directory(folder)
    for folder in (*sorted(staged.rglob("*"), reverse=True), staged):
        with contextlib.suppress(OSError):  # what isn't empty, or no folder, stays
            folder.rmdir()


def withdraw(directory: Path, coming: ModelRecord) -> None:
    """Strike files off a model's list that are about to be replaced by others of the same name.

    So that at no instant a record lists a file whose content is another.
    """
    new = {file.path: file.blake3 for file in coming.files}

    def change(old: ModelRecord) -> ModelRecord:
        kept = tuple(f for f in old.files if new.get(f.path, f.blake3) == f.blake3)
        if kept == old.files:
            return old
        return msgspec.structs.replace(old, files=kept, package=None)

    records.update(directory, change)


def move_out(
    directory: Path,
    trash: Path,
    *,
    keep: Callable[[str], bool],
    still: Callable[[], bool] = lambda: True,
) -> None:
    """Move what is in a model's directory to a new folder, but for the names to keep.

    At any moment another process may move the directory away and place another model under its
    name. So the directory is opened, and what is moved is what is in that one, wherever it is by
    then; the other model's files are never touched.

    Args:
        directory: The model's.
        trash: The new folder.
        keep: Says of a name whether it stays.
        still: Asked when the directory is open: whether what has its name is still to be emptied.
    """
    with disk_errors(trash):
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            if not still() or not _is_named(fd, directory):
                return
            make_directory(trash)
            for name in sorted(os.listdir(fd)):  # noqa: PTH208 - of what is open, not of a path
                if not keep(name):
                    with contextlib.suppress(FileNotFoundError):  # who deletes it too was quicker
                        os.rename(name, trash / name, src_dir_fd=fd)
            sync_directory(trash)
            sync_open_directory(fd)
        finally:
            os.close(fd)


def _is_named(fd: int, directory: Path) -> bool:
    """Whether an open directory is the one at a path."""
    with contextlib.suppress(OSError):
        there = directory.stat(follow_symlinks=False)
        return os.path.samestat(os.fstat(fd), there)
    return False


def _check_parents(directory: Path, path: str) -> None:
    folder = directory
    for part in path.split("/")[:-1]:
        folder /= part
        if folder.is_symlink():
            raise UnsafePath(path=path, why="a folder in it is a link")
