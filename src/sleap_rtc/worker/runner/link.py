"""The runner's end of its Unix socket: takes commands, tells of new events.

The socket is in a directory of its own that only this user may enter, made in
the system's folder for temporary files: a job's directory can have a path longer
than the 107 bytes that a socket's may have.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from loguru import logger

from sleap_rtc.errors import ProtocolError, SleapRtcError
from sleap_rtc.worker.runner.messages import (
    ANSWERS,
    LIMIT,
    REQUESTS,
    Grown,
    Order,
    Refused,
    Taken,
    Watch,
    receive,
    refusal,
)

_SHORT: Final = Path("/tmp")  # noqa: S108 - only for a directory made by mkdtemp
_PREFIX: Final = "sleap-rtc-"
_NAME: Final = "runner"
_MAX_PATH: Final = 103
"""Bytes of a socket's path on the strictest system, macOS."""


class RunnerSocket:
    """Listens for the daemon."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._directory: Path | None = None
        self._watching: set[asyncio.Event] = set()
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self, take: Callable[[Order], None], last: Callable[[], int]) -> Path:
        """Start to listen.

        Args:
            take: Takes a command, raising when it refuses it; when it returns, it is logged.
            last: Gives the number of the last event.

        Returns:
            The socket's path.
        """
        self._directory = _short_directory()
        path = self._directory / _NAME
        serve = functools.partial(self._serve, take, last)
        self._server = await asyncio.start_unix_server(serve, path, limit=LIMIT)
        return path

    def grown(self) -> None:
        """There are more events: tell whoever watches."""
        for watcher in self._watching:
            watcher.set()

    async def close(self) -> None:
        """Say what there is to say, then hang up and remove the socket."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    async def _serve(
        self,
        take: Callable[[Order], None],
        last: Callable[[], int],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        watchers: set[asyncio.Task[None]] = set()
        try:
            while (request := await receive(reader, REQUESTS, peer="the daemon")) is not None:
                if isinstance(request, Watch):
                    watchers.add(asyncio.create_task(self._tell(writer, last, request.since)))
                else:
                    writer.write(_answer(take, request) + b"\n")
                    await writer.drain()
        except (ProtocolError, ConnectionError) as error:
            logger.bind(error=str(error)).warning("a connection to the runner ended badly")
        except asyncio.CancelledError:
            pass  # the job has ended; hanging up is how the other side learns it
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _tell(self, writer: asyncio.StreamWriter, last: Callable[[], int], told: int) -> None:
        """Tell the newest number whenever it is above the one told last."""
        more = asyncio.Event()
        self._watching.add(more)
        try:
            while True:
                more.clear()
                if last() > told:
                    told = last()
                    writer.write(ANSWERS.encode(Grown(last=told)) + b"\n")
                    await writer.drain()
                await more.wait()
        except ConnectionError:
            pass  # the reading side of this connection says so
        finally:
            self._watching.discard(more)


def remove_socket(path: Path) -> None:
    """Remove the socket that a killed runner left, with its directory.

    Args:
        path: As the runner's file says; anything that isn't a directory of ours stays.
    """
    if path.name == _NAME and path.parent.name.startswith(_PREFIX):
        with contextlib.suppress(OSError):
            path.unlink()
            path.parent.rmdir()


def _answer(take: Callable[[Order], None], order: Order) -> bytes:
    try:
        take(order)
    except SleapRtcError as error:
        return ANSWERS.encode(Refused(id=order.id, why=refusal(error)))
    return ANSWERS.encode(Taken(id=order.id))


def _short_directory() -> Path:
    usual = tempfile.gettempdir()
    room = _MAX_PATH - len(f"/{_PREFIX}12345678/{_NAME}")
    base = usual if len(usual.encode()) <= room else str(_SHORT)
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
