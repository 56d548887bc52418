"""Programs that tests start, and that end with them, whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
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


def close(process: subprocess.Popen[Any], reader: threading.Thread, *, within_s: float) -> None:
    """End a program whose output a thread reads, and close its pipes.

    A pipe that a thread reads can't be closed before the thread has ended: Python waits for it
    where no signal, and so no test's time limit, reaches. The thread ends when nobody can write
    any more, which whoever the program has started and left may do for as long as it runs.

    Args:
        process: The program; killed if it still runs.
        reader: Reads one of its pipes to the end.
        within_s: Seconds for both to end.

    Raises:
        AssertionError: Somebody else keeps the output open; says who.
    """
    if process.poll() is None:
        process.kill()
        process.wait(within_s)
    reader.join(within_s)
    pipes = [p for p in (process.stdin, process.stdout, process.stderr) if p is not None]
    if reader.is_alive():
        found = {each for pipe in pipes if not pipe.closed for each in writers(pipe.fileno())}
        raise AssertionError(f"{process.args!r} has ended, and its output is kept open by {found}")
    for pipe in pipes:
        with contextlib.suppress(BrokenPipeError):
            pipe.close()


def writers(fd: int) -> set[str]:
    """The other processes that have a pipe open: their ids and commands, as far as Linux tells."""
    pipe = f"pipe:[{os.fstat(fd).st_ino}]"
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            opened = {str(each.readlink()) for each in (process / "fd").iterdir()}
            if pipe in opened and process.name != str(os.getpid()):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found.add(f"{process.name} ({command.strip()})")
    return found
