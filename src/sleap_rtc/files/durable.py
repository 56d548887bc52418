"""Files that are there whole or not at all, also after a kill or a power cut.

Everything is first made under a temporary name ``.tmp-<16 hex digits>`` in the
directory where it will stand, synced, and then given its name by one system
call; last, the directory is synced, since a name is data of its directory.

==================  =========================================  =======================
call                decides by                                 when the name is taken
==================  =========================================  =======================
`write_new`         hard link, which fails if it exists        False, nothing changed
`write_replacing`   rename                                     the old content is gone
`written_whole`     either of these, for what is long          as asked
`place_directory`   rename, which fails on a filled directory  `AlreadyExists`
==================  =========================================  =======================

A file system without hard links (FAT, some network drives) has a lock instead,
which holds on one host alone.

All of them hold on NFS too. A hard link or a rename whose answer got lost is
reported there as a failure although it was done; so after an error the file is
asked: the temporary file's link count, or the directory's inode.

Out of space becomes :class:`~sleap_rtc.errors.OutOfSpace`, and a missing
permission :class:`~sleap_rtc.errors.PathNotPermitted`; any other ``OSError``
is passed on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from sleap_rtc.domain.units import format_bytes
from sleap_rtc.errors import AlreadyExists, OutOfSpace, PathNotPermitted
from sleap_rtc.files.locking import wait_for_lock

TEMPORARY: Final = ".tmp-"
"""How the names of unfinished files begin; readers of a directory skip them."""

_TRIED: Final = 4_096
"""Bytes that are written to see whether any can be: an empty file may need no room."""
_NO_HARD_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})
_NO_DIRECTORY_SYNC: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})


def write_new(path: Path, data: bytes, *, mode: int = 0o666) -> bool:
    """Make a file that must not exist yet; of several writers exactly one succeeds.

    Args:
        path: Where it will stand; its directory exists.
        data: The whole content.
        mode: Permission bits, before the umask.

    Returns:
        True when this call made it, False when the name is taken.

    Raises:
        OutOfSpace: The disk or the quota is full.
        PathNotPermitted: This user may not write there.
    """
    with disk_errors(path, need=len(data)), _temporary(path.parent, data, mode) as temporary:
        made = give_name(temporary, path)
        if made:
            sync_directory(path.parent)
        return made


def write_replacing(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file, in place of the old one if there is one; readers see either, never a mixture.

    Args:
        path: Where it will stand; its directory exists.
        data: The whole content.
        mode: Permission bits, before the umask; the old file's are not taken over.

    Raises:
        OutOfSpace: The disk or the quota is full; the old file stands.
        PathNotPermitted: This user may not write there; the old file stands.
    """
    with disk_errors(path, need=len(data)), _temporary(path.parent, data, mode) as temporary:
        temporary.rename(path)
        sync_directory(path.parent)


@contextlib.contextmanager
def written_whole(
    path: Path, *, replacing: bool = True, mode: int = 0o666, unfinished: Path | None = None
) -> Iterator[BinaryIO]:
    """A file that is written bit by bit, and has its name when the block ends well; else it's gone.

    Args:
        path: Where it will stand; its directory exists.
        replacing: Whether in place of the old one, if there is one.
        mode: Permission bits, before the umask.
        unfinished: Folder for it meanwhile, on the same file system; beside its place as a rule.

    Raises:
        AlreadyExists: Something is there that isn't to be replaced.
        OutOfSpace: The disk or the quota is full; what was there stands.
        PathNotPermitted: This user may not write there.
    """
    with disk_errors(path), _new_temporary(unfinished or path.parent, mode) as (temporary, fd):
        with open(fd, "wb", closefd=False) as file:
            yield file
            file.flush()
        sync_file(fd)
        if replacing:
            temporary.rename(path)
        elif not give_name(temporary, path):
            raise AlreadyExists(what=str(path))
        sync_directory(path.parent)


def give_name(temporary: Path, path: Path) -> bool:
    """Give a file that is on the disk its name too, unless that is taken.

    Whoever calls removes the temporary name, and syncs the directory.

    Returns:
        False when the name is taken.
    """
    try:
        os.link(temporary, path)
    except OSError as error:
        # Over NFS the link may have been made and its reply lost: a second name tells.
        if temporary.stat().st_nlink > 1:
            return True
        if error.errno == errno.EEXIST:
            return False
        if error.errno in _NO_HARD_LINKS:
            return _rename_locked(temporary, path)
        raise
    return True


def place_directory(source: Path, target: Path, *, sync: bool = True) -> None:
    """Give an assembled directory its final name, unless something is there.

    The files in it are synced already, and so are its own directories. An empty directory that
    another process makes at ``target`` in the same instant may be replaced: a rename does that,
    and nothing is lost by it. One with content never is.

    Args:
        source: A directory with at least one entry, on the same file system.
        target: Its new path.
        sync: Whether its new name is on the disk when this returns; for one of many it is enough
            that the caller syncs the directory that all of them are in.

    Raises:
        AlreadyExists: Something is at ``target``; both stay as they are.
        OutOfSpace: The disk or the quota is full.
        PathNotPermitted: This user may not write there.
    """
    if not os.listdir(source):  # noqa: PTH208 - text is enough
        raise ValueError(f"{source} is empty: its rename would not fail on another empty one")
    if os.path.lexists(target):
        raise AlreadyExists(what=str(target))
    inode = source.stat().st_ino
    with disk_errors(target):
        try:
            source.rename(target)
        except OSError as error:
            if not _is_directory(target, inode):
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise AlreadyExists(what=str(target)) from None
                raise
        # A rename is one change: where its new name is on the disk, the old one is gone.
        if sync:
            sync_directory(target.parent)


