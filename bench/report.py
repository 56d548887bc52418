"""What was measured, as tables for people."""

from __future__ import annotations

from typing import Any

from bench.goals import goals


def show_transfer(measured: dict[str, Any]) -> str:
    """The tables of `bench.transfer`, the goals, and what could not be measured."""
    lines = _rows(f"{measured['size'] / 1e6:,.0f} MB in one file", measured["results"])
    if measured["small"]:
        lines += ["", *_rows(f"{measured['small_files']:,} small files", measured["small"])]
    if large := measured["large"]:
        size = f"{large['size'] / 1e6:,.0f} MB"
        lines += ["", *_rows(size, {n: each for n, each in large.items() if n != "size"})]
    if reached := goals(measured):
        lines += ["", "| goal | measured | wanted | |", "|---|---|---|---|", *map(str, reached)]
    lines += [f"{name}: not measured, {why}" for name, why in measured["missing"].items()]
    return "\n".join(lines)


def _rows(title: str, results: dict[str, Any]) -> list[str]:
    lines = [
        f"| {title} | s | MB/s | CPU s/GB sender | receiver | both | peak MB sender | receiver |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, each in results.items():
        sender, receiver = each["sender_cpu_s_per_gb"], each["receiver_cpu_s_per_gb"]
        lines.append(
            f"| {name} | {each['wall_s']:.2f} | {each['mb_per_s']:.1f} "
            f"| {sender:.2f} | {receiver:.2f} | {sender + receiver:.2f} "
            f"| {each['sender_peak_mb']:.0f} | {each['receiver_peak_mb']:.0f} |"
        )
    return lines


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
