"""An engine for tests of timing: it does one epoch for each byte that the test writes.

Run as a program it is the job runner with this engine, whose trainer is
``stepwise_trainer.py``. Its configuration is JSON::

    {"model_type": …, "epochs": 3, "gate": FIFO or null, "steps": 2, "fail_at": 1,
     "deaf": ignore SIGTERM, "lines": print so many, "refused": {…},
     "hold": FIFO, a byte from which starts the trainer, "crash": …, "missing": …}
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

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
from sleap_rtc.engines.process import Ending, ProcessRun, last_error
from sleap_rtc.errors import EngineMissing, InvalidConfig
from sleap_rtc.worker.runner.process import main as runner

TRAINER = Path(__file__).with_name("stepwise_trainer.py")
EVENTS: dict[str, Any] = {
    "began": Began,
    "step": Stepped,
    "epoch": EpochDone,
    "checkpoint": CheckpointWritten,
}


class Stepwise:
    """The engine."""

    name = "stepwise"

    def find(self) -> Installation:
        return Installation(python=Path(sys.executable), version="1.2.3")

    def read_config(self, text: str, *, where: str) -> ConfigSummary:
        try:
            found = json.loads(text)
        except ValueError:
            raise InvalidConfig(where=where, why="it is not JSON") from None
        return ConfigSummary(
            model_type=found["model_type"],
            backbone={"unet": {"filters": 8}},
            epochs=found["epochs"],
            hyperparameters={"max_epochs": found["epochs"]},
            refused=found.get("refused", {}),
        )

    async def start_training(self, plan: TrainPlan) -> Run:
        config = json.loads(plan.config)
        if config.get("missing"):
            raise EngineMissing(engine=self.name, where="this machine")
        if config.get("crash"):
            raise ZeroDivisionError("a fault of the engine's author")
        if config.get("hold"):
            with open(config["hold"], "r+b", buffering=0) as gate:  # noqa: ASYNC230, PTH123
                await asyncio.to_thread(gate.read, 1)
        resume = str(plan.resume_from) if plan.resume_from else ""
        command = ["train", str(plan.directory), plan.config, resume]
        return await start(command, plan.directory, Watching(plan, self))

    async def start_tracking(self, plan: TrackPlan) -> Run:
        command = ["track", str(plan.video), str(plan.output)]
        return await start(command, plan.output.parent, Tracking(plan))

    def inspect(self, plan: TrainPlan) -> Outcome:
        last, best = plan.directory / "last.ckpt", plan.directory / "best.ckpt"
        if not last.is_file():
            return Outcome(kind="died", reason="It was killed.")
        return Outcome(
            kind="died",
            epochs=json.loads(last.read_text())["epochs"],
            best=best,
            last=last,
            files=("best.ckpt", "last.ckpt"),
            reason="It was killed.",
        )


async def start(arguments: list[str], directory: Path, watcher: Any) -> ProcessRun:
    return await ProcessRun.start(
        [sys.executable, "-S", str(TRAINER), *arguments],
        directory=directory,
        environment=dict(os.environ),
        log=directory / "trainer.log",
        watcher=watcher,
    )


class Watching:
    """What the engine makes of its program."""

    def __init__(self, plan: TrainPlan, engine: Stepwise) -> None:
        self.plan, self.engine = plan, engine
        self.run: ProcessRun | None = None
        self.result: dict[str, Any] | None = None

    def on_line(self, line: str, *, error: bool) -> Iterable[EngineEvent]:
        if error or not line.startswith("{"):
            return [Said(line=line)]
        message = json.loads(line)
        kind = message.pop("event")
        if kind == "result":
            self.result = message
            return []
        return [msgspec.convert(message, EVENTS[kind])]

    async def started(self, run: ProcessRun) -> None:
        self.run = run

    async def request_stop(self) -> None:
        assert self.run is not None
        await self.run.tell("stop")

    async def drain(self) -> None:
        pass

    def conclude(self, ending: Ending) -> Outcome:
        found = self.engine.inspect(self.plan)
        if self.result is not None and not ending.cancelled:
            return msgspec.structs.replace(
                found,
                kind="stopped" if ending.stop_asked else "succeeded",
                files=("best.ckpt",),
                metrics=msgspec.convert(self.result, Metrics),
                reason="",
            )
        if ending.cancelled:
            kind: Any = "cancelled"
        else:
            kind = "died" if ending.returncode < 0 else "failed"
        return msgspec.structs.replace(
            found, kind=kind, reason=last_error(ending.log_tail), log_tail=ending.log_tail
        )


class Tracking(Watching):
    """The same for a video."""

    def __init__(self, plan: TrackPlan) -> None:
        self.output = plan.output
        self.run = None
        self.result = None

    def conclude(self, ending: Ending) -> Outcome:
        if self.result is not None and not ending.cancelled:
            return Outcome(kind="succeeded")
        kind: Any = "cancelled" if ending.cancelled else "failed"
        return Outcome(kind=kind, reason=last_error(ending.log_tail), log_tail=ending.log_tail)


if __name__ == "__main__":
    sys.exit(runner(sys.argv[1:], engine=lambda name: Stepwise()))
