r"""What a library looks like on disk.

::

    models/
    ├── centroid_3f2a9c01/            one model: {model_type}_{id}
    │   ├── .record/
    │   │   ├── 00000003.json         revisions of its record; the highest is the record
    │   │   └── alias-fly             "this alias may name me": see aliases.py
    │   ├── model.json                the record once more, for people and for import
    │   └── best.ckpt …               its files: those that the record lists
    ├── centroid_77aa01bc-kept-…/     files kept of a deleted model, moved aside when it came back
    ├── .aliases/fly/00000001.json    an alias: the only place that says what it names
    ├── .changes/9f…-centroid_3f2a…   marks of changes, kept an hour: see marks.py
    ├── .incoming/                    models that are being put together
    └── .trash/20260301T120000Z-…/    deleted and replaced files

Directories that are not of this form, or have no ``.record``, belong to
somebody else and are left alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sleap_rtc.domain.ids import ModelId

RECORD: Final = ".record"
COPY: Final = "model.json"
ALIASES: Final = ".aliases"
CHANGES: Final = ".changes"
INCOMING: Final = ".incoming"
TRASH: Final = ".trash"

KNOWN_TYPES: Final = (
    "centroid",
    "centered_instance",
    "single_instance",
    "bottomup",
    "multi_class_bottomup",
    "multi_class_topdown",
)
"""The trainer's heads. A library may hold others; these are found without looking around."""

_DIRECTORY: Final = re.compile(
    r"([a-z][a-z0-9_]{0,63})_([0-9a-f]{8}(?:-(?:[2-9]|[1-9][0-9]{1,3}))?)"
)


def parse(name: str) -> tuple[str, ModelId] | None:
    """The model type and id in the name of a model's directory, None for any other name."""
    match = _DIRECTORY.fullmatch(name)
    return None if match is None else (match[1], ModelId(match[2]))


def is_own(path: str) -> bool:
    """Whether a path inside a model's directory is the library's own, not a file of the model."""
    first, _, rest = path.casefold().partition("/")
    return first == RECORD or (first == COPY and not rest)


def listing(folder: Path | str) -> list[str]:
    """The names in a folder, in no order; none if there is no such folder."""
    try:
        return os.listdir(folder)  # noqa: PTH208 - names are wanted, not thousands of paths
    except (FileNotFoundError, NotADirectoryError):
        return []


def names(models: Path, *, having: str = "") -> Iterator[str]:
    """Names of the directories that may be models, in no order; none without a library.

    Args:
        models: The library.
        having: What is in each name that is wanted; others are passed over quickly.
    """
    try:
        with os.scandir(models) as entries:
            for entry in entries:
                name = entry.name
                if having in name and parse(name) and entry.is_dir(follow_symlinks=False):
                    yield name
    except FileNotFoundError:
        return
