"""An engine for tests of timing: it does one epoch for each byte that the test writes.

Run as a program it is the trainer (``train DIR …``, ``track OUT …``), or, with
``runner …``, the job runner with this engine. Its configuration is JSON::

    {"model_type": …, "epochs": 3, "gate": FIFO or null, "steps": 2, "fail_at": 1,
     "deaf": ignore SIGTERM, "lines": print so many, "refused": {…}}
"""

from __future__ import annotations

import json
import os
import select
import signal
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
        if json.loads(plan.config).get("missing"):
            raise EngineMissing(engine=self.name, where="this machine")
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
        [sys.executable, __file__, *arguments],
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


def say(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)  # noqa: T201


def replace_file(path: Path, text: str) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.rename(path)


def train(directory: Path, config: dict[str, Any], resume: str) -> int:
    first = 0
    if resume:
        first = json.loads((Path(resume) / "last.ckpt").read_text())["epochs"]
    signal.signal(
        signal.SIGTERM, signal.SIG_IGN if config.get("deaf") else lambda *_: sys.exit(143)
    )
    gate = os.open(config["gate"], os.O_RDWR) if config.get("gate") else None
    for number in range(config.get("lines", 0)):
        print(f"line {number}", flush=True)  # noqa: T201
    say("began", epochs=config["epochs"], first_epoch=first, batches=config.get("steps", 2))
    done = first
    for epoch in range(first, config["epochs"]):
        steps = config.get("steps", 2)
        for step in range(steps):
            say("step", epoch=epoch, done=step + 1, total=steps, loss=1 / (epoch + 1))
        if gate is not None:
            stdin = [] if sys.stdin.closed else [sys.stdin.fileno()]
            ready, _, _ = select.select([gate, *stdin], [], [])
            if gate not in ready:
                sys.stdin.readline()
                break
            os.read(gate, 1)
        if config.get("fail_at") == epoch:
            raise RuntimeError("the made-up network exploded")
        say("epoch", epoch=epoch, train_loss=1 / (epoch + 1), val_loss=2 / (epoch + 1))
        done = epoch + 1
        state = json.dumps({"epochs": done, "type": config["model_type"]})
        replace_file(directory / "best.ckpt", state)
        replace_file(directory / "last.ckpt", state)
        say("checkpoint", epochs=done)
    say("result", epochs=done, best_epoch=max(0, done - 1), final_val_loss=2 / max(1, done))
    return 0


def track(video: Path, output: Path) -> int:
    what = video.read_text()
    if what.startswith("gate:"):
        fd = os.open(what[5:].strip(), os.O_RDWR)
        say("step", done=1, total=4, rate=10.0)
        os.read(fd, 1)
    if what.startswith("bad"):
        raise ValueError("no frame can be read")
    for frame in range(4):
        say("step", done=frame + 1, total=4, rate=10.0)
    output.write_text(f"predictions of {what}")
    say("result")
    return 0


if __name__ == "__main__":
    verb, *rest = sys.argv[1:]
    if verb == "runner":
        sys.exit(runner(rest, engine=lambda name: Stepwise()))
    if verb == "train":
        sys.exit(train(Path(rest[0]), json.loads(rest[1]), rest[2]))
    sys.exit(track(Path(rest[0]), Path(rest[1])))