def make_directory(path: Path) -> None:
    """Make a directory, and those above it that are missing; the new names outlive a power cut.

    Args:
        path: Nothing happens when it is there already.

    Raises:
        OutOfSpace: The disk or the quota is full.
        PathNotPermitted: This user may not write there.
    """
    if path.is_dir():
        return
    with disk_errors(path):
        if not path.parent.is_dir():
            make_directory(path.parent)
        path.mkdir(exist_ok=True)
        sync_directory(path.parent)


def check_writable(directory: Path) -> None:
    """See that files can be written to a directory now: a small one is, and is gone again.

    Args:
        directory: Made when it isn't there.

    Raises:
        OutOfSpace: The disk or the quota is full.
        PathNotPermitted: This user may not write there.
    """
    make_directory(directory)
    try:
        with (
            disk_errors(directory / TEMPORARY, need=_TRIED),
            _temporary(directory, bytes(_TRIED), 0o600),
        ):
            pass
    except PathNotPermitted as error:  # about the directory, whatever the file's name was
        why, hint = error.details["why"], error.hint_text
        raise PathNotPermitted(path=str(directory), why=why, hint=hint) from None


def sync_file(fd: int) -> None:
    """Wait until an open file's content is on the disk, through its write cache too."""
    if sys.platform == "darwin":  # fsync leaves it in the drive's cache there
        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        except OSError:  # network file systems don't know it
            os.fsync(fd)
    else:
        os.fsync(fd)


def sync_directory(path: Path) -> None:
    """Wait until a directory's names are on the disk, where its file system can do that."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_open_directory(fd)
    finally:
        os.close(fd)


def sync_open_directory(fd: int) -> None:
    """The same of a directory that is open, wherever it is by now."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise


@contextlib.contextmanager
def disk_errors(path: Path, *, need: int | None = None) -> Iterator[None]:
    """Turn a full disk and missing permissions into errors that say what to do.

    Args:
        path: What is being written.
        need: Bytes that are being written, where it is known.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfSpace(
                path=str(path.parent),
                free="none of this user's quota" if error.errno == errno.EDQUOT else _free(path),
                need="more bytes" if need is None else format_bytes(need),
            ) from error
        if error.errno == errno.EROFS:
            raise PathNotPermitted(
                path=str(path),
                why="the file system is read-only",
                hint="Mount it for writing, or choose another place (SLEAP_RTC_HOME moves all).",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise PathNotPermitted(
                path=str(path),
                why="this user may not write here",
                hint=f"Get write permission for {path.parent}, or choose another place "
                "(SLEAP_RTC_HOME moves all).",
            ) from error
        raise


@contextlib.contextmanager
def _temporary(directory: Path, data: bytes, mode: int) -> Iterator[Path]:
    """A synced file under a temporary name, which is gone afterwards."""
    with _new_temporary(directory, mode) as (path, fd):
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        sync_file(fd)
        yield path


@contextlib.contextmanager
def _new_temporary(directory: Path, mode: int) -> Iterator[tuple[Path, int]]:
    """A new file under a temporary name, open for writing; the name is gone afterwards."""
    path = directory / f"{TEMPORARY}{secrets.token_hex(8)}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        yield path, fd
    finally:
        os.close(fd)
        with contextlib.suppress(OSError):
            path.unlink()


def _rename_locked(temporary: Path, path: Path) -> bool:
    """Where there are no hard links: look and rename, under a lock that holds on this host."""
    with _host_lock(path.parent):
        if os.path.lexists(path):
            return False
        temporary.rename(path)
    return True


@contextlib.contextmanager
def _host_lock(directory: Path) -> Iterator[None]:
    """A lock on a directory among the processes of this host."""
    held = _lock(directory)
    try:
        yield
    finally:
        os.close(held)


def _lock(directory: Path) -> int:
    """A descriptor that holds the lock; on another file system, where this one has no locks."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if wait_for_lock(fd):
            return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    folder = Path(tempfile.gettempdir()) / f"sleap-rtc-locks-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat(follow_symlinks=False).st_uid != os.getuid():
        raise PathNotPermitted(path=str(folder), why="it belongs to another user")
    name = hashlib.blake2b(os.fsencode(directory.resolve()), digest_size=16).hexdigest()
    fd = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)  # a file system without locks here, too, is an error
    return fd


def _is_directory(path: Path, inode: int) -> bool:
    try:
        return path.stat(follow_symlinks=False).st_ino == inode
    except OSError:
        return False


def _free(path: Path) -> str:
    try:
        return format_bytes(shutil.disk_usage(path.parent).free)
    except OSError:
        return "no space"
