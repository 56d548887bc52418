"""Looking into checkpoints before an engine loads them: loading a pickle can run anything.

A checkpoint is never unpickled here. The file is clean if all that it would
import are names that trainers' checkpoints consist of: tensors, containers,
configuration classes. Anything else, a fault in the file, or a format that
isn't known, is for a person to decide.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from sleap_rtc.domain.models import PLAIN_ENDINGS
from sleap_rtc.errors import DataError
from sleap_rtc.library.inspection.formats import look

_WITHOUT_PICKLES: Final = (".npz", ".safetensors")
"""Formats that our engines read without unpickling anything."""
_NEVER_LOADED: Final = frozenset({*_WITHOUT_PICKLES, *PLAIN_ENDINGS, ".h5"})
"""Endings of a model's files that no engine unpickles."""
# Today's trainers write a zip with one pickle. How older files are read, no scanner can vouch for.
_TODAYS: Final = ("torch", "lightning")


class Verdict(msgspec.Struct, frozen=True):
    """What a look into a file found.

    Attributes:
        clean: Whether nothing in it is out of the ordinary.
        sentence: What is, in one line for a person.
    """

    clean: bool
    sentence: str = ""


def loadable(paths: Iterable[str]) -> tuple[str, ...]:
    """Those of a model's files that an engine may unpickle.

    Which of them is its checkpoint is only what the model's record says, and a record from
    elsewhere may say anything: the trainer loads ``best.ckpt`` whatever is written there.
    """
    return tuple(sorted({p for p in paths if PurePosixPath(p).suffix.lower() not in _NEVER_LOADED}))


def scan(path: Path) -> Verdict:
    """Look into a checkpoint. Reads it, runs nothing of it.

    Args:
        path: The file; it may be a link.
    """
    if path.suffix in _WITHOUT_PICKLES:
        return Verdict(clean=True)
    try:
        looked = look(Path(os.path.realpath(path, strict=True)), name=path.name)
    except (DataError, OSError) as error:
        return Verdict(clean=False, sentence=f"it can't be read as a checkpoint ({error})")
    if looked.tier == "safe" or (looked.tier == "scanned" and looked.format in _TODAYS):
        return Verdict(clean=True)
    return Verdict(clean=False, sentence=looked.sentence or "it is not as today's trainers write")
