"""Is a file of a model the one that its record lists?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from sleap_rtc.domain.models import ModelFile
from sleap_rtc.errors import SleapRtcError
from sleap_rtc.files.beneath import open_file
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.hashing import hash_open, stamp_of
from sleap_rtc.library.placing import check_file

State = Literal["ok", "missing", "changed"]


def place_of(directory: Path, file: ModelFile) -> Path:
    """Where a file's content is: at the end of its link, where it is imported by link."""
    return Path(file.link) if file.link else directory / file.path


def looks_like(directory: Path, file: ModelFile) -> State:
    """Whether a file is there with its size, by asking the file system alone.

    Args:
        directory: The model's directory.
        file: As its record lists it.

    Returns:
        ``ok`` when it is; ``changed`` when it has another size, or is a link or a folder where
        none may be.
    """
    try:
        return "ok" if check_file(directory, file, links=True) else "missing"
    except (SleapRtcError, OSError):
        return "changed"


def state_of(directory: Path, file: ModelFile, cache: HashCache) -> State:
    """Whether a file is the one that its record lists; its content is read and hashed.

    Args:
        directory: The model's directory.
        file: As its record lists it.
        cache: Hashes of unchanged files.
    """
    state = looks_like(directory, file)
    return content_is(place_of(directory, file), file, cache) if state == "ok" else state


def content_is(path: Path, file: ModelFile, cache: HashCache) -> State:
    """Whether what is at a path has the content of a listed file."""
    try:
        fd = open_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except (SleapRtcError, OSError):
        return "changed"
    try:
        stamp = stamp_of(fd)
        if stamp.size != file.size:
            return "changed"
        hashes = cache.get(stamp)
        if hashes is None:
            _, hashes = hash_open(fd, name=str(path))
            cache.put(stamp, hashes)
    except (SleapRtcError, OSError):
        return "changed"
    finally:
        os.close(fd)
    return "ok" if hashes.blake3 == file.blake3 else "changed"
