"""How several threads that speak with one store bear its failures: waits, busy times, the end.

A failure that passes is waited out after a growing, random time. When the store
says that it is too busy, all of them wait. When one of them fails for good, or
somebody gives up, the others stop at their next step.
"""

from __future__ import annotations

import contextlib
import queue
import random
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from sleap_rtc.errors import (
    Busy,
    Damaged,
    NetworkError,
    OutOfSpace,
    SleapRtcError,
    StorageRefused,
    StorageUnreachable,
)
from sleap_rtc.net import backoff
from sleap_rtc.net.retrying import AGAIN
from sleap_rtc.storage.refusing import code_of, in_its_words
from sleap_rtc.storage.wire import Answer

REFUSED: Final = 3
"""Times that a link may be refused, or bytes found wrong, before it isn't by chance."""
ANEW: Final = 3
"""Times that a store may lose what it took before it is the store's fault."""

GRACE_S: Final = 1.0
"""Seconds that whoever is interrupted waits for the threads to end."""
LOOK_S: Final = 0.25
"""Seconds after which an interrupt is noticed at the latest."""

_PASSING: Final = AGAIN | {409}
BUSY: Final = frozenset({429, 503})
"""What a store answers that has too much to do."""
_LONGEST_WAIT: Final = 60.0

T = TypeVar("T")


class Patience(msgspec.Struct, frozen=True):
    """How often, and how long between.

    Attributes:
        attempts: To send one part, or to ask one thing.
        base: Seconds that the first wait may last.
        cap: Seconds that any wait may last.
    """

    attempts: int = 8
    base: float = 0.25
    cap: float = 20.0


class Stopped(Exception):
    """Another thread failed, so this one does no more."""


class Pauses:
    """The waits of several threads. For all of them.

    Args:
        patience: With a store that fails.
    """

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._not_before = 0.0

    @property
    def stopped(self) -> bool:
        """Whether nothing more is to be done."""
        return self._stop.is_set()

    def stop(self) -> None:
        """End all waits; whoever looks is told to stop."""
        self._stop.set()

    def resume(self) -> None:
        """Go on, after `stop`."""
        self._stop.clear()

    def check(self) -> None:
        """See that there is more to be done.

        Raises:
            Stopped: There isn't.
        """
        if self._stop.is_set():
            raise Stopped

    def hold_back(self) -> None:
        """Wait while the store is too busy for anybody.

        Raises:
            Stopped: Meanwhile there is nothing more to be done.
        """
        while (left := self._not_before - time.monotonic()) > 0:
            self._stop.wait(left)
            self.check()
        self.check()

    def back_off(self, attempt: int, answer: Answer | None) -> None:
        """Wait after a failure.

        Args:
            attempt: Failures in a row so far, from 1.
            answer: What the store said, if it said anything: it may ask for a time.

        Raises:
            Stopped: Meanwhile there is nothing more to be done.
        """
        seconds = backoff.delay(
            attempt,
            random.random(),  # noqa: S311 - so that not everybody comes back at once
            base=self.patience.base,
            cap=self.patience.cap,
        )
        if answer is not None and answer.status in BUSY:
            asked = answer.headers.get("retry-after", "")
            if asked.isascii() and asked.isdigit():
                seconds = max(seconds, min(float(asked[:6]), _LONGEST_WAIT))
            with self._lock:
                self._not_before = max(self._not_before, time.monotonic() + seconds)
        else:
            self._stop.wait(seconds)
        self.check()

    def patiently(self, call: Callable[[], T]) -> T:
        """Ask until there is an answer, or patience ends; what is in use is waited for as well."""
        for attempt in range(1, self.patience.attempts):
            try:
                return call()
            except (NetworkError, Busy):
                self.back_off(attempt, None)
        return call()


def side_by_side(
    work: Callable[[], None],
    threads: int,
    *,
    name: str,
    stop: Callable[[], None],
    abort: Callable[[], None],
) -> BaseException | None:
    """Do the same work in several threads, until all of them have ended.

    Args:
        work: Takes what is to be done next, until nothing is left.
        threads: How many, at least 1.
        name: Of the threads.
        stop: Called when one has failed, so that the others end.
        abort: Called when whoever waits is interrupted: that ends what is under way. A thread that
            still waits after :data:`GRACE_S` seconds, as for a server that doesn't answer, is left
            behind, and ends at its next step.

    Returns:
        The first failure; those that were only told to stop aren't why.
    """
    ends: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - whoever waits is told
            ends.put(error)
        else:
            ends.put(None)

    # No pool: at its end a program waits for the threads of each, whatever they wait for.
    several = [
        threading.Thread(target=run, name=f"{name}_{number}", daemon=True)
        for number in range(threads)
    ]
    failure: BaseException | None = None
    try:
        for thread in several:
            thread.start()
        for _ in several:
            error = _next(ends)
            if error is not None:
                stop()
                if failure is None and not isinstance(error, Stopped):
                    failure = error
    except BaseException:
        abort()
        until = time.monotonic() + GRACE_S
        for thread in several:
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))
        raise
    return failure


def _next(ends: queue.SimpleQueue[T]) -> T:
    """What comes next, however long that takes; whoever is interrupted hears of it soon.

    A signal that comes just before the system begins to wait doesn't end that waiting.
    """
    while True:
        with contextlib.suppress(queue.Empty):
            return ends.get(timeout=LOOK_S)


def failure_of(answer: Answer, what: str) -> SleapRtcError:
    """What a store's refusal to take something means.

    Args:
        answer: Not one that says that all is well.
        what: What it was to take.

    Returns:
        A `NetworkError` where the same may be taken later; else why it isn't.

    Raises:
        OutOfSpace: It is full, and will be so the next time.
    """
    said = code_of(answer.status, answer.body)
    error: SleapRtcError
    if answer.status == 507:
        error = OutOfSpace(path="the store", free="no room", need="more bytes")
    elif answer.status in _PASSING or said == "RequestTimeout":
        error = StorageUnreachable(store="there", why=said)
    elif answer.status in (400, 422):
        error = Damaged(what=what, why=f"the store found {said}")
    else:
        error = StorageRefused(store="there", what=f"take {what}", why=said)
    error = in_its_words(error, answer.body)
    if isinstance(error, OutOfSpace):
        raise error
    return error
