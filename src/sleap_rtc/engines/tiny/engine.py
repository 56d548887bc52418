"""``tiny`` as the worker sees it.

A training directory holds ``best.npz``, ``last.npz``, ``training_config.yaml``,
``initial_config.yaml`` (as submitted), ``training_log.csv``, ``metrics.json`` and
``trainer.log``. Success is a result line *and* ``best.npz``; the exit code decides
nothing but who is to blame for a failure.
"""

from __future__ import annotations

import abc
import importlib.metadata
import importlib.util
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from sleap_rtc.domain.models import Metrics
from sleap_rtc.engines.base import (
    Began,
    CheckpointWritten,
    ConfigSummary,
    EngineEvent,
    EpochDone,
    Installation,
    Outcome,
    Run,
    Said,
    Stepped,
    TrackPlan,
    TrainPlan,
)
from sleap_rtc.engines.process import (
    Ending,
    ProcessRun,
    disk_was_full,
    last_error,
    scrubbed,
)
from sleap_rtc.engines.tiny import settings
from sleap_rtc.errors import Damaged, EngineMissing, FilesMissing, InvalidConfig, OutOfSpace

Kind = Literal["succeeded", "stopped", "cancelled", "failed", "died"]

BEST = "best.npz"
LAST = "last.npz"
FILES = (BEST, "training_config.yaml", "initial_config.yaml", "training_log.csv", "metrics.json")


class TinyEngine:
    """The engine ``tiny``: real learning in seconds, in this very Python environment."""

    name = "tiny"

    def find(self) -> Installation:
        """Where it is installed: it needs numpy, h5py and sleap-io (extra ``tiny``).

        Raises:
            EngineMissing: One of them isn't there.
        """
        for module in ("numpy", "h5py", "sleap_io", "imageio"):
            if importlib.util.find_spec(module) is None:
                hint = "Install it there: pip install 'sleap-rtc[tiny]'"
                raise EngineMissing(engine=self.name, where="this machine", hint=hint)
        return Installation(
            python=Path(sys.executable), version=importlib.metadata.version("sleap-rtc")
        )

    def read_config(self, text: str, *, where: str) -> ConfigSummary:
        """Read a configuration.

        Raises:
            InvalidConfig: Not a configuration of this engine.
        """
        return settings.summarize(text, where=where)

    async def start_training(self, plan: TrainPlan) -> Run:
        """Start to train.

        Raises:
            EngineMissing: Not installed.
            InvalidConfig: Not a configuration of this engine, or of another kind of model.
        """
        installation = self.find()
        summary = self.read_config(plan.config, where="the configuration")
        if summary.model_type != plan.model_type:
            why = f"it is for a {summary.model_type} model, not {plan.model_type}"
            raise InvalidConfig(where="the configuration", why=why)
        if plan.resume_from is not None and not (plan.resume_from / LAST).is_file():
            raise FilesMissing(name=plan.resume_from.name, files=LAST)
        plan.directory.mkdir(parents=True, exist_ok=True)
        config = plan.directory / "initial_config.yaml"
        config.write_text(plan.config, encoding="utf-8")
        command = [
            *(str(installation.python), "-I", "-m", "sleap_rtc.engines.tiny", "train"),
            *("--config", str(config), "--labels", str(plan.labels)),
            *("--directory", str(plan.directory)),
        ]
        if plan.val_labels is not None:
            command += ["--val-labels", str(plan.val_labels)]
        if plan.resume_from is not None:
            command += ["--resume-from", str(plan.resume_from)]
        watcher = _Training(plan, summary)
        return await _start(command, plan.directory, watcher, threads=plan.threads)

    def inspect(self, plan: TrainPlan) -> Outcome:
        """What a run left in ``plan.directory`` that nobody saw end.

        Raises:
            EngineMissing: Not installed.
        """
        self.find()
        summary = self.read_config(plan.config, where="the configuration")
        found = _left(plan, summary, "died", _epochs_of(plan.directory / LAST))
        return msgspec.structs.replace(found, reason="The trainer was ended with its runner.")

    async def start_tracking(self, plan: TrackPlan) -> Run:
        """Start to track.

        Raises:
            EngineMissing: Not installed.
            FilesMissing: A model without its files, or no video.
        """
        installation = self.find()
        for model in plan.models:
            if not (model / BEST).is_file():
                raise FilesMissing(name=model.name, files=BEST)
        if not plan.video.is_file():
            raise FilesMissing(name=plan.video.name, files=str(plan.video))
        command = [
            *(str(installation.python), "-I", "-m", "sleap_rtc.engines.tiny", "track"),
            *("--video", str(plan.video), "--output", str(plan.output)),
            *("--provenance", json.dumps(plan.provenance)),
        ]
        for model in plan.models:
            command += ["--model", str(model)]
        if plan.frames is not None:
            command += ["--frames", str(plan.frames[0]), str(plan.frames[1])]
        if plan.tracking:
            command.append("--linked")
        return await _start(command, plan.output.parent, _Tracking(plan), threads=plan.threads)


async def _start(
    command: list[str], directory: Path, watcher: _Watching, *, threads: int
) -> ProcessRun:
    environment = scrubbed(os.environ, home=directory, threads=threads, extra={})
    return await ProcessRun.start(
        command,
        directory=directory,
        environment=environment,
        log=watcher.log,
        watcher=watcher,
    )


