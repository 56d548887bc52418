"""The program of the engine in ``stepwise.py``; standard library only, so it starts at once."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any


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
    if verb == "train":
        sys.exit(train(Path(rest[0]), json.loads(rest[1]), rest[2]))
    sys.exit(track(Path(rest[0]), Path(rest[1])))
