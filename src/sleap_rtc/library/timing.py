"""Every operation of a registry is timed: a line in the log, and a count (REG-11)."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from loguru import logger

from sleap_rtc.observe.latency import Latencies

_Method = TypeVar("_Method", bound=Callable[..., Any])


class Timed(Protocol):
    """Whose operations are timed.

    Attributes:
        latencies: How long each took.
        changed: Whether one of them changed something.
    """

    latencies: Latencies
    changed: bool


def timed_change(method: _Method) -> _Method:
    """As :func:`timed`, for an operation that changes the library when it succeeds."""

    @functools.wraps(method)
    def wrapper(self: Timed, *args: Any, **kwargs: Any) -> Any:
        result = method(self, *args, **kwargs)
        self.changed = True
        return result

    return cast("_Method", timed(wrapper))


def timed(method: _Method) -> _Method:
    """Log how long an operation took, and count it under its name."""
    name = method.__name__

    @functools.wraps(method)
    def wrapper(self: Timed, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        failed = True
        try:
            result = method(self, *args, **kwargs)
            failed = False
            return result
        finally:
            seconds = time.perf_counter() - started
            self.latencies.add(name, seconds, failed=failed)
            # Bound by the call, which costs nothing where nobody listens.
            logger.debug("library operation", operation=name, ms=round(seconds * 1_000, 3))

    return cast("_Method", wrapper)
