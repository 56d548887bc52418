"""What the two processes of a measurement say to each other, and what each of them uses.

The wire is a Unix socket with one JSON document per line. It carries signaling,
as the server would, and says when the clock runs; the measured bytes go over WebRTC.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Self

MB = 1_000_000
"""Bytes; speeds are in MB/s and sizes in GB of a thousand of these."""


class Wire:
    """One end. Messages of different kinds wait for their readers in queues of their own.

    Args:
        reader: Gives lines.
        writer: Takes lines.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._queues: defaultdict[str, asyncio.Queue[Any]] = defaultdict(asyncio.Queue)
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, fd: int) -> Self:
        """The end that this process inherited as file descriptor ``fd``."""
        return cls(*await asyncio.open_connection(sock=socket.socket(fileno=fd), limit=MB))

    def send(self, kind: str, value: Any = None) -> None:
        """Send something that JSON can hold."""
        self._writer.write(json.dumps([kind, value]).encode() + b"\n")

    async def expect(self, kind: str) -> Any:
        """The next message of this kind.

        Raises:
            ConnectionError: The other process has ended.
        """
        waiting = asyncio.create_task(self._queues[kind].get())
        await asyncio.wait({waiting, self._reading}, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
        waiting.cancel()
        raise ConnectionError(f"the other process ended before it said {kind!r}")

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionError):  # so ends one with words that nobody read
            while line := await self._reader.readline():
                kind, value = json.loads(line)
                self._queues[kind].put_nowait(value)


class Usage:
    """Time and processor time from its making to :meth:`stop`, and the process's peak memory."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self) -> dict[str, float]:
        """Seconds of wall clock and of all threads' processor time; memory in MB.

        The peak is of resident pages since the process began. What the kernel keeps of files
        that are read and written isn't in it.
        """
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        status = Path("/proc/self/status").read_text(encoding="ascii")
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        peak = int(found[1]) * 1024 / MB if found else 0.0
        return {"wall_s": wall, "cpu_s": cpu, "peak_mb": peak}
