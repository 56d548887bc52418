"""Measures a large file from one process to another: ``python -m bench.transfer``.

What is compared takes turns within each round, so that other work on the
machine troubles all of them alike.
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
from bench.report import show_transfer
from bench.wire import MB

AIORTC_PART = 32
"""aiortc sends this part of the file: it is that much slower, and its speed doesn't change."""


def made_file(path: Path, size: int, *, sparse: bool = False) -> Path:
    """A file of random bytes, or of one long hole, which reads as zeros."""
    with path.open("wb") as file:
        left = 0 if sparse else size
        while left:
            left -= file.write(os.urandom(min(left, 16 * MB)))
        file.truncate(size)
    return path


def measure(
    folder: Path, *, size: int, large: int, rounds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure everything about transfers.

    Args:
        folder: Where the files are made; removed again are only those that it made.
        size: Bytes of the file.
        large: Bytes of the file that memory is compared with; 0 for none.
        rounds: How often each is measured.
        say: Shows a line.

    Returns:
        The medians by what was measured, each with its runs.
    """
    file = made_file(folder / "file.bin", size)
    into = {"file": str(file), "into": str(folder)}
    ways: dict[str, tuple[str, dict[str, Any]]] = {
        "ours": ("ours", {"size": size, **into}),
        "ours, direct": ("ours", {"size": size, "transport": "direct", **into}),
        "ours, one machine": ("ours", {"size": size, "transport": "local", **into}),
        "TLS, hashes and writes": ("tls", {"size": size, **into}),
        "bare": ("bare", {"size": size, "files": False}),
        "bare, hashes and writes": ("bare", {"size": size, "files": True, **into}),
        "aiortc": ("aiortc", {"size": size // AIORTC_PART}),
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name, (kind, options) in ways.items():
            runs[name].append(_figures(run_pair(kind, **options), options["size"]))
            say(f"  {turn + 1}/{rounds}  {name}: {runs[name][-1]['mb_per_s']:.1f} MB/s")
    file.unlink()
    result: dict[str, dict[str, Any]] = {
        name: {**_medians(each), "runs": each} for name, each in runs.items()
    }
    if large:
        file = made_file(folder / "large.bin", large, sparse=True)
        options = {"size": large, "file": str(file), "into": str(folder)}
        result["ours, large"] = _figures(run_pair("ours", **options), large)
        file.unlink()
    return {"size": size, "large": large, "load": os.getloadavg()[0], "results": result}


def _figures(used: dict[str, Any], size: int) -> dict[str, float]:
    sender, receiver = used["sender"], used["receiver"]
    return {
        "mb_per_s": size / MB / receiver["wall_s"],
        "sender_cpu_s_per_gb": sender["cpu_s"] / size * 1000 * MB,
        "receiver_cpu_s_per_gb": receiver["cpu_s"] / size * 1000 * MB,
        "sender_peak_mb": sender["peak_mb"],
        "receiver_peak_mb": receiver["peak_mb"],
    }


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.transfer", description=__doc__)
    add_options(parser)
    given = parser.parse_args()
    enter_namespace("bench.transfer")
    with tempfile.TemporaryDirectory(dir=given.dir, prefix="bench-") as folder:
        measured = measure(
            Path(folder),
            size=given.size * MB,
            large=given.large * MB,
            rounds=given.rounds,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    print(show_transfer(measured))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the transfer's measurement."""
    parser.add_argument("--size", type=int, default=1000, help="MB of the file")
    parser.add_argument("--large", type=int, default=5000, help="MB of the large one; 0: none")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    parser.add_argument("--dir", type=Path, help="where files are made (default: temporary)")


if __name__ == "__main__":
    main()
