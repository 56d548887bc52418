"""A real TURN server for tests: coturn as a process on an address of the test's network.

It comes with the system (on Debian and Ubuntu the package ``coturn``). What it is told here is what
``docs/networks.md`` tells an administrator, with addresses and ports of the test.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Final, Literal, Self

from sleap_rtc.testing.ports import free_ports

USER: Final = "lab"

_PROGRAM: Final = "turnserver"
_START_WITHIN: Final = 15.0
_CONFIG: Final = """\
listening-ip={address}
relay-ip={address}
listening-port={port}
min-port={first}
max-port={last}
realm=sleap-rtc.test
lt-cred-mech
user={user}:{password}
no-cli
no-tls
no-dtls
no-multicast-peers
no-software-attribute
userdb={folder}/turndb
pidfile={folder}/pid
log-file=stdout
new-log-timestamp
verbose
"""


def find_coturn() -> str | None:
    """Its program; None where it isn't installed."""
    return shutil.which(_PROGRAM)


class TurnServer:
    """A coturn server, as a context manager.

    Args:
        folder: For its files and its log.
        address: Where it listens, and where it relays.
        ports: The UDP ports that it relays on, first and last.
    """

    def __init__(
        self, folder: Path, address: str, *, ports: tuple[int, int] = (49_152, 65_535)
    ) -> None:
        self._folder, self._address, self._ports = folder, address, ports
        self._password = secrets.token_urlsafe(16)
        self._process: subprocess.Popen[bytes] | None = None
        (self.port,) = free_ports(1, address)

    def ice(self, *transports: Literal["udp", "tcp"]) -> dict[str, Any]:
        """An item of the setting ``ice_servers``, for these ways to this server."""
        urls = [f"turn:{self._address}:{self.port}?transport={name}" for name in transports]
        return {"urls": urls, "username": USER, "credential": self._password}

    @property
    def relayed(self) -> int:
        """How many relayed addresses it has given out so far."""
        return self.log.count("ALLOCATE processed, success")

    @property
    def log(self) -> str:
        """What it has said."""
        return (self._folder / "log").read_text("utf-8", "replace")

    @property
    def cpu_s(self) -> float:
        """Seconds of processor time that it has taken so far."""
        assert self._process is not None  # noqa: S101
        # The program's name may have blanks in it; it stands in brackets.
        stat = Path(f"/proc/{self._process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            FileNotFoundError: It isn't installed.
        """
        program = find_coturn()
        if program is None:
            raise FileNotFoundError(f"{_PROGRAM}: install the system's package coturn")
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "turnserver.conf"
        config.touch(mode=0o600)
        config.write_text(
            _CONFIG.format(
                address=self._address,
                port=self.port,
                first=self._ports[0],
                last=self._ports[1],
                user=USER,
                password=self._password,
                folder=self._folder,
            )
        )
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-c", str(config)],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + _START_WITHIN
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"coturn didn't start: {self.log[-2_000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answers(self) -> bool:
        try:
            socket.create_connection((self._address, self.port), timeout=1).close()
        except OSError:
            return False
        return True
