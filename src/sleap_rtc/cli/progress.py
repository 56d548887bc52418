"""Progress of what goes through many things of a kind: how far it is, and how long it may take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sleap_rtc.cli.output import Output

QUIET_S: Final = 1.0
"""Seconds of which nobody needs to be told."""


class Progress:
    """Shows how far something is, once it has taken a second; it may begin again after its end.

    Args:
        out: Where it is shown.
        doing: What is done, as ``saving``.
        form: Writes a number of steps; None for those that say nothing to people: then a share of
            all is shown.
        clock: Seconds, of any clock that doesn't go back.
    """

    def __init__(
        self,
        out: Output,
        doing: str,
        form: Callable[[int], str] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._live = out.live
        self._doing = doing
        self._form = form
        self._clock = clock
        self._began: float | None = None

    def __call__(self, done: int, of: int) -> None:
        """Say that so many steps of so many are done."""
        now = self._clock()
        if done >= of:
            if self._began is not None:
                self._live.clear()
            self._began = None
            return
        if self._began is None:
            self._began = now
        took = now - self._began
        if took >= QUIET_S:
            from sleap_rtc.domain.units import format_duration  # noqa: PLC0415 - --help is quick

            text = f"{self._doing}: {self._far(done, of)}"
            if done:
                text += f", {format_duration(took * (of - done) / done)} left"
            self._live.update([text], plain=text)

    def _far(self, done: int, of: int) -> str:
        if self._form is None:
            return f"{100 * done // of} %"
        return f"{self._form(done)} of {self._form(of)}"
