"""Ways in which one file can stand for another, behind one interface.

==========  =========================  ============================  =========================
method      works                      the original may be           taking it away is safe if
==========  =========================  ============================  =========================
symlink     where there are links      on any file system            it still leads there
relative    the same, and the tree     below the same folder         it still leads there
            may be moved as a whole
hardlink    on one file system         deleted                       it is still the same file
reflink     Btrfs, XFS, APFS           deleted, and changed          we made it (never by name)
copy        everywhere                 deleted, and changed          we made it (never by name)
==========  =========================  ============================  =========================

Only what we made, and what still is as we made it, is ever removed: a link that
somebody has turned elsewhere is theirs.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Final, Literal

import msgspec

from sleap_rtc.errors import NotPermitted
from sleap_rtc.files.beneath import open_file
from sleap_rtc.files.copying import clone, copy_hashed
from sleap_rtc.files.durable import disk_errors, sync_file

Method = Literal["symlink", "relative", "hardlink", "reflink", "copy"]

_NOT_THERE: Final = frozenset(
    {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}
)
_WORDS: Final[dict[Method, str]] = {
    "symlink": "links",
    "relative": "links",
    "hardlink": "hard links to there",
    "reflink": "shared copies of files there",
    "copy": "files",
}


class Made(msgspec.Struct, frozen=True):
    """A file that stands for another.

    Attributes:
        method: How.
        path: Where it is.
        target: What it stands for; for a link, the text in it.
        inode: Device and inode of what was made.
    """

    method: Method
    path: Path
    target: str
    inode: tuple[int, int]


def make(method: Method, source: Path, path: Path) -> Made:
    """Let a new path stand for a file.

    Args:
        method: How.
        source: The file, absolute.
        path: Must not exist; its folder does.

    Raises:
        NotPermitted: The file system has no such thing.
        FileExistsError: Something is there.
        OutOfSpace: The disk is full.
        PathNotPermitted: This user may not write there.
    """
    target = str(source)
    try:
        match method:
            case "symlink":
                path.symlink_to(source)
            case "relative":
                target = os.path.relpath(source, os.path.realpath(path.parent))
                path.symlink_to(target)
            case "hardlink":
                path.hardlink_to(source)
            case "reflink":
                _share(source, path)
            case "copy":
                copy_hashed(source, path)
    except OSError as error:
        if error.errno in _NOT_THERE:
            raise NotPermitted(
                message=f"The file system of {path.parent} has no {_WORDS[method]}.",
                hint="Add --copy, or move the library to another disk (SLEAP_RTC_HOME).",
            ) from None
        with disk_errors(path):
            raise
    found = path.lstat()
    return Made(method=method, path=path, target=target, inode=(found.st_dev, found.st_ino))


def is_ours(made: Made) -> bool:
    """Whether a path still is what we made there."""
    try:
        if made.method in ("symlink", "relative"):
            return str(made.path.readlink()) == made.target
        found = made.path.lstat()
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == made.inode


def leads_to(path: Path, target: Path) -> bool:
    """Whether a path is a link, and leads to a file by whatever way; the file may be gone."""
    return path.is_symlink() and os.path.realpath(path) == os.path.realpath(target)


def remove(made: Made) -> bool:
    """Remove what we made, if it still is that.

    Returns:
        False when something else is there, or nothing.
    """
    if not is_ours(made):
        return False
    with contextlib.suppress(FileNotFoundError):
        made.path.unlink()
        return True
    return False


def _share(source: Path, path: Path) -> None:
    fd = open_file(source)
    try:
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            if not clone(fd, made):
                path.unlink()
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            sync_file(made)
        finally:
            os.close(made)
    finally:
        os.close(fd)
