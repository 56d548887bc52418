"""A circuit breaker: a host that fails is left alone for a while.

::

                    3rd failure in a row                 60 s are over
    Closed ───────────────────────────────► Open ───────────────────────► HalfOpen
       ▲  ▲────── success                    ▲ │ asked: refused               │ │
       │                                     │ └──────────                    │ │
       │                                     └──────────────── failure ───────┘ │
       └────────────────────────────────────────────────────── success ────────┘

Half open, one request goes out to try and the others are refused; if nothing is
heard of it for as long as an open breaker waits, the next one tries. The table
:data:`TRANSITIONS` has it all, and is pure: time is handed in.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import msgspec

THRESHOLD: Final = 3
"""Failures in a row that open it."""
OPEN_S: Final = 60.0
"""Seconds that it stays open."""


class Closed(msgspec.Struct, frozen=True):
    """All is well; so many requests in a row have failed."""

    failures: int = 0


class Open(msgspec.Struct, frozen=True):
    """Nothing is asked before ``until``."""

    until: float


class HalfOpen(msgspec.Struct, frozen=True):
    """One request tries; if it is not heard of, another one does after ``until``."""

    until: float


State = Closed | Open | HalfOpen


class Asked(msgspec.Struct, frozen=True):
    """Somebody wants to send a request."""

    now: float


class Succeeded(msgspec.Struct, frozen=True):
    """The host has answered."""

    now: float


class Failed(msgspec.Struct, frozen=True):
    """It has not, or only that it can't."""

    now: float


Event = Asked | Succeeded | Failed


class Go(msgspec.Struct, frozen=True):
    """The request may be sent; or there is nothing to decide."""


class Wait(msgspec.Struct, frozen=True):
    """It may not; try again in so many seconds."""

    seconds: float


Verdict = Go | Wait
Step = tuple[State, Verdict]


def _count(state: Closed, event: Failed, open_s: float) -> Step:
    if state.failures + 1 >= THRESHOLD:
        return Open(until=event.now + open_s), Go()
    return Closed(failures=state.failures + 1), Go()


def _try_one(state: Open | HalfOpen, event: Asked, open_s: float) -> Step:
    if event.now < state.until:
        return state, Wait(seconds=state.until - event.now)
    return HalfOpen(until=event.now + open_s), Go()


def _close(_state: State, _event: Event, _open_s: float) -> Step:
    return Closed(), Go()


def _open_again(_state: HalfOpen, event: Failed, open_s: float) -> Step:
    return Open(until=event.now + open_s), Go()


def _stay(state: State, _event: Event, _open_s: float) -> Step:
    return state, Go()


TRANSITIONS: Final[dict[tuple[type, type], Callable[[Any, Any, float], Step]]] = {
    (Closed, Asked): _stay,
    (Closed, Succeeded): _close,
    (Closed, Failed): _count,
    (Open, Asked): _try_one,
    # Of a request that was sent before it opened: one answer doesn't close it, nor prolong it.
    (Open, Succeeded): _stay,
    (Open, Failed): _stay,
    (HalfOpen, Asked): _try_one,
    (HalfOpen, Succeeded): _close,
    (HalfOpen, Failed): _open_again,
}
"""(state, event) → what comes of it, given how long it stays open."""


def step(state: State, event: Event, *, open_s: float = OPEN_S) -> Step:
    """The next state, and whether a request may go.

    Args:
        state: The state.
        event: What happens.
        open_s: Seconds that it stays open.
    """
    return TRANSITIONS[type(state), type(event)](state, event, open_s)


class Breakers:
    """One breaker for each host, of those asked last. Threads may share it.

    Args:
        capacity: Hosts that are remembered.
        open_s: Seconds that one stays open.
    """

    def __init__(self, capacity: int = 1_000, *, open_s: float = OPEN_S) -> None:
        self._capacity, self._open_s = capacity, open_s
        self._states: OrderedDict[str, State] = OrderedDict()
        self._lock = threading.Lock()

    def tell(self, host: str, event: Event) -> Verdict:
        """Let an event happen to a host's breaker."""
        with self._lock:
            state = self._states.get(host, Closed())
            state, verdict = step(state, event, open_s=self._open_s)
            self._states[host] = state
            self._states.move_to_end(host)
            if len(self._states) > self._capacity:
                self._states.popitem(last=False)
            return verdict

    def is_open(self, host: str, now: float) -> bool:
        """Whether a request to a host would be refused now."""
        with self._lock:
            state = self._states.get(host, Closed())
        return isinstance(step(state, Asked(now=now))[1], Wait)
