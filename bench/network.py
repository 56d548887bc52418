"""Measures what bad and long lines leave of it: ``make bench ARGS='--only network'``.

======  ========================================================================
part    what
======  ========================================================================
loss    transfers over a line with 1 % loss, cut at random: how many end well
near    transfers between peers on one machine: none may wait for a time-out
speed   long lines: how fast ours is, beside what the line itself carries
turn    through coturn, between peers that reach nothing else
sends   uploads to a store over that first line: how many end well
stored  up to a store and down from it over long lines, beside a link
cost    what passes servers, beside what would if everything were relayed
======  ========================================================================

Each of them alone, with more to choose: ``python -m bench.loss``, ``bench.far_store`` for stores
and ``bench.cost`` for the last. What can't be had here, as where coturn isn't installed, is left
out, and the report says why.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench import cost, far_store, loss
from bench.goals import Goal
from bench.wire import MB
from sleap_rtc.errors import SleapRtcError

PARTS: Final = ("loss", "near", "speed", "turn", "sends", "stored", "cost")
QUICK: Final = {
    "transfers": 8,
    "far": 20,
    "lines": ("40 ms", "40 ms, 0.5 % loss"),
    "relays": ("udp",),
}
SENDS_SIZE: Final = 16
LOSS_SIZE: Final = 8
NEAR_SIZE: Final = 24
COST_SIZE: Final = 24
"""MB of each of many files."""

ENOUGH: Final = 100 * MB
"""Bytes over a long line from which its goals tell something."""
_SHORT: Final = "So little is over before a line is used in full: goals in MB/s tell nothing."

_FASTEST_LINE: Final = "40 ms"
_LOSSY_LINE: Final = "40 ms, 0.5 % loss"


def measure(
    folder: Path, given: argparse.Namespace, *, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure the parts that were asked for.

    Args:
        folder: Where files are made; nothing is left there.
        given: Of :func:`add_options`.
        say: Shows a line.

    Returns:
        The parts' figures by their names, and under ``missing`` what could not be measured.
    """
    lines = {name: loss.LINES[name] for name in given.lines}
    parts: dict[str, Callable[[Path], Any]] = {
        "loss": lambda f: loss.many(f, size=LOSS_SIZE * MB, count=given.transfers, seed=1),
        "near": lambda f: loss.near(f, size=NEAR_SIZE * MB, count=given.transfers),
        "speed": lambda f: loss.speeds(f, size=given.far * MB, lines=lines, say=say),
        "turn": lambda f: {
            name: loss.relayed(f, size=given.far * MB, name=name, say=say) for name in given.relays
        },
        "sends": lambda f: far_store.many(f, size=SENDS_SIZE * MB, count=given.transfers, seed=1),
        "stored": lambda f: far_store.speeds(f, size=given.far * MB, lines=lines, say=say),
        "cost": lambda f: cost.measure(f, size=COST_SIZE * MB, say=say),
    }
    measured: dict[str, Any] = {"far_size": given.far * MB, "load": os.getloadavg()[0]}
    missing: dict[str, str] = {}
    for name in given.network:
        say(f"network: {name}")
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{name}-") as own:
            try:
                measured[name] = parts[name](Path(own))
            except (SleapRtcError, RuntimeError, OSError, subprocess.SubprocessError) as error:
                missing[name] = str(error)
                say(f"  {name} can't be measured: {error}")
    return {**measured, "missing": missing}


def goals(measured: dict[str, Any]) -> list[Goal]:
    """The goals of the parts that were measured.

    Args:
        measured: As :func:`measure` returns it.
    """
    found: list[Goal] = []
    if many := measured.get("loss"):
        share = 100 * many["ended_well"] / many["transfers"]
        text = f"of {many['transfers']} transfers with loss and {many['disconnects']} cuts end well"
        found.append(Goal(text, share, 100.0, unit="%"))
    if sends := measured.get("sends"):
        share = 100 * sends["ended_well"] / sends["transfers"]
        text = f"of {sends['transfers']} uploads with loss and {sends['disconnects']} cuts end well"
        found.append(Goal(text, share, 100.0, unit="%"))
    if near := measured.get("near"):
        text = f"of {near['transfers']} between near peers, those over {loss.STALL_S:g} s"
        found.append(Goal(text, near["stalled"], 0.0, least=False))
        lost = near["transfers"] - near["ended_well"]
        found.append(Goal("of these, those that fail", lost, 0.0, least=False))
    speed = measured.get("speed") or {}
    for line, wanted in ((_FASTEST_LINE, 25.0), (_LOSSY_LINE, 7.0)):
        if line in speed:
            found.append(Goal(f"a line of {line}", speed[line]["ours"], wanted, unit="MB/s"))
    for line, each in speed.items():
        if ratio := each["direct / bbr"]:
            found.append(Goal(f"direct / bare TCP with BBR, {line}", ratio, 0.8))
    for way, each in (measured.get("turn") or {}).items():
        found.append(Goal(f"through TURN, {way}", each["ours"], 20.0, unit="MB/s"))
    if paid := measured.get("cost"):
        name, mix = next(iter(cost.MIXES.items()))
        text = f"less by servers than if all were relayed, {name}'s mix"
        found.append(Goal(text, cost.saved(paid, mix), cost.GOAL, unit="%"))
    return found


