"""From what an engine says to what a job's log says, at most so many a second.

A trainer may take thousands of steps a second, and print a line at each; people
and networks get four steps a second, and twenty lines after a first burst. No
whole epoch is ever left out. Pure: times are handed in, and don't count pauses.
"""

from __future__ import annotations

import math
from typing import Final

from sleap_rtc.domain.places import Load
from sleap_rtc.engines.base import (
    Began,
    CheckpointWritten,
    EngineEvent,
    EpochDone,
    Said,
    Stepped,
)
from sleap_rtc.jobs import eta
from sleap_rtc.jobs.events import Body, EpochEnded, Logged, Progress, StageStarted

PROGRESS_S: Final = 0.25
"""Least seconds between two progress events."""
LINES_PER_S: Final = 20.0
BURST: Final = 500
"""Log lines that may come at once."""
_MAX_LINE: Final = 4_000


class Relay:
    """The events of one stage.

    Args:
        started: The stage as it was announced; ``epochs`` None when it tracks.
        now: When it started, seconds.

    Attributes:
        load: How busy the machine is, as last measured; told with progress.
    """

    def __init__(self, started: StageStarted, *, now: float) -> None:
        self._started = started
        self._pace = eta.begin(epochs=started.epochs, first_epoch=started.first_epoch, now=now)
        self._lines = LineBudget(now=now)
        self._told = -math.inf
        self._held: Stepped | None = None
        self.load: Load | None = None

    def take(self, event: EngineEvent, *, now: float) -> list[Body]:
        """The job events that an engine's event makes, maybe none."""
        match event:
            case Began(epochs=epochs, first_epoch=first):
                self._pace = eta.begin(epochs=epochs, first_epoch=first, now=now)
                begun = StageStarted(
                    stage=self._started.stage,
                    stages=self._started.stages,
                    name=self._started.name,
                    epochs=epochs,
                    first_epoch=first,
                )
                told = begun == self._started
                self._started = begun
                return [] if told else [begun]
            case Stepped():
                return self._stepped(event, now)
            case EpochDone():
                return [self._epoch_done(event, now)]
            case Said(line=line):
                return self._lines.take(line, now=now)
            case CheckpointWritten():
                return []  # the outcome tells, and the engine itself when nobody is there to ask

    def tick(self, *, now: float) -> list[Body]:
        """The newest step that was held back, when it is time; to be called now and then."""
        if self._held is None or now - self._told < PROGRESS_S:
            return []
        return [self._tell(self._held, now)]

    def finish(self, *, now: float) -> list[Body]:
        """What was held back and belongs to the end: the last frame of a video."""
        if self._held is None or self._held.epoch is not None:
            return []
        return [self._tell(self._held, now)]

    def _stepped(self, event: Stepped, now: float) -> list[Body]:
        if event.epoch is not None:
            self._pace = eta.stepped(
                self._pace, epoch=event.epoch, done=event.done, total=event.total, now=now
            )
        if now - self._told < PROGRESS_S:
            self._held = event
            return []
        return [self._tell(event, now)]

    def _tell(self, event: Stepped, now: float) -> Progress:
        self._told, self._held = now, None
        left = (
            eta.frames_remaining(done=event.done, total=event.total, rate=event.rate)
            if event.epoch is None
            else eta.remaining(self._pace, now=now)
        )
        return Progress(
            stage=self._started.stage,
            epoch=event.epoch,
            done=event.done,
            total=event.total,
            loss=_finite(event.loss),
            rate=_finite(event.rate),
            eta_s=left,
            load=self.load,
        )

    def _epoch_done(self, event: EpochDone, now: float) -> EpochEnded:
        self._held = None  # the epoch is over, its steps are history
        self._pace, took = eta.epoch_ended(self._pace, epoch=event.epoch, now=now)
        return EpochEnded(
            stage=self._started.stage,
            epoch=event.epoch,
            train_loss=_finite(event.train_loss),
            val_loss=_finite(event.val_loss),
            learning_rate=_finite(event.learning_rate),
            duration_s=took,
            eta_s=eta.remaining(self._pace, now=now),
        )


class LineBudget:
    """Lets so many lines through, and says how many it didn't.

    Args:
        now: Seconds.
    """

    def __init__(self, *, now: float) -> None:
        self._room = float(BURST)
        self._at = now
        self._dropped = 0

    def take(self, line: str, *, now: float) -> list[Body]:
        """The line, cut to 4,000 characters; nothing when there were too many lately."""
        self._room = min(float(BURST), self._room + (now - self._at) * LINES_PER_S)
        self._at = now
        if self._room < 1:
            self._dropped += 1
            return []
        self._room -= 1
        told: list[Body] = []
        if self._dropped:
            told.append(Logged(line=f"… {self._dropped} lines left out"))
            self._dropped = 0
        told.append(Logged(line=line[:_MAX_LINE]))
        return told


class ActiveClock:
    """Seconds that pass, pauses left out.

    Args:
        now: Seconds of a clock that doesn't jump.
    """

    def __init__(self, *, now: float) -> None:
        self._start = now
        self._paused_at: float | None = None
        self._lost = 0.0

    def pause(self, *, now: float) -> None:
        """Time stands still from now on."""
        if self._paused_at is None:
            self._paused_at = now

    def resume(self, *, now: float) -> None:
        """Time goes on."""
        if self._paused_at is not None:
            self._lost += now - self._paused_at
            self._paused_at = None

    def read(self, *, now: float) -> float:
        """Seconds since the start, pauses left out."""
        return (now if self._paused_at is None else self._paused_at) - self._start - self._lost


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
