"""A gate that lets threads in until it is closed, which waits for those that are in."""

from __future__ import annotations

import threading


class Gate:
    """Keeps something from being used after its end. For many threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._closed = False

    def enter(self) -> bool:
        """Come in; False if it is closed. Who came in has to :meth:`leave`."""
        with self._changed:
            self._inside += not self._closed
            return not self._closed

    def leave(self) -> None:
        """Be out again."""
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody in any more, and wait until all are out."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._inside)
