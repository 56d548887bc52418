"""What was measured, as tables for people."""

from __future__ import annotations

import statistics
from typing import Any


def show_transfer(measured: dict[str, Any]) -> str:
    """The table of `bench.transfer`, and the ratios that the goals speak of."""
    results = measured["results"]
    lines = [
        "| | MB/s | CPU s/GB sender | receiver | peak MB sender | receiver |",
        "|---|---|---|---|---|---|",
    ]
    for name, each in results.items():
        lines.append(
            f"| {name} | {each['mb_per_s']:.1f} | {each['sender_cpu_s_per_gb']:.1f} "
            f"| {each['receiver_cpu_s_per_gb']:.1f} | {each['sender_peak_mb']:.0f} "
            f"| {each['receiver_peak_mb']:.0f} |"
        )
    for goal, value in ratios(measured).items():
        lines.append(f"{goal}: {value:.2f}")
    return "\n".join(lines)


def ratios(measured: dict[str, Any]) -> dict[str, float]:
    """What the goals compare."""
    results = measured["results"]
    ours = results["ours"]
    found = {
        f"ours / {name}": _paired(ours["runs"], results[name]["runs"])
        for name in ("aiortc", "bare", "bare, hashes and writes")
    }
    for way, bare in (("ours, direct", "TLS, hashes and writes"), ("ours, direct", "aiortc")):
        found[f"{way} / {bare}"] = results[way]["mb_per_s"] / results[bare]["mb_per_s"]
    found["MB above the bare sender"] = ours["sender_peak_mb"] - results["bare"]["sender_peak_mb"]
    if "ours, large" in results:
        for role in ("sender", "receiver"):
            more = results["ours, large"][f"{role}_peak_mb"] - ours[f"{role}_peak_mb"]
            found[f"MB more for the large file, {role}"] = more
    return found


def _paired(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> float:
    """How many times as fast we are: the median of the rounds, each compared with itself.

    What else the machine does changes from minute to minute, and much less within one round.
    """
    pairs = zip(ours, theirs, strict=True)
    return statistics.median(our["mb_per_s"] / their["mb_per_s"] for our, their in pairs)


def show_control(measured: dict[str, Any]) -> str:
    """The table of `bench.control`."""
    lines = ["| round trip | p50 ms | p99 ms | longest ms | questions |", "|---|---|---|---|---|"]
    for name in ("idle", "saturated"):
        each = measured[name]
        lines.append(
            f"| {name} | {each['p50_ms']:.2f} | {each['p99_ms']:.1f} | {each['most_ms']:.1f} "
            f"| {each['questions']:.0f} |"
        )
    return "\n".join(lines)


def show_startup(measured: dict[str, Any]) -> str:
    """The tables of `bench.startup`."""
    lines = ["| from `train` until | s |", "|---|---|"]
    lines += [f"| {what} | {each:.2f} |" for what, each in measured["train_s"].items()]
    lines += ["", "| command | ms | CPU ms |", "|---|---|---|"]
    for command, each in measured["help"].items():
        lines.append(f"| `{command}` | {each['wall_ms']:.0f} | {each['cpu_ms']:.0f} |")
    return "\n".join(lines)
