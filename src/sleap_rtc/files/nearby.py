"""Whether a peer is this user, on this machine: then its files are read where they are.

Whoever has files shows it with a mark, a symbolic link in a folder of its own in the
folder for temporary files, which says who made it and what the reader asked for::

    reader                                        holder
      │ ── challenge, 64 random hex digits ────────► │
      │                                              │ <tmp>/sleap-rtc-…/near ─► holder, challenge
      │ ◄──────────── path of the mark, of a folder ─│
      │ the mark is this user's? says the challenge?
      │ then what is in that folder is read with this user's rights

A link's owner can't be forged, its text is there from the first moment, and looking
at it opens nothing. Before the proof the reader looks at nothing but its own folder
for temporary files; after it, the peer is one who could read the same files itself.

A worker makes marks for whoever may fetch its models. So a worker believes those of
clients alone: else a peer could show it one that it made itself.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

_PREFIX: Final = "sleap-rtc-"
_NAME: Final = "near"

Holder = Literal["client", "worker"]
"""Who has files, and makes a mark."""


def new_challenge() -> str:
    """What a holder is to say, 64 hex digits."""
    return secrets.token_hex(32)


@contextlib.contextmanager
def marked(challenge: str, *, by: Holder) -> Iterator[Path]:
    """A mark that says a challenge, until the block ends.

    Args:
        challenge: The reader's.
        by: Who makes it.

    Raises:
        OSError: It can't be made.
    """
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
        mark = Path(folder) / _NAME
        mark.symlink_to(_text(challenge, by))
        yield mark


def is_near(mark: str, folder: str, challenge: str, *, by: Holder) -> bool:
    """Whether a peer that names a mark is this user, and a folder one that this user may read.

    Args:
        mark: Path of the mark, the peer's word.
        folder: Path of the folder, the peer's word as well.
        challenge: What the mark must say.
        by: Who must have made it.
    """
    place = Path(mark)
    inside = place.parent.parent == Path(tempfile.gettempdir())
    if not inside or place.name != _NAME or not place.parent.name.startswith(_PREFIX):
        return False
    try:
        above, found = place.parent.lstat(), place.lstat()
        mine = above.st_uid == found.st_uid == os.geteuid()
        private = stat.S_ISDIR(above.st_mode) and not stat.S_IMODE(above.st_mode) & 0o077
        if not (mine and private and stat.S_ISLNK(found.st_mode)):
            return False
        said = os.fsencode(place.readlink())
        if not secrets.compare_digest(said, _text(challenge, by).encode()):
            return False
        there = Path(folder)
        return there.is_absolute() and there.is_dir() and os.access(there, os.R_OK | os.X_OK)
    except (OSError, ValueError):
        return False


def _text(challenge: str, by: Holder) -> str:
    return f"{by} {challenge}"
