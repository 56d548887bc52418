"""Programs that tests start, and that end with them, whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any, Final

LAST_WORDS_S: Final = 20.0
"""Seconds that a program has for saying where it stands."""


@contextlib.contextmanager
def running(command: Sequence[str], **given: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a program, whose output is text, for as long as the block lasts.

    A block that fails, as by a test's time limit, doesn't wait for a program that
    never ends: it and what it has started are ended. A Python program says first
    where each of its threads stands, which the exception then carries as a note,
    if its standard error is a pipe.

    Args:
        command: An executable and its arguments. It leads a session of its own.
        given: More for :class:`subprocess.Popen`.

    Yields:
        The process.
    """
    environment = {**given.pop("env", os.environ), "PYTHONFAULTHANDLER": "1"}
    with subprocess.Popen(
        command, env=environment, text=True, start_new_session=True, **given
    ) as process:
        try:
            yield process
        except BaseException as error:
            if process.poll() is None:
                _signal(process, signal.SIGABRT)
                with contextlib.suppress(subprocess.TimeoutExpired, ValueError):
                    _, said = process.communicate(timeout=LAST_WORDS_S)
                    if said:
                        error.add_note(f"It said:\n{said}")
            raise
        finally:
            _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """To all of its session that are left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
