"""Measures how long command lines take to start: ours, and what people use beside it.

Each program is one that pip installed into an environment of its own. They take
turns. The first start of each isn't counted: it compiles, and fills caches.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench import environments
from bench.subject_ours import write_models
from sleap_rtc.config import ENV_PREFIX

CLIENT: Final = "sleap-rtc, client"
MODELS: Final = 100
COMMANDS: Final = {
    "python -c pass": (environments.EMPTY, "python", "-c", "pass"),
    "sleap-rtc --help": (CLIENT, "sleap-rtc", "--help"),
    f"sleap-rtc list-models, of {MODELS}": (CLIENT, "sleap-rtc", "list-models"),
    "mlflow --help": ("mlflow", "mlflow", "--help"),
    "wandb --help": ("wandb", "wandb", "--help"),
    "hf --help": ("hf", "hf", "--help"),
    "dvc --help": ("dvc", "dvc", "--help"),
}
"""What is shown → environment, program and arguments."""
QUIET: Final = {
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_MODE": "offline",
    "SLEAP_RTC_LOG_LEVEL": "error",
}
"""So that no program asks anything of a network or leaves a process behind."""


def measure(folder: Path, *, times: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure all commands whose programs are there.

    Args:
        folder: Where their homes are made.
        times: How often each is started.
        say: Shows a line.

    Returns:
        Best and median milliseconds of each.
    """
    home = folder / "home"
    write_models(home / "models", 0, MODELS)
    environment = {
        **os.environ,
        **QUIET,
        "HOME": str(folder),
        "XDG_CACHE_HOME": str(folder / "cache"),
        f"{ENV_PREFIX}HOME": str(home),
    }
    there = {
        shown: [str(environments.program(name, called)), *arguments]
        for shown, (name, called, *arguments) in COMMANDS.items()
        if environments.there(name)
    }
    found: dict[str, list[float]] = {shown: [] for shown in there}
    for turn in range(times + 1):
        for shown, command in there.items():
            took = run_timed(command, cwd=folder, env=environment)
            if turn:
                found[shown].append(took * 1000)
    results = {
        shown: {"best_ms": min(each), "median_ms": statistics.median(each)}
        for shown, each in found.items()
    }
    for shown, each in results.items():
        say(f"  {shown}: {each['best_ms']:.0f} ms, median {each['median_ms']:.0f}")
    return {"load": os.getloadavg()[0], "commands": results}


def run_timed(command: list[str], *, cwd: Path, env: dict[str, str]) -> float:
    """Seconds that a program takes.

    Raises:
        RuntimeError: It failed; with the end of what it said.
    """
    start = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    took = time.perf_counter() - start
    if done.returncode:
        said = done.stdout.decode(errors="replace")[-2_000:]
        raise RuntimeError(f"{command} ended with {done.returncode}: {said}")
    return took
