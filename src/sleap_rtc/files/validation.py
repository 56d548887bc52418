"""Can these files be read, and can they be written there? Asked before anything is begun.

Every answer is a sentence for a person: what is wrong, where, what to do.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from sleap_rtc.domain.units import format_bytes
from sleap_rtc.errors import DataError, NotFound, PathNotPermitted, UnsafePath
from sleap_rtc.files.drives import Mount, mount_of
from sleap_rtc.files.space import check_space

FAT: Final = frozenset({"vfat", "msdos", "fat", "umsdos"})
FAT_LIMIT: Final = (1 << 32) - 1
"""Bytes of the largest file on FAT."""
WINDOWS: Final = FAT | {"exfat", "ntfs", "ntfs3", "fuseblk", "cifs", "smb3"}
"""File systems with the rules of Windows for names."""
MAX_NAME: Final = 128
"""Characters of a name that is safe everywhere."""

_FORBIDDEN: Final = re.compile(r'[<>:"|?*\\/\x00-\x1f\x7f-\x9f]')
_RESERVED: Final = re.compile(r"(?:con|prn|aux|nul|com[1-9]|lpt[1-9])(?:\..*)?", re.IGNORECASE)


def check_source(path: Path) -> os.stat_result:
    """See that a path leads to something that can be read.

    Returns:
        What it is.

    Raises:
        NotFound: There is nothing, or a link that leads nowhere.
        UnsafePath: Links that lead to each other.
        PathNotPermitted: This user may not read it.
        DataError: It is a pipe, a device, a socket, or a disk that doesn't answer.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            target = os.readlink(path)  # noqa: PTH115 - the text in it
            raise NotFound(
                message=f"{path} is a link to {target}, and there is nothing.",
                hint="Is its disk plugged in and mounted?",
            ) from None
        raise NotFound(message=f"There is no {path}.") from None
    except PermissionError:
        raise _unreadable(path) from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnsafePath(path=str(path), why="it is a link that leads to itself") from None
        raise DataError(what=str(path), why=f"it can't be read ({error.strerror})") from None
    except ValueError:
        raise NotFound(message="There is no path with a null character in it.") from None
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise DataError(what=str(path), why="it is neither a file nor a folder")
    wanted = os.R_OK | (os.X_OK if stat.S_ISDIR(found.st_mode) else 0)
    if not os.access(path, wanted, effective_ids=os.access in os.supports_effective_ids):
        raise _unreadable(path)
    return found


def check_target(
    folder: Path,
    *,
    need: int,
    largest: int = 0,
    names: Iterable[str] = (),
    mount: Mount | None = None,
) -> None:
    """See that files can be written to a folder.

    Args:
        folder: Where they will be; it, or a parent of it, exists.
        need: Bytes of all of them.
        largest: Bytes of the largest.
        names: Their names, relative.
        mount: The file system; by default it is looked up.

    Raises:
        PathNotPermitted: It is read-only.
        OutOfSpace: There isn't room.
        DataError: It can't hold a file so large, or of such a name.
    """
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    mount = mount or mount_of(there)
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        raise read_only(folder, mount)
    if mount is not None and mount.kind in FAT and largest > FAT_LIMIT:
        why = f"its file system (FAT) holds files up to 4 GiB, and one has {format_bytes(largest)}"
        hint = "Choose another disk, or format this one with exFAT."
        raise DataError(what=str(folder), why=why, hint=hint)
    if mount is not None and mount.kind in WINDOWS:
        for name in names:
            for part in name.split("/"):
                why = name_fault(part)
                if why:
                    what = f"{name[:120]} on {folder}"
                    raise DataError(what=what, why=f"names may not be so there: {why}")
    clash = same_without_case(names) if folds_case(there, mount) else None
    if clash is not None:
        why = f"{clash[0]} and {clash[1]} would be one file there"
        raise DataError(what=str(folder), why=why, hint="Rename one of them.")
    check_space(there, need)


def read_only(folder: Path, mount: Mount | None) -> PathNotPermitted:
    """The error for a file system that can't be written to."""
    kind = mount.kind if mount is not None else ""
    if kind in ("ntfs", "ntfs3", "fuseblk"):
        return PathNotPermitted(
            path=str(folder),
            why="its file system (NTFS) is read-only; Windows may not have let go of it",
            hint="Start Windows, switch fast start-up off, shut it down, and mount the disk again.",
        )
    return PathNotPermitted(
        path=str(folder),
        why="the file system is read-only",
        hint="Mount it for writing, or choose another place (SLEAP_RTC_HOME moves all).",
    )


def folds_case(folder: Path, mount: Mount | None) -> bool:
    """Whether ``A`` and ``a`` are one name in a folder, told without writing anything."""
    if mount is not None and mount.kind in WINDOWS:
        return True
    swapped = folder.with_name(folder.name.swapcase())
    if swapped.name == folder.name:
        return False
    try:
        return swapped.samefile(folder)
    except OSError:
        return False


def same_without_case(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names that only case, or how letters are composed, tells apart; None without."""
    seen: dict[str, str] = {}
    for name in names:
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        if key in seen and seen[key] != name:
            return seen[key], name
        seen[key] = name
    return None


def name_fault(name: str) -> str:
    """Why a name can't be used on every system, as the end of a sentence; empty if it can."""
    if not name:
        return "it is empty"
    bad = _FORBIDDEN.search(name)
    if bad:
        return f"it contains {bad[0]!r}"
    if name[-1] in " .":
        return "it ends in a space or a dot"
    if _RESERVED.fullmatch(name):
        return f"{name!r} is a device on Windows"
    return ""


def safe_name(name: str) -> str:
    """A name like this one that can be used on every system.

    What may not be in it becomes ``_``; the ending stays when it is cut to 128 characters.
    """
    kept = "".join(c for c in name if unicodedata.category(c) not in ("Cs", "Cn"))
    kept = _FORBIDDEN.sub("_", kept).rstrip(" .")
    stem, dot, ending = kept.rpartition(".")
    if len(kept) > MAX_NAME or len(kept.encode()) > 2 * MAX_NAME:
        ending = f"{dot}{ending}"[:16] if stem else ""
        kept = (stem or kept)[: MAX_NAME - len(ending)]
        while len((kept + ending).encode()) > 2 * MAX_NAME - 16:
            kept = kept[:-1]
        kept = kept.rstrip(" .") + ending
    if _RESERVED.fullmatch(kept):
        kept = f"_{kept}"
    return kept if kept.strip("._ ") else "_"


def _unreadable(path: Path) -> PathNotPermitted:
    return PathNotPermitted(
        path=str(path),
        why="this user may not read it",
        hint="Get permission to read it, or copy it as a user who may.",
    )
