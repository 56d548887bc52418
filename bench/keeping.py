"""What was measured is kept: as JSON in ``bench/results``, which git ignores."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.pairs import ROOT

RESULTS = ROOT / "bench" / "results"
PACKAGES = ("sleap-rtc", "reactor-webrtc", "aiortc", "blake3")


def beginning() -> dict[str, Any]:
    """What stands before the figures: when, and on what, without names."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    machine = {
        "cpu": found[1] if found else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }
    return {"at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine}


def keep(measured: dict[str, Any]) -> str:
    """Write it to a file; the file's name within the project.

    Args:
        measured: What :func:`beginning` returned, and the figures.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{measured['at'].replace(':', '')}.json"
    path.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    return str(path.relative_to(ROOT))
