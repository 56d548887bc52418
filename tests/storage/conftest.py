"""Real stores: an S3 server as a process, once for all tests of a module, and a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from sleap_rtc.testing.seaweed import SeaweedServer, find_weed
from sleap_rtc.testing.store_endpoint import StoreEndpoint

from .scripted import Script


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    """A running S3 server."""
    if find_weed() is None:
        pytest.skip("SeaweedFS is not installed")
    with SeaweedServer(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[StoreEndpoint]:
    """A folder store behind HTTP."""
    with StoreEndpoint(tmp_path / "store") as running:
        yield running


@pytest.fixture
def big_file(tmp_path: Path) -> Path:
    """12 MiB and some that don't repeat: three parts of the least size."""
    path = tmp_path / "best.ckpt"
    path.write_bytes(os.urandom(12 * 1024 * 1024 + 17))
    return path


@pytest.fixture
def script() -> Iterator[Script]:
    """A store that answers as it is told."""
    made = Script()
    thread = Thread(target=made.server.serve_forever, args=(0.02,))
    thread.start()
    yield made
    made.connections.close()
    made.server.shutdown()
    thread.join()
    made.server.server_close()
