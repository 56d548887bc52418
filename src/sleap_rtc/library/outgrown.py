"""Indexes of earlier formats: removed once no version of the program has used them for a month.

::

    index/5f0c…-4/       an earlier version's, of this or another library
    index/5f0c…-4.gone   the same on its way out: whoever was killed leaves it to the next one
    index/5f0c…-5/       this version's
    index/5f0c…-6/       a later version's, which knows itself what it needs

Whoever uses an index writes to it at least when it looks through its library, so an index whose
files have all been the same for so long is nobody's. Should somebody come back to it, it is built
anew.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from pathlib import Path
from typing import Final

from loguru import logger

KEPT_S: Final = 30 * 86_400.0
"""Seconds after which an index that nobody has written to is nobody's."""

_NAME: Final = re.compile(r"[0-9a-f]{32}-([0-9]{1,4})(\.gone)?")


def remove_outgrown(index: Path) -> None:
    """Remove the indexes of earlier formats that are beside one, and that nobody uses.

    Nothing is raised: what can't be removed stays for another time.

    Args:
        index: The folder of an index of this version's format; it need not be there.
    """
    own = _NAME.fullmatch(index.name)
    if own is None:
        return
    oldest = time.time() - KEPT_S  # file times are wall-clock times
    with contextlib.suppress(OSError):
        for name in os.listdir(index.parent):  # noqa: PTH208 - names are wanted
            found = _NAME.fullmatch(name)
            if found is None or int(found[1]) >= int(own[1]):
                continue
            with contextlib.suppress(OSError):
                _remove(index.parent / name, oldest, going=bool(found[2]))


def _remove(folder: Path, oldest: float, *, going: bool) -> None:
    if folder.is_symlink():
        return
    gone = folder
    if not going:
        if any(path.lstat().st_mtime > oldest for path in (folder, *folder.iterdir())):
            return
        # By one step, so that whoever comes back to it finds all of it, or nothing.
        gone = folder.rename(folder.with_name(f"{folder.name}.gone"))
    shutil.rmtree(gone)
    logger.bind(index=str(folder)).info(
        "an index of an earlier version, which nobody used, is gone"
    )
