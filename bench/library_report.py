"""What was measured of the library, as tables for people."""

from __future__ import annotations

from typing import Any, Final

from bench.registries import OPERATIONS

KINDS: Final = {"ours": "sleap-rtc", "sqlite": "plain SQLite", "mlflow": "MLflow"}


def show_library(measured: dict[str, Any]) -> str:
    """The tables of the parts that were measured."""
    shows = {
        "models": _models,
        "start": _start,
        "import": _import,
        "install": _install,
        "kills": _kills,
    }
    tables = [show(measured[part]) for part, show in shows.items() if part in measured]
    if measured["missing"]:
        tables.append(f"Not compared with: {measured['missing']}")
    tables.append(f"Scheduling: {measured['scheduling']}")
    return "\n\n".join(tables)


def _models(measured: dict[str, Any]) -> str:
    lines: list[str] = []
    for size, kinds in measured["models"].items():
        given = [kind for kind in KINDS if kind in kinds]
        heads = [f"{int(size):,} models, ms"]
        for kind in given:
            heads += [f"{KINDS[kind]} p50", "p99"]
        times = "mlflow" in kinds
        lines += _head([*heads, *(["times MLflow"] if times else [])])
        for operation in OPERATIONS:
            cells = [operation]
            for kind in given:
                each = kinds[kind].get(operation)
                cells += [_ms(each["p50_ms"]), _ms(each["p99_ms"])] if each else ["", ""]
            if times:
                cells.append(_times(kinds, operation))
            lines.append(_row(cells))
        lines.append("")
    lines += _head(["models", "files written s", "index built s"])
    for size, kinds in measured["models"].items():
        grown = kinds["ours"]["grown"]
        lines.append(_row([f"{int(size):,}", f"{grown['build']:.2f}", f"{grown['index']:.2f}"]))
    return "\n".join(lines)


def _times(kinds: dict[str, Any], operation: str) -> str:
    """How many times as long MLflow takes."""
    theirs = kinds["mlflow"].get(operation)
    return f"{theirs['p50_ms'] / kinds['ours'][operation]['p50_ms']:.1f}" if theirs else ""


def _start(measured: dict[str, Any]) -> str:
    lines = _head(["command", "best ms", "median ms"])
    for command, each in measured["commands"].items():
        lines.append(_row([f"`{command}`", f"{each['best_ms']:.0f}", f"{each['median_ms']:.0f}"]))
    return "\n".join(lines)


def _import(measured: dict[str, Any]) -> str:
    lines = _head([f"import of {measured['size'] / 1e9:g} GB", "s", "times cp"])
    beside = measured["ways"]["cp + sync"]["median_s"]
    for way, each in measured["ways"].items():
        took = each["median_s"]
        lines.append(_row([way, f"{took:.2f}", f"{took / beside:.2f}"]))
    return "\n".join(lines)


def _install(measured: dict[str, Any]) -> str:
    lines = _head(["installation", "MB"])
    lines += [_row([name, f"{size / 1e6:.0f}"]) for name, size in measured["bytes"].items()]
    return "\n".join(lines)


def _kills(measured: dict[str, Any]) -> str:
    lines = _head(["killed in the middle of", "it was done", "it was not begun"])
    for what, counts in sorted(measured["during"].items()):
        lines.append(_row([what, str(counts["done"]), str(counts["not begun"])]))
    lines.append(f"{measured['kills']} kills, {measured['steps']} steps, nothing was lost")
    return "\n".join(lines)


def _ms(value: float) -> str:
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _head(cells: list[str]) -> list[str]:
    return [_row(cells), "|" + "---|" * len(cells)]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
