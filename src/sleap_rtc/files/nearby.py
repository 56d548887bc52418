"""Whether a peer is this user, on this machine: then its files are read where they are.

Whoever has files shows it with a mark, a symbolic link in a folder of its own in the
folder for temporary files, which says what the reader asked for, and between whom::

    reader                                        holder
      │ ── challenge, 64 random hex digits ────────► │
      │                                              │ <tmp>/sleap-rtc-…/near ─► challenge, keys
      │ ◄──────────── path of the mark, of a folder ─│
      │ the mark is this user's? says the challenge, and the keys of this link's two ends?
      │ then what is in that folder is read with this user's rights

A link's owner can't be forged, its text is there from the first moment, and looking
at it opens nothing. Before the proof the reader looks at nothing but its own folder
for temporary files; after it, the peer is one who could read the same files itself.

Marks are made for others: by a worker for whoever may fetch its models, by a client
for the worker that it pushes to. Either could pass a reader's challenge on to somebody
on the reader's machine, and show the mark that it gets for it. But each of the two ends
writes, and reads, the keys that both have proven on their own link: a mark that was made
for another link, or for the other direction of this one, says other keys.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from sleap_rtc.domain.ids import DeviceId

_PREFIX: Final = "sleap-rtc-"
_NAME: Final = "near"


class Ends(msgspec.Struct, frozen=True):
    """The keys of a link's two ends, as its handshake has proven them.

    Attributes:
        reader: Of who would read the files.
        holder: Of who has them, and makes a mark.
    """

    reader: DeviceId
    holder: DeviceId


def new_challenge() -> str:
    """What a holder is to say, 64 hex digits."""
    return secrets.token_hex(32)


@contextlib.contextmanager
def marked(challenge: str, ends: Ends) -> Iterator[Path]:
    """A mark that says a challenge, until the block ends.

    Args:
        challenge: The reader's.
        ends: Of the link over which it came; this side is the holder.

    Raises:
        OSError: It can't be made.
    """
    # Not a TemporaryDirectory: that warns when whoever holds the mark goes without ending it.
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        mark = folder / _NAME
        mark.symlink_to(_text(challenge, ends))
        yield mark
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def is_near(mark: str, folder: str, challenge: str, ends: Ends) -> bool:
    """Whether a peer that names a mark is this user, and a folder one that this user may read.

    Args:
        mark: Path of the mark, the peer's word.
        folder: Path of the folder, the peer's word as well.
        challenge: What the mark must say.
        ends: Of the link over which the peer names them; this side is the reader.
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
        if not secrets.compare_digest(said, _text(challenge, ends).encode()):
            return False
        there = Path(folder)
        return there.is_absolute() and there.is_dir() and os.access(there, os.R_OK | os.X_OK)
    except (OSError, ValueError):
        return False


def _text(challenge: str, ends: Ends) -> str:
    return f"{challenge} {ends.reader} {ends.holder}"
