"""All benchmarks, one after the other: ``python -m bench``, or ``make bench``.

The figures go to ``bench/results/<time>.json``, which git ignores, and tables to
standard output; ``bench/README.md`` keeps the ones worth keeping.
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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import control, startup, transfer
from bench.pairs import ROOT, enter_namespace
from bench.report import show_control, show_startup, show_transfer
from bench.wire import MB

RESULTS = ROOT / "bench" / "results"
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
    transfer.add_options(parser)
    given = parser.parse_args()
    enter_namespace("bench")

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    measured: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
    }
    with tempfile.TemporaryDirectory(dir=given.dir, prefix="bench-") as name:
        folder = Path(name)
        sizes = {"size": given.size * MB, "large": given.large * MB}
        rounds = given.rounds
        measured["startup"] = startup.measure(folder, rounds=rounds, say=say)
        measured["control"] = control.measure(folder, size=500 * MB, rounds=min(rounds, 3), say=say)
        measured["transfer"] = transfer.measure(folder, **sizes, rounds=rounds, say=say)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{measured['at'].replace(':', '')}.json"
    path.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    for show, part in (
        (show_transfer, "transfer"),
        (show_control, "control"),
        (show_startup, "startup"),
    ):
        print(f"\n{show(measured[part])}")
    say(f"\nkept in {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
