"""What a look says of files that a record lists, on the machine that has them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from msgspec.structs import replace

from sleap_rtc.domain.models import ModelFile, may_run
from sleap_rtc.errors import SleapRtcError
from sleap_rtc.library.inspection.formats import look


def looked_into(files: Iterable[ModelFile], directory: Path) -> tuple[ModelFile, ...]:
    """A model's files with what a look on this machine says of those that may run something.

    What a record from elsewhere says of them is replaced. A file that can't be looked into is
    ``unknown``, with the reason: whether it may be run is decided when it is to run.

    Args:
        files: As the record lists them.
        directory: Has them, below their paths.
    """
    return tuple(_looked_into(file, directory / file.path) for file in files)


def looked_into_again(file: ModelFile, path: Path) -> ModelFile:
    """A file as a record from elsewhere lists it, its safety as a look on this machine finds it.

    Of one that isn't said to be clean nothing better is known without looking: it stays as it is.

    Args:
        file: As the record lists it.
        path: Where its content is, at the end of all links.
    """
    return _looked_into(file, path) if file.safety in ("safe", "scanned") else file


def _looked_into(file: ModelFile, path: Path) -> ModelFile:
    if not may_run(file.path):
        return replace(file, safety=None, found="")
    try:
        looked = look(path, name=file.path)
    except (SleapRtcError, OSError) as error:
        return replace(file, safety="unknown", found=" ".join(str(error).split())[:1_000])
    return replace(file, safety=looked.tier, found=looked.sentence)
