"""How a job ends, when it doesn't go on.

Whatever a trainer wrote last, the event that tells of it fits into one message
of 64 KiB: at worst a character takes 6 bytes there.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from sleap_rtc.engines.base import Outcome
from sleap_rtc.errors import SleapRtcError
from sleap_rtc.jobs.events import ErrorTold

_MAX_LINES: Final = 100
_MAX_LINE: Final = 2_000
_MAX_TAIL: Final = 32 * 1024
"""Bytes of all the last lines, as they are sent."""
_MAX_REASON: Final = 2_000
_MAX_HINT: Final = 1_000


class Ending(msgspec.Struct, frozen=True):
    """The state that a job ends in before all of it is done.

    Attributes:
        state: Which.
        reason: One sentence.
        error: What to show, when it is somebody's fault.
    """

    state: Literal["failed", "cancelled", "interrupted"]
    reason: str = ""
    error: ErrorTold | None = None


def told(error: SleapRtcError) -> ErrorTold:
    """An error as the job's log tells it."""
    return ErrorTold(
        code=error.code,
        message=error.message[:_MAX_REASON],
        hint=error.hint_text[:_MAX_HINT],
    )


def from_outcome(outcome: Outcome, *, what: str, code: str) -> Ending:
    """The ending that an engine's run makes which brought no result.

    A run that was cancelled, though nobody asked the job to be, was ended from outside.

    Args:
        outcome: How the run ended.
        what: Names the stage, at the beginning of a sentence.
        code: The error's code when it failed.
    """
    why = outcome.reason[:_MAX_REASON] or "the engine gave no reason"
    if outcome.kind == "failed":
        error = ErrorTold(
            code=code,
            message=f"{what} failed: {why}",
            log_tail=_tail(outcome.log_tail),
        )
        return Ending("failed", error.message, error)
    return Ending("interrupted", f"{what} was interrupted: {why}")


def _tail(lines: Sequence[str]) -> tuple[str, ...]:
    """The last lines, as many as fit into a message beside the rest; the newest matter most."""
    newest = [line[:_MAX_LINE] for line in reversed(lines[-_MAX_LINES:])]
    sizes = itertools.accumulate(len(msgspec.json.encode(line)) + 1 for line in newest)
    kept = [line for line, size in zip(newest, sizes, strict=True) if size <= _MAX_TAIL]
    return tuple(reversed(kept))
