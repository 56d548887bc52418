"""The label files of a job, before its trainer may read them.

::

    datasets/<package>/labels/a.slp            as it was sent
    datasets/<package>.sealed/labels/a.slp     the same without the names of other files, if it
                                               names any of this machine
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from loguru import logger

from sleap_rtc.domain.packages import check_path
from sleap_rtc.errors import FilesMissing, InvalidLabels
from sleap_rtc.files.durable import disk_errors
from sleap_rtc.media.labels import check_videos, inspect_labels
from sleap_rtc.media.origins import outside, seal

SEALED: Final = ".sealed"
"""Ending, after a package's id, of the folder with those of its labels that name other files."""


async def check_labels(inputs: Path, name: str) -> Path:
    """See that a label file from elsewhere is one, and leads to no other file of this machine.

    Where its images came from is no harm by itself: if that names files of this machine, a copy
    without their names is made beside the inputs, and kept as long as these.

    Args:
        inputs: The folder with the job's inputs.
        name: The label file's path in it.

    Returns:
        The file that a trainer may read.

    Raises:
        InvalidLabels: It can't be used; the sentence names it as it is called at home.
        OutOfSpace: There is no room for the copy.
    """
    path = inputs / check_path(name)
    try:
        return await _checked(path, inputs.with_name(f"{inputs.name}{SEALED}") / name)
    except FilesMissing:
        raise InvalidLabels(path=name, why="it is not in the job's package") from None
    except InvalidLabels as error:
        raise InvalidLabels(path=path.name, why=error.details["why"]) from None


async def _checked(path: Path, sealed: Path) -> Path:
    report = await inspect_labels(path)
    check_videos(report, path)
    named = outside(report.origins, path)
    if not named:
        return path
    if not report.embedded:
        # Its videos are looked for beside it, which the copy is not.
        why = f"it names {named[0]!r}, another file of this machine"
        raise InvalidLabels(path=path, why=why)
    if not sealed.is_file():
        logger.info("{} names files of this machine, which are taken out: {}", path, named[:3])
        with disk_errors(sealed):
            await seal(path, sealed)
    if outside((await inspect_labels(sealed)).origins, sealed):
        raise InvalidLabels(path=path, why="it names other files of this machine")
    return sealed
