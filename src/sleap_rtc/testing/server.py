"""Real servers for tests: one in this loop, or one as a process that can be killed.

Both listen on 127.0.0.1 and keep their data where they are told; started again
on the same folder and port, a server is the same one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from sleap_rtc.config import Settings, load
from sleap_rtc.net.address import ServerAddress, parse_server
from sleap_rtc.server.app import ServerInfo, run_server, serve

_STOP_WITHIN: Final = 15.0


def server_settings(data_dir: Path, **changes: Any) -> Settings:
    """Settings of a server on 127.0.0.1 with a free port and no STUN.

    Args:
        data_dir: Its folder.
        changes: By name, as in :mod:`sleap_rtc.config`.
    """
    flags = {
        "home": data_dir.parent / "home",
        "server_data_dir": data_dir,
        "server_host": "127.0.0.1",
        "server_port": 0,
        "server_stun_port": 0,
    }
    return load(flags | changes)


class LoopServer(msgspec.Struct, frozen=True):
    """A server that runs in this loop.

    Attributes:
        info: What it said when it was ready.
        address: Where it is.
    """

    info: ServerInfo
    address: ServerAddress


@contextlib.asynccontextmanager
async def running_server(settings: Settings) -> AsyncIterator[LoopServer]:
    """Run a server in this loop, and end it gracefully."""
    ready: asyncio.Future[ServerInfo] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(settings, on_ready=ready.set_result, stop=stop))
    either: set[asyncio.Future[Any]] = {ready, serving}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        await serving
    try:
        info = await ready
        yield LoopServer(info=info, address=parse_server(info.url, insecure=True))
    finally:
        stop.set()
        await asyncio.wait_for(serving, _STOP_WITHIN)


class ServerProcess:
    """A server as a process of its own.

    Args:
        data_dir: Its folder.
        changes: Settings by name; plain values.
    """

    def __init__(self, data_dir: Path, **changes: Any) -> None:
        self._data_dir, self._changes = data_dir, changes
        self._process: subprocess.Popen[str] | None = None
        self.port = 0
        self.setup_code: str | None = None

    @property
    def address(self) -> ServerAddress:
        """Where it is."""
        return ServerAddress(host="127.0.0.1", port=self.port, secure=False)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running().pid

    def start(self) -> Self:
        """Start it, on the port it had before, and wait until it is ready."""
        arguments = {
            "data_dir": str(self._data_dir),
            "changes": self._changes | {"server_port": self.port},
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, json.dumps(arguments)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None  # noqa: S101
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server ended with {self._process.wait(_STOP_WITHIN)}")
        told = json.loads(line)
        self.port, self.setup_code = told["port"], told["setup_code"]
        return self

    def terminate(self) -> int:
        """End it gracefully.

        Returns:
            Its exit code.
        """
        return self.end(signal.SIGTERM)

    def kill(self) -> int:
        """Kill it.

        Returns:
            Its exit code.
        """
        return self.end(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("the server doesn't run")
        return self._process

    def end(self, number: signal.Signals) -> int:
        """Send it a signal, and wait until it has ended.

        Returns:
            Its exit code; negative for a signal.
        """
        process = self._running()
        process.send_signal(number)
        code = process.wait(_STOP_WITHIN)
        if process.stdout is not None:
            process.stdout.close()
        self._process = None
        return code


def _main() -> None:
    arguments = json.loads(sys.argv[1])

    def ready(info: ServerInfo) -> None:
        line = json.dumps({"port": info.port, "setup_code": info.setup_code})
        os.write(1, line.encode() + b"\n")

    settings = server_settings(Path(arguments["data_dir"]), **arguments["changes"])
    run_server(settings, on_ready=ready)


if __name__ == "__main__":
    _main()
