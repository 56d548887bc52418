"""What transfers are meant to reach, beside what was measured.

Two ways are compared within each round, and the median of the rounds' ratios counts: what else
the machine does changes from minute to minute, and much less within one round.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from bench.ways import BARE, DIRECT, DOWN, LOCAL, TLS, UP, WEBRTC

FLAT_MB: Final = 20.0
"""Megabytes that a larger file may take more."""
UPLOADERS: Final = tuple(f"upload, {name}" for name in ("s5cmd", "obstore", "boto3", "rclone"))
DOWNLOADERS: Final = tuple(f"download, {name}" for name in ("rclone", "s5cmd"))

Results = Mapping[str, Mapping[str, Any]]


class Goal(msgspec.Struct, frozen=True):
    """One goal and what was measured.

    Attributes:
        text: What is compared.
        value: What was measured.
        wanted: What is wanted of it.
        least: Whether that is the least; otherwise the most.
        unit: Of both.
    """

    text: str
    value: float
    wanted: float
    least: bool = True
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        return self.value >= self.wanted if self.least else self.value <= self.wanted

    def __str__(self) -> str:
        bound = "at least" if self.least else "at most"
        verdict = "met" if self.met else "not met"
        unit = f" {self.unit}" if self.unit else ""
        return f"| {self.text} | {self.value:.2f}{unit} | {bound} {self.wanted:g} | {verdict} |"


def goals(measured: Mapping[str, Any]) -> list[Goal]:
    """The goals whose rows were measured.

    Args:
        measured: As `bench.transfer.measure` returns it.
    """
    results: Results = measured["results"]
    found = [
        Goal(f"{ours} / {other}", ratio, wanted)
        for ours, other, wanted in (
            (WEBRTC, BARE, 0.9),
            (WEBRTC, "aiortc", 7.0),
            (DIRECT, TLS, 0.8),
            (DIRECT, "magic-wormhole", 2.0),
            (DIRECT, "aiortc", 40.0),
        )
        for ratio in _speeds(results, ours, other)
    ]
    found += [
        Goal(f"cp / {LOCAL}", ratio, 1.3, least=False) for ratio in _speeds(results, "cp", LOCAL)
    ]
    for best in _fastest(results, UPLOADERS):
        speed = f"{UP} / the fastest, {best.partition(', ')[2]}"
        cpu = f"{UP}: its CPU / that of {best.partition(', ')[2]}"
        found += [Goal(speed, ratio, 1.0) for ratio in _speeds(results, UP, best)]
        ratios = _paired(results, UP, best, "sender_cpu_s_per_gb")
        found += [Goal(cpu, ratio, 0.25, least=False) for ratio in ratios]
    for best in _fastest(results, DOWNLOADERS):
        speed = f"{DOWN} / the faster, {best.partition(', ')[2]}"
        found += [Goal(speed, ratio, 1.0) for ratio in _speeds(results, DOWN, best)]
    return found + _memory(results, measured.get("large") or {})


def _memory(results: Results, large: Results) -> list[Goal]:
    """Whether our own processes take more memory for the large file."""
    found: list[Goal] = []
    if WEBRTC in results and "bare" in results:
        more = results[WEBRTC]["sender_peak_mb"] - results["bare"]["sender_peak_mb"]
        found.append(Goal("sender above the bare one", more, 80.0, least=False, unit="MB"))
    for name, sides in (
        (WEBRTC, ("sender", "receiver")),
        (DIRECT, ("sender", "receiver")),
        (LOCAL, ("sender", "receiver")),
        (UP, ("sender",)),
        (DOWN, ("receiver",)),
    ):
        if name in results and name in large:
            for side in sides:
                more = large[name][f"{side}_peak_mb"] - results[name][f"{side}_peak_mb"]
                text = f"{name}: {side}, more for the large file"
                found.append(Goal(text, more, FLAT_MB, least=False, unit="MB"))
    return found


def _fastest(results: Results, names: Iterable[str]) -> list[str]:
    """The fastest of some ways by its median; none where none was measured."""
    there = [name for name in names if name in results]
    return [max(there, key=lambda name: results[name]["mb_per_s"])] if there else []


def _speeds(results: Results, one: str, other: str) -> list[float]:
    return _paired(results, one, other, "mb_per_s")


def _paired(results: Results, one: str, other: str, what: str) -> list[float]:
    """The median of the rounds' ratios; none where one of the two wasn't measured."""
    if one not in results or other not in results:
        return []
    ones, others = (
        {run["round"]: run[what] for run in results[name]["runs"]} for name in (one, other)
    )
    both = [ones[number] / others[number] for number in ones if number in others]
    return [statistics.median(both)] if both else []
