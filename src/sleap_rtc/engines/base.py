"""The seam between a job's runner and the program that trains or tracks.

An engine is a program in an environment of its own. The runner asks it to
*start* work, reads typed events until they end, and looks at the *outcome*::

    run = await engine.start_training(plan)
    async for event in run.events(): ...
    outcome = await run.outcome()

A run ends in exactly one outcome, whatever happened to the process. Success is
never the exit code alone: each engine says in its module what it takes.

Commands: :meth:`Run.stop` asks for an early end that keeps the best checkpoint;
:meth:`Run.cancel` ends the process group, gently first; :meth:`Run.pause` and
:meth:`Run.resume` freeze and thaw it. All are safe at any time and more than once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from sleap_rtc.domain.models import Metrics


class Installation(msgspec.Struct, frozen=True):
    """Where an engine was found.

    Attributes:
        python: The interpreter of its environment.
        version: The engine's own version.
    """

    python: Path
    version: str


class TrainPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of training, with every path set by the worker.

    Attributes:
        labels: The label file.
        val_labels: Labels to validate on; None lets the configuration decide.
        config: The submitted configuration, as text; only allow-listed keys of it are used.
        model_type: The head that the configuration must declare.
        directory: An empty directory of this attempt; the engine writes inside it alone.
        run_name: Names this attempt's output.
        resume_from: Output directory of the attempt to go on from.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: Processor threads to use.
    """

    labels: Path
    config: str
    model_type: str
    directory: Path
    run_name: str
    val_labels: Path | None = None
    resume_from: Path | None = None
    device: str = "auto"
    threads: int = 1


class TrackPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Run models over one video.

    Attributes:
        models: The models' directories, a top-down pair in order.
        video: The video.
        output: The ``.slp`` to write.
        frames: First and last frame, both included; None is every frame.
        tracking: Whether identities are linked over time.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: Processor threads to use.
        provenance: Facts to write into the predictions: the models' ids and hashes.
    """

    models: tuple[Path, ...]
    video: Path
    output: Path
    frames: tuple[int, int] | None = None
    tracking: bool = False
    device: str = "auto"
    threads: int = 1
    provenance: dict[str, str] = {}


class Began(msgspec.Struct, frozen=True, kw_only=True):
    """Work has begun: ``epochs`` planned in all, the first one of this run being ``first_epoch``.

    ``batches`` is the number of steps per epoch where it is known.
    """

    epochs: int | None = None
    first_epoch: int = 0
    batches: int | None = None


class Stepped(msgspec.Struct, frozen=True, kw_only=True):
    """A batch of an epoch, or frames of a video, are done; ``rate`` per second."""

    done: int
    epoch: int | None = None
    total: int | None = None
    loss: float | None = None
    rate: float | None = None


class EpochDone(msgspec.Struct, frozen=True, kw_only=True):
    """A whole epoch: its mean losses (None where unknown or not finite)."""

    epoch: int
    train_loss: float | None = None
    val_loss: float | None = None
    learning_rate: float | None = None


class CheckpointWritten(msgspec.Struct, frozen=True, kw_only=True):
    """The checkpoint on disk now holds ``epochs`` whole epochs, and training can go on from it."""

    epochs: int


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the program's output, without escape sequences."""

    line: str


EngineEvent = Began | Stepped | EpochDone | CheckpointWritten | Said


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended.

    Attributes:
        kind: ``succeeded``; ``stopped`` early as asked, with a usable result; ``cancelled``;
            ``failed`` by its own fault (bad configuration, no memory …); ``died`` when the process
            was killed from outside or the disk was full, so that going on from the checkpoint
            makes sense.
        epochs: Whole epochs in the last checkpoint, over all attempts; None when there is none.
        best: The checkpoint to use, inside the plan's directory.
        last: The checkpoint to go on from.
        metrics: Losses and evaluation results.
        hyperparameters: What people compare, flat.
        files: The files that make up the model, relative to the plan's directory.
        reason: One sentence when not succeeded.
        log_tail: The last lines that the program wrote.
    """

    kind: Literal["succeeded", "stopped", "cancelled", "failed", "died"]
    epochs: int | None = None
    best: Path | None = None
    last: Path | None = None
    metrics: Metrics = Metrics()
    hyperparameters: dict[str, Any] = {}
    files: tuple[str, ...] = ()
    reason: str = ""
    log_tail: tuple[str, ...] = ()


class Run(Protocol):
    """One process of an engine."""

    @property
    def pid(self) -> int:
        """The process; it leads a group of its own."""
        ...

    def events(self) -> AsyncIterator[EngineEvent]:
        """What happens, until the process has ended. To be iterated once."""
        ...

    async def outcome(self) -> Outcome:
        """How it ended. Waits for the end of the process."""
        ...

    async def stop(self) -> None:
        """Ask for an early end that keeps the best checkpoint."""
        ...

    async def cancel(self, *, grace_s: float = 20.0) -> None:
        """End the process group: SIGTERM, and SIGKILL after ``grace_s`` seconds."""
        ...

    def pause(self) -> None:
        """Freeze the process group; it keeps its memory."""
        ...

    def resume(self) -> None:
        """Thaw it."""
        ...


class ConfigSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a training configuration says, read without running anything.

    Attributes:
        model_type: The one head it declares.
        backbone: The backbone's configuration, for the model's id.
        run_name: The run's name, empty when it has none.
        epochs: The number planned, None when it isn't said.
        hyperparameters: What people compare, flat.
        refused: Keys that the worker won't take, with the reason; they make the job fail.
    """

    model_type: str
    backbone: Mapping[str, Any]
    run_name: str = ""
    epochs: int | None = None
    hyperparameters: dict[str, Any] = {}
    refused: dict[str, str] = {}


class Engine(Protocol):
    """A trainer."""

    @property
    def name(self) -> str:
        """``sleap-nn``, ``tiny``: the name in every record and every view."""
        ...

    def find(self) -> Installation:
        """Where it is installed.

        Raises:
            EngineMissing: Not installed, or half-made.
        """
        ...

    def read_config(self, text: str, *, where: str) -> ConfigSummary:
        """Read a configuration; ``where`` names it in errors.

        Raises:
            InvalidConfig: Not a configuration of this engine.
        """
        ...

    async def start_training(self, plan: TrainPlan) -> Run:
        """Start to train.

        Raises:
            EngineMissing: Not installed.
            InvalidConfig: A configuration that is refused, by key and reason.
        """
        ...

    def inspect(self, plan: TrainPlan) -> Outcome:
        """What a run left in ``plan.directory`` that nobody saw end: its runner was killed.

        Looks at files alone; the process is gone. The outcome's kind is ``died`` whatever is
        found, with the whole epochs, the checkpoint to go on from and the files there are; it has
        neither when no checkpoint was written.
        """
        ...

    async def start_tracking(self, plan: TrackPlan) -> Run:
        """Start to track.

        Raises:
            EngineMissing: Not installed.
            FilesMissing: A model without its files.
        """
        ...
