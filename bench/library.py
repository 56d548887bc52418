"""Measures the library: ``python -m bench.library``.

========  ======================================================================
part      what
========  ======================================================================
models    registries of 100 to 100,000 models, ours, plain SQLite and MLflow's
start     how long command lines take to start
import    one large file, by link and by copy, beside cp and ``dvc add``
install   what an installation takes on the disk
kills     writers are killed, and what they leave is looked at
========  ======================================================================

The programs to be compared with are installed first, in environments of their
own; see `bench.environments`. Then all of it runs in a network namespace.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from loguru import logger

from bench import environments, imports, kills, programs, registries
from bench.library_report import show_library
from bench.pairs import enter_namespace
from bench.wire import MB
from sleap_rtc.testing import netns

PARTS: Final = ("models", "start", "import", "install", "kills")
MISSING: Final = "BENCH_MISSING"
"""Variable that tells the program in the namespace what could not be installed outside it."""
START_TIMES: Final = 11


def prepare(say: Callable[[str], None]) -> None:
    """Install what is compared with; does nothing inside the namespace, where nothing is reached.

    Args:
        say: Shows a line.
    """
    if netns.inside() is None:
        missing = environments.prepare(say)
        os.environ[MISSING] = "; ".join(f"{name}: {why}" for name, why in missing.items())


def measure(
    folder: Path, given: argparse.Namespace, *, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure the parts that were asked for.

    Args:
        folder: Where everything is made.
        given: Of :func:`add_options`, and ``rounds``.
        say: Shows a line.

    Returns:
        What each part measured, what was compared with, and how the processes were scheduled.
    """
    measured: dict[str, Any] = {
        "peers": {name: environments.there(name) for name in environments.PEERS},
        "versions": environments.PEERS,
        "missing": os.environ.get(MISSING, ""),
        "scheduling": scheduling(),
    }
    parts: dict[str, Callable[[Path], dict[str, Any]]] = {
        "models": lambda f: registries.measure(f, most=given.models, rounds=given.rounds, say=say),
        "start": lambda f: programs.measure(f, times=START_TIMES, say=say),
        "import": lambda f: imports.measure(
            f, size=given.file * MB, rounds=min(given.rounds, 3), say=say
        ),
        "install": lambda _: {"bytes": environments.sizes()},
        "kills": lambda f: kills.run(f, times=given.kills, seed=1, say=say),
    }
    for name in given.parts:
        say(f"library: {name}")
        # Of its own, so that the tree of 100,000 models is gone before the next is measured.
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{name}-") as own:
            measured[name] = parts[name](Path(own))
    return measured


def scheduling() -> str:
    """How the kernel schedules this process and those that it starts."""
    names = {os.SCHED_OTHER: "normal", os.SCHED_BATCH: "batch", os.SCHED_IDLE: "idle"}
    policy = os.sched_getscheduler(0)
    return f"{names.get(policy, policy)}, nice {os.getpriority(os.PRIO_PROCESS, 0)}"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the library's measurement."""
    parser.add_argument("--models", type=int, default=100_000, help="models of the largest library")
    parser.add_argument("--file", type=int, default=2_000, help="MB of the file to be imported")
    parser.add_argument("--kills", type=int, default=2_000, help="how many writers are killed")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="which parts of the library's"
    )


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.library",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    parser.add_argument("--dir", type=Path, help="where files are made (default: temporary)")
    given = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    logger.remove()
    prepare(say)
    enter_namespace("bench.library")
    with tempfile.TemporaryDirectory(dir=given.dir, prefix="bench-") as folder:
        measured = measure(Path(folder), given, say=say)
    print(show_library(measured))


if __name__ == "__main__":
    main()