def show_network(measured: dict[str, Any]) -> str:
    """The tables of the parts that were measured, the goals, and what could not be measured."""
    tables = [
        _many({name: measured[name] for name in ("loss", "near", "sends") if name in measured}),
        _lines(measured.get("speed") or {}, measured["far_size"]),
        _relays(measured.get("turn") or {}, measured["far_size"]),
        _stored(measured.get("stored") or {}, measured["far_size"]),
        cost.tables(measured["cost"]) if measured.get("cost") else [],
        ["| goal | measured | wanted | |", "|---|---|---|---|", *map(str, goals(measured))],
        [f"{name}: not measured, {why}" for name, why in measured["missing"].items()],
        [_SHORT] if measured["far_size"] < ENOUGH else [],
        [f"Load when it began: {measured['load']:.1f}"],
    ]
    return "\n\n".join("\n".join(lines) for lines in tables if lines)


def _many(parts: dict[str, Any]) -> list[str]:
    names = {
        "loss": f"1 % loss, cuts, {LOSS_SIZE} MB",
        "near": f"near, {NEAR_SIZE} MB",
        "sends": f"1 % loss, cuts, to a store, {SENDS_SIZE} MB",
    }
    rows = [
        f"| {names[name]} | {each['transfers']} | {each['ended_well']} | {each['median_s']:.2f} "
        f"| {each['longest_s']:.1f} | {100 * each['sent_twice']:.1f} |"
        for name, each in parts.items()
    ]
    head = "| transfers | | ended well | median s | longest s | % sent twice |"
    return _table(head, rows)


def _lines(speed: dict[str, Any], size: int) -> list[str]:
    rows = [
        f"| {line} | {each['ours']:.1f} | {each['connections']} | {each['ours, direct']:.1f} "
        f"| {each['bare, one connection']:.1f} | {each['udp']:.1f} | {each['tcp, cubic']:.1f} "
        f"| {each['tcp, bbr']:.1f} |"
        for line, each in speed.items()
    ]
    head = (
        f"| {size / MB:,.0f} MB over a line of | ours MB/s | connections | direct "
        "| the library's loop, one | UDP | TCP, cubic | TCP, BBR |"
    )
    return _table(head, rows)


def _relays(turn: dict[str, Any], size: int) -> list[str]:
    rows = [
        f"| {way} | {each['ours']:.1f} | {each['connections']} | {each['bare, one connection']:.1f}"
        f" | {each['sender_cpu_s_per_gb']:.0f} | {each['receiver_cpu_s_per_gb']:.0f} "
        f"| {each['relay_cpu_s_per_gb']:.0f} |"
        for way, each in turn.items()
    ]
    head = (
        f"| {size / MB:,.0f} MB through TURN | ours MB/s | connections | the library's loop, one "
        "| CPU s/GB sender | receiver | relay |"
    )
    return _table(head, rows)


def _stored(lines: dict[str, Any], size: int) -> list[str]:
    rows = [
        f"| {line} | {each['upload']:.1f} | {each['download']:.1f} | {each['link']:.1f} |"
        for line, each in lines.items()
    ]
    head = f"| {size / MB:,.0f} MB over a line of | to a store MB/s | from it | a link |"
    return _table(head, rows)


def _table(head: str, rows: list[str]) -> list[str]:
    """A table's lines; none where it would have no rows."""
    return [head, "|---" * (head.count("|") - 1) + "|", *rows] if rows else []


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the network's measurement."""
    parser.add_argument("--transfers", type=int, default=100, help="how many over a bad line")
    parser.add_argument("--far", type=int, default=200, help="MB over a long line, or a relay")
    parser.add_argument(
        "--lines", nargs="*", choices=loss.LINES, default=tuple(loss.LINES), help="which long lines"
    )
    parser.add_argument(
        "--relays", nargs="*", choices=loss.RELAYS, default=tuple(loss.RELAYS), help="which relays"
    )
    parser.add_argument(
        "--network", nargs="+", choices=PARTS, default=PARTS, help="which parts of the network's"
    )
