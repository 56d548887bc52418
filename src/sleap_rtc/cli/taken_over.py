"""What is said when models of the public sleap-rtc's registry were taken over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sleap_rtc.cli.output import Output
from sleap_rtc.cli.text import count
from sleap_rtc.library.merging import Report

_SHOWN: Final = 20
"""Models of which it is said why."""


def tell_taken_over(out: Output, reports: Sequence[Report]) -> None:
    """What became of models in registries of the public sleap-rtc; in words, beside any result."""
    for report in reports:
        new = report.count("model", "added", "renamed")
        out.say(f"{count(new, 'model')} of the public sleap-rtc taken over.")
        out.say(f"Its registry is kept as {report.source}.")
        telling = [outcome for outcome in report.outcomes if outcome.why]
        for outcome in telling[:_SHOWN]:
            out.warn(f"{outcome.kind} {outcome.name}: {outcome.why}")
        if len(telling) > _SHOWN:
            out.warn(f"{len(telling) - _SHOWN:,} more.")
