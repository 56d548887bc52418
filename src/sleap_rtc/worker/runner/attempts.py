"""What a stage of training leaves on disk, so that whoever comes next knows where it stood.

::

    stages/0/
      plan.json       what the engine was asked for, newest attempt; written before it starts
      outcome.json    how that ended; written before anything is done about it
      attempt-1/      what the engine wrote; each attempt has a folder of its own
      attempt-2/

A runner that is killed behind ``outcome.json`` finds it when it is started
again, and only the rest is done: a trained model is never trained twice.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from sleap_rtc.domain.ids import ModelId
from sleap_rtc.domain.models import Interruption
from sleap_rtc.engines.base import Outcome, TrainPlan
from sleap_rtc.files.durable import disk_errors, write_replacing

S = TypeVar("S", bound=msgspec.Struct)


class Attempt(msgspec.Struct, frozen=True):
    """One attempt at a stage.

    Attributes:
        model: The model that is trained.
        plan: What the engine was asked for.
        point: Where training goes on, None when it starts with the first epoch.
        earlier_s: Seconds of the attempts before, for the model's whole duration.
    """

    model: ModelId
    plan: TrainPlan
    point: Interruption | None = None
    earlier_s: float = 0.0


class Ended(msgspec.Struct, frozen=True):
    """How an attempt ended: the engine's word, and the seconds it took, pauses left out."""

    outcome: Outcome
    duration_s: float


class StageFolder:
    """The folder of one stage.

    Args:
        root: The folder; made when the first attempt is.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._plan = root / "plan.json"
        self._outcome = root / "outcome.json"

    def new_directory(self) -> Path:
        """Make the empty folder of the next attempt.

        Raises:
            OutOfSpace: The disk is full.
            PathNotPermitted: This user may not write there.
        """
        with disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            number = 1 + sum(1 for entry in self.root.iterdir() if entry.is_dir())
            directory = self.root / f"attempt-{number}"
            directory.mkdir()
            return directory

    def save_attempt(self, attempt: Attempt) -> None:
        """Write down what the engine is about to be asked for; an older outcome is void."""
        with contextlib.suppress(FileNotFoundError):
            self._outcome.unlink()
        write_replacing(self._plan, _encode(attempt))

    def save_ended(self, ended: Ended) -> None:
        """Write down how it ended."""
        write_replacing(self._outcome, _encode(ended))

    def attempt(self) -> Attempt | None:
        """The newest attempt, None when there is none."""
        return _read(self._plan, Attempt)

    def ended(self) -> Ended | None:
        """How the newest attempt ended, None when nobody saw it."""
        return _read(self._outcome, Ended)

    def clear(self) -> None:
        """Remove everything: the model's files are in the library."""
        shutil.rmtree(self.root, ignore_errors=True)


def _encode(value: msgspec.Struct) -> bytes:
    return msgspec.json.encode(value, enc_hook=str)


def _read(path: Path, kind: type[S]) -> S | None:
    """The value in a file of ours, None when there is none or another version wrote it."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind, dec_hook=_path)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _path(kind: type, plain: Any) -> Any:
    if kind is Path and isinstance(plain, str):
        return Path(plain)
    raise NotImplementedError(kind)
