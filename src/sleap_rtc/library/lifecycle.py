"""How far a model's training is: the half of a registry that a trainer speaks with.

``changes`` has the steps themselves, ``status`` the table of which are possible.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

from msgspec.structs import replace

from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.models import Interruption, Metrics, ModelFile, Training
from sleap_rtc.library import changes, placing, records
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.finder import Finder
from sleap_rtc.library.timing import timed_change
from sleap_rtc.observe.latency import Latencies


class LifeCycle(ABC):
    """The steps of a model's life.

    Attributes:
        latencies: How long each operation took.
        changed: Whether this process changed something.
    """

    latencies: Latencies
    changed: bool
    _clock: Callable[[], datetime]
    _finder: Finder

    @abstractmethod
    def _update(self, directory: Path, change: records.Change) -> Entry:
        """Change the record in a directory, unless the model was deleted."""

    @timed_change
    def mark_training(self, name: str) -> Entry:
        """Training began, or goes on after an interruption, which becomes part of its lineage.

        Raises:
            IllegalTransition: It is completed or imported.
        """
        return self._update(self._finder.get(name).directory, changes.trained)

    @timed_change
    def mark_completed(
        self,
        name: str,
        metrics: Metrics,
        *,
        files: Iterable[ModelFile] | None = None,
        checkpoint: str | None = None,
        config: str | None = None,
        package: PackageId | None = None,
        training: Training | None = None,
    ) -> Entry:
        """Training ended well.

        Args:
            name: Id or alias.
            metrics: How well the model does.
            files: Every file of the model, which are in its directory and synced; None leaves the
                list as it is. So do the next ones.
            checkpoint: Relative path of the checkpoint to use.
            config: Relative path of the training configuration.
            package: Id of the package of the files.
            training: How it came to be.

        Raises:
            FilesMissing: A listed file isn't there.
            IllegalTransition: It failed or was imported.
        """
        entry = self._finder.get(name)
        now = self._clock()
        listed = None if files is None else tuple(files)
        if listed is not None:
            placing.check_files(entry.directory, replace(entry.record, files=listed), links=False)
        optional = {
            "files": listed,
            "checkpoint": checkpoint,
            "config": config,
            "package": package,
            "training": training,
        }
        given = {field: value for field, value in optional.items() if value is not None}
        return self._update(
            entry.directory, lambda old: changes.completed(old, metrics, now, given)
        )

    @timed_change
    def mark_interrupted(
        self, name: str, checkpoint: str | None, epoch: int, *, reason: str = ""
    ) -> Entry:
        """Training stopped early, and can go on.

        Args:
            name: Id or alias.
            checkpoint: Relative path of the checkpoint to go on from, None if there is none yet.
            epoch: Whole epochs that are in it.
            reason: One sentence.

        Raises:
            IllegalTransition: It is completed, failed or imported.
        """
        interruption = Interruption(epoch=epoch, checkpoint=checkpoint, reason=reason)

        return self._update(
            self._finder.get(name).directory, lambda old: changes.interrupted(old, interruption)
        )

    @timed_change
    def mark_failed(self, name: str, reason: str) -> Entry:
        """Training can't go on.

        Args:
            name: Id or alias.
            reason: Why, with the last lines of the trainer's log; the last 8,000 characters stay.

        Raises:
            IllegalTransition: It is completed or imported.
        """
        return self._update(
            self._finder.get(name).directory, lambda old: changes.failed(old, reason)
        )
