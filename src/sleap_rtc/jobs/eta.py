"""How long a stage will still take, from what it took so far.

An epoch has steps, which are counted, and an end (validation, writing a
checkpoint), which is not. So the first epoch is judged by its steps, and from
the second on by the seconds that whole epochs took, recent ones counting more.

Times are seconds of any clock that doesn't jump and doesn't count pauses.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec
from msgspec.structs import replace

WEIGHT: Final = 0.3
"""Share of the newest epoch in the running mean of their durations."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a stage's speed.

    Attributes:
        epochs: Planned in all, None when unknown.
        epoch: The epoch that runs, from 0.
        epoch_started: When it began, seconds.
        epoch_s: Running mean of the seconds of a whole epoch, None before the first one.
        fraction: Done of the present epoch, 0 to 1.
        steps_started: When its first counted step ended: what came before is start-up.
        steps_fraction: What was done then.
    """

    epochs: int | None
    epoch: int
    epoch_started: float
    epoch_s: float | None = None
    fraction: float = 0.0
    steps_started: float | None = None
    steps_fraction: float = 0.0


def begin(*, epochs: int | None, first_epoch: int, now: float) -> Pace:
    """The pace of a stage that starts now with ``first_epoch`` of ``epochs``."""
    return Pace(epochs=epochs, epoch=first_epoch, epoch_started=now)


def stepped(pace: Pace, *, epoch: int, done: int, total: int | None, now: float) -> Pace:
    """After ``done`` of ``total`` steps of an epoch."""
    if epoch != pace.epoch:
        pace = replace(pace, epoch=epoch, epoch_started=now, fraction=0.0, steps_started=None)
    if not total:
        return pace
    fraction = min(1.0, done / total)
    if pace.steps_started is None:
        pace = replace(pace, steps_started=now, steps_fraction=fraction)
    return replace(pace, fraction=fraction)


def epoch_ended(pace: Pace, *, epoch: int, now: float) -> tuple[Pace, float]:
    """After a whole epoch: the new pace, and the seconds that the epoch took."""
    took = max(0.0, now - pace.epoch_started)
    mean = took if pace.epoch_s is None else (1 - WEIGHT) * pace.epoch_s + WEIGHT * took
    following = begin(epochs=pace.epochs, first_epoch=epoch + 1, now=now)
    return replace(following, epoch_s=mean), took


def remaining(pace: Pace, *, now: float) -> float | None:
    """Seconds until the last epoch ends, None while there is nothing to judge by."""
    if pace.epochs is None:
        return None
    left = max(0, pace.epochs - pace.epoch)
    if left == 0:
        return 0.0
    epoch_s = pace.epoch_s if pace.epoch_s is not None else _from_steps(pace, now)
    if epoch_s is None:
        return None
    here = max(epoch_s * (1 - pace.fraction), 0.0)
    return here + epoch_s * (left - 1)


def frames_remaining(*, done: int, total: int | None, rate: float | None) -> float | None:
    """Seconds until the last frame, at ``rate`` frames per second; None when it can't be said."""
    if total is None or rate is None or not math.isfinite(rate) or rate <= 0:
        return None
    return max(0, total - done) / rate


def _from_steps(pace: Pace, now: float) -> float | None:
    if pace.steps_started is None:
        return None
    done, took = pace.fraction - pace.steps_fraction, now - pace.steps_started
    return took / done if done > 0 and took > 0 else None
