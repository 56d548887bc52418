"""All benchmarks, one after the other: ``python -m bench``, or ``make bench``.

``--only`` chooses the main job's (``transfer``, with control and start-up) or the
library's; each of their parts can be started alone too, and ``--quick`` is a look
at all of them. The figures go to ``bench/results/<time>.json``, which git ignores,
and tables to standard output; ``bench/README.md`` keeps the ones worth keeping.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loguru import logger

from bench import control, library, startup, transfer
from bench.library_report import show_library
from bench.pairs import ROOT, enter_namespace
from bench.report import show_control, show_startup, show_transfer
from bench.wire import MB

RESULTS = ROOT / "bench" / "results"
PARTS = ("transfer", "library")
QUICK = {"size": 200, "large": 0, "rounds": 1, "models": 1_000, "file": 200, "kills": 100}
PACKAGES = ("sleap-rtc", "reactor-webrtc", "aiortc", "blake3")


def machine() -> dict[str, Any]:
    """What it ran on, without names."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return {
        "cpu": found[1] if found else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def main() -> None:
    """Measure everything, print it, and keep it."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="measure only these")
    parser.add_argument("--quick", action="store_true", help="small sizes, and once each")
    transfer.add_options(parser)
    library.add_options(parser)
    given = parser.parse_args()
    if given.quick:
        vars(given).update(QUICK)
    wanted = PARTS if given.only is None else (given.only,)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    if "library" in wanted:
        library.prepare(say)
    enter_namespace("bench")
    measured: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
    }
    with tempfile.TemporaryDirectory(dir=given.dir, prefix="bench-") as name:
        folder = Path(name)
        if "transfer" in wanted:
            measured |= _main_job(folder, given, say)
        if "library" in wanted:
            logger.remove()
            measured["library"] = library.measure(folder, given, say=say)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{measured['at'].replace(':', '')}.json"
    path.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    for show, part in (
        (show_transfer, "transfer"),
        (show_control, "control"),
        (show_startup, "startup"),
        (show_library, "library"),
    ):
        if part in measured:
            print(f"\n{show(measured[part])}")
    say(f"\nkept in {path.relative_to(ROOT)}")


def _main_job(
    folder: Path, given: argparse.Namespace, say: Callable[[str], None]
) -> dict[str, Any]:
    sizes = {"size": given.size * MB, "large": given.large * MB}
    rounds = given.rounds
    return {
        "startup": startup.measure(folder, rounds=rounds, say=say),
        "control": control.measure(folder, size=500 * MB, rounds=min(rounds, 3), say=say),
        "transfer": transfer.measure(folder, **sizes, rounds=rounds, say=say),
    }


if __name__ == "__main__":
    main()