class _Watching(abc.ABC):
    """What training and tracking have in common: lines of JSON, and lines for people."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._run: ProcessRun | None = None
        self._result: dict[str, Any] | None = None
        self._error = ""
        self._full = False

    async def started(self, run: ProcessRun) -> None:
        self._run = run

    async def request_stop(self) -> None:
        if self._run is not None:
            await self._run.tell("stop")

    async def drain(self) -> None:  # noqa: B027 - there is nothing to do in any of them
        """All that it says comes by its output."""

    def on_line(self, line: str, *, error: bool) -> Iterable[EngineEvent]:
        if error or not line.startswith('{"event"'):
            return [Said(line=line)]
        try:
            message = msgspec.json.decode(line.encode(), type=dict[str, Any])
        except msgspec.DecodeError:
            return [Said(line=line)]
        return self._on_message(str(message.pop("event", "")), message)

    @abc.abstractmethod
    def conclude(self, ending: Ending) -> Outcome:
        """Look at what is there and say how it ended."""

    def _on_message(self, event: str, message: dict[str, Any]) -> list[EngineEvent]:
        kinds: dict[str, type[Began | Stepped | EpochDone | CheckpointWritten]] = {
            "began": Began,
            "step": Stepped,
            "epoch": EpochDone,
            "checkpoint": CheckpointWritten,
        }
        if event == "result":
            self._result = message.get("metrics", {})
        elif event == "error":
            self._error = str(message.get("message", ""))
            self._full = message.get("code") == OutOfSpace.code
            return [Said(line=self._error)]
        elif event in kinds:
            return [msgspec.convert(message, kinds[event])]
        return []

    def _blame(self, ending: Ending) -> tuple[Kind, str]:
        """The kind of outcome without a result, and the reason."""
        if ending.cancelled:
            return "cancelled", "It was cancelled."
        if self._error:
            return "died" if self._full else "failed", self._error
        if ending.returncode < 0:
            return "died", f"The trainer was ended from outside (signal {-ending.returncode})."
        why = last_error(ending.log_tail) or f"exit code {ending.returncode}"
        return "died" if disk_was_full(ending.log_tail) else "failed", f"tiny failed: {why}"


class _Training(_Watching):
    """Training: what its directory holds in the end."""

    def __init__(self, plan: TrainPlan, summary: ConfigSummary) -> None:
        super().__init__(plan.directory / "trainer.log")
        self._plan = plan
        self._summary = summary
        self._epochs: int | None = None

    def _on_message(self, event: str, message: dict[str, Any]) -> list[EngineEvent]:
        events = super()._on_message(event, message)
        for happened in events:
            if isinstance(happened, CheckpointWritten):
                self._epochs = happened.epochs
            elif isinstance(happened, Began) and happened.first_epoch:
                self._epochs = happened.first_epoch
        return events

    def conclude(self, ending: Ending) -> Outcome:
        kind: Kind = "stopped" if ending.stop_asked else "succeeded"
        reason = ""
        if kind == "stopped" and self._epochs == self._summary.epochs:
            kind = "succeeded"
        best = self._plan.directory / BEST
        if self._result is None or not best.is_file() or ending.cancelled:
            kind, reason = self._blame(ending)
        epochs = self._epochs
        if self._result is None and epochs is not None:
            # It is ended at any instant: a checkpoint may be there of which it hadn't told yet.
            epochs = _epochs_of(self._plan.directory / LAST) or epochs
        found = _left(self._plan, self._summary, kind, epochs)
        metrics = msgspec.convert(self._result or {"epochs": epochs}, Metrics)
        return msgspec.structs.replace(
            found, metrics=metrics, reason=reason, log_tail=ending.log_tail
        )


def _epochs_of(path: Path) -> int | None:
    """The epochs of a checkpoint; None if it isn't there, or isn't one."""
    from sleap_rtc.engines.tiny import checkpoint  # noqa: PLC0415 - needs numpy

    try:
        return checkpoint.load(path).about.epochs
    except (FilesMissing, Damaged):
        return None


def _left(plan: TrainPlan, summary: ConfigSummary, kind: Kind, epochs: int | None) -> Outcome:
    """What a training left in its directory."""
    directory = plan.directory
    best, last = directory / BEST, directory / LAST
    files = FILES if kind in ("succeeded", "stopped") else (*FILES, LAST)
    has_last = epochs is not None and last.is_file()
    return Outcome(
        kind=kind,
        epochs=epochs if has_last else None,
        best=best if best.is_file() else None,
        last=last if has_last else None,
        hyperparameters=summary.hyperparameters,
        files=tuple(name for name in files if (directory / name).is_file()),
    )


class _Tracking(_Watching):
    """Tracking: whether the predictions are there."""

    def __init__(self, plan: TrackPlan) -> None:
        super().__init__(plan.output.with_name(f"{plan.output.name}.log"))
        self._plan = plan

    def conclude(self, ending: Ending) -> Outcome:
        kind: Kind = "succeeded"
        reason = ""
        if self._result is None or not self._plan.output.is_file() or ending.cancelled:
            kind, reason = self._blame(ending)
        return Outcome(kind=kind, reason=reason, log_tail=ending.log_tail)
