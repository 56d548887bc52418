"""Measures what a person waits for: ``python -m bench.startup``.

The time from ``sleap-rtc train`` to the first training step, with the engine
``tiny``, through a real server, worker and client; and how long ``--help`` takes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.lab import lab, set_epochs
from bench.pairs import enter_namespace
from bench.report import show_startup
from sleap_rtc.demo.configs import write_configs
from sleap_rtc.demo.machines import Machine
from sleap_rtc.jobs.eventlog import HEAD
from sleap_rtc.media.synthetic import NODES, make_dataset

LOGS = "jobs/[!.]*/events.jsonl"
"""Below the worker's folder; a job whose name begins with a dot is not whole yet."""
POLL_S = 0.005
WITHIN_S = 60.0
HELP = (("-c", "pass"), ("-m", "sleap_rtc", "--help"), ("-m", "sleap_rtc", "train", "--help"))
HELP_TIMES = 11


def measure(folder: Path, *, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure both.

    Args:
        folder: Where the homes of all programs are made.
        rounds: How often a training is started.
        say: Shows a line.

    Returns:
        Medians: seconds from ``train`` by what happened, milliseconds of each ``--help``.
    """
    helps = {" ".join(("python", *command)): _run_often(command) for command in HELP}
    trains = _trainings(folder, rounds, say)
    medians = {what: statistics.median(each[what] for each in trains) for what in trains[0]}
    return {"load": os.getloadavg()[0], "train_s": medians, "help": helps}


def _run_often(command: tuple[str, ...]) -> dict[str, float]:
    walls, cpus = [], []
    for _ in range(HELP_TIMES):
        start, used = time.perf_counter(), _children_cpu()
        subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, check=True)
        walls.append((time.perf_counter() - start) * 1000)
        cpus.append((_children_cpu() - used) * 1000)
    return {"wall_ms": statistics.median(walls), "cpu_ms": statistics.median(cpus)}


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _trainings(folder: Path, rounds: int, say: Callable[[str], None]) -> list[dict[str, float]]:
    data = make_dataset(folder / "data")
    configs = write_configs(folder / "configs", "tiny", NODES)
    for config in configs:
        set_epochs(config, 1)  # what comes after the first step is no part of this
    found = []
    with lab(folder, workers=("box",)) as there:
        for turn in range(rounds):
            command = ["train", str(data.package), "--engine", "tiny", "--alias", f"bench-{turn}"]
            for config in configs:
                command += ["--config", str(config)]
            home = there.workers["box"].home
            found.append(_one(there.laptop, home, [*command, "--yes", "--json"]))
            say(f"  {turn + 1}/{rounds}  first step after {found[-1]['first training step']:.2f} s")
    return found


def _one(laptop: Machine, worker: Path, command: list[str]) -> dict[str, float]:
    """Seconds from the start of the command until each thing is in the job's log on the worker."""
    known = set(worker.glob(LOGS))
    found: dict[str, float] = {}
    began = time.time()
    log = worker.parent / "train.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "sleap_rtc", *command],
            env={**os.environ, "SLEAP_RTC_HOME": str(laptop.home)},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
        try:
            while "first training step" not in found:
                if time.time() - began > WITHIN_S or process.poll() not in (None, 0):
                    raise RuntimeError(f"no training step: {log.read_text()[-2000:]}")
                time.sleep(POLL_S)
                for path in set(worker.glob(LOGS)) - known:
                    _look(path, began, found)
            if process.wait(WITHIN_S):
                raise RuntimeError(f"the training failed: {log.read_text()[-2000:]}")
            found["both models at home, one epoch each"] = time.time() - began
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    return found


def _look(path: Path, began: float, found: dict[str, float]) -> None:
    now = time.time() - began
    # The last line may not be whole yet; it is looked at again.
    for line in path.read_bytes().split(b"\n")[:-1]:
        body = json.loads(line[HEAD:])["body"]
        name = body.get("state") if body["kind"] == "state" else body["kind"]
        shown = "first training step" if name == "progress" else f"job {name}"
        if shown == "first training step" or body["kind"] == "state":
            found.setdefault(shown, now)


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.startup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often a training is started")
    given = parser.parse_args()
    enter_namespace("bench.startup")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        measured = measure(
            Path(folder),
            rounds=given.rounds,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    print(show_startup(measured))


if __name__ == "__main__":
    main()
