"""Measures the round trip of a small request over a link: ``python -m bench.control``.

First alone, then while the same two processes move a file as fast as they can.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.pairs import enter_namespace, run_pair
from bench.report import show_control
from bench.transfer import made_file
from bench.wire import MB

EVERY_S = 0.01
"""Seconds between an answer and the next question."""
IDLE = 500
"""Questions without load, in each run."""


def measure(folder: Path, *, size: int, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure round trips, idle and saturated.

    Args:
        folder: Where files are made.
        size: Bytes of the file that saturates the link.
        rounds: How often it is done; the figures are of all questions together.
        say: Shows a line.

    Returns:
        Milliseconds and numbers of questions.
    """
    file = made_file(folder / "file.bin", size)
    found: dict[str, list[float]] = {"idle": [], "saturated": []}
    speeds: list[float] = []
    for turn in range(rounds):
        said = run_pair(
            "control", file=str(file), into=str(folder), size=size, every_s=EVERY_S, idle=IDLE
        )
        for name in found:
            found[name] += said["sender"][f"{name}_s"]
        speeds.append(size / MB / said["receiver"]["wall_s"])
        say(f"  {turn + 1}/{rounds}  control: {_figures(said['sender']['saturated_s'])}")
    file.unlink()
    figures = {name: _figures(each) for name, each in found.items()}
    return {"load": os.getloadavg()[0], "mb_per_s": statistics.median(speeds), **figures}


def _figures(seconds: list[float]) -> dict[str, float]:
    percent = statistics.quantiles(seconds, n=100)
    return {
        "p50_ms": statistics.median(seconds) * 1000,
        "p99_ms": percent[98] * 1000,
        "most_ms": max(seconds) * 1000,
        "questions": len(seconds),
    }


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.control", description=__doc__)
    parser.add_argument("--size", type=int, default=500, help="MB that saturate the link")
    parser.add_argument("--rounds", type=int, default=3, help="how often it is measured")
    parser.add_argument("--dir", type=Path, help="where files are made (default: temporary)")
    given = parser.parse_args()
    enter_namespace("bench.control")
    with tempfile.TemporaryDirectory(dir=given.dir, prefix="bench-") as folder:
        measured = measure(
            Path(folder),
            size=given.size * MB,
            rounds=given.rounds,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    print(show_control(measured))


if __name__ == "__main__":
    main()
