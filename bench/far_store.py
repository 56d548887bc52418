"""Up to a store and down from it over bad networks.

::

    python -m bench.far_store            100 uploads, 1 % loss, disconnects at random
    python -m bench.far_store --speed    up and down over long lines, beside a link between peers

The store is SeaweedFS, a real S3 server, on this side of the long line of
`sleap_rtc.testing.distance`; whoever sends and fetches reaches it over the line alone. What was
sent is read back on the store's own side and compared.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.fetched import bring
from bench.loss import BAD, LINES, disconnects, transfers
from bench.pairs import enter_namespace
from bench.wire import MB
from sleap_rtc.errors import SleapRtcError
from sleap_rtc.files.hashing import hash_file
from sleap_rtc.storage.s3 import S3Store
from sleap_rtc.storage.signing import Credentials
from sleap_rtc.storage.upload import upload_file
from sleap_rtc.testing.distance import FAR, NEAR, Line, long_line
from sleap_rtc.testing.seaweed import ADMIN, SeaweedServer

PART: Final = 5 * 1024 * 1024
"""Bytes of a part of the 100 uploads: the least that S3 takes, so that each has several."""
_BUCKET: Final = "bench"


class Stores:
    """The same store from both sides.

    Attributes:
        far: Over the line.
        near: As its own machine sees it.
    """

    def __init__(self, server: SeaweedServer) -> None:
        self.near = server.make_bucket(_BUCKET)
        bucket = msgspec.structs.replace(
            server.bucket(_BUCKET), endpoint=f"http://{FAR}:{server.port}"
        )
        self.far = S3Store(bucket, _login)

    def same(self, path: Path, key: str) -> bool:
        """Whether the store has this file's content."""
        sent = path.read_bytes()
        return self.near.read(key, limit=len(sent)) == sent


def _login() -> Credentials:
    return ADMIN


@contextmanager
def _stores(folder: Path) -> Iterator[Stores]:
    data = Path(tempfile.mkdtemp(dir=folder))
    with SeaweedServer(data, address=NEAR) as server:
        yield Stores(server)


def many(folder: Path, *, size: int, count: int, seed: int) -> dict[str, Any]:
    """Many uploads over a bad line; how many ended well, and how much was sent twice."""
    cuts: list[float] = []
    seconds: list[float] = []
    failures: list[str] = []
    moved = [0]
    path = folder / "sent.bin"

    def pace(size: int) -> None:
        moved[0] += size

    with long_line(BAD), _stores(folder) as stores, disconnects(seed, cuts):
        for number in range(count):
            path.write_bytes(random.Random(number).randbytes(size))
            begun = time.perf_counter()
            try:
                upload_file(stores.far, path, str(number), state=folder, part_size=PART, pace=pace)
            except SleapRtcError as error:
                failures.append(str(error))
                continue
            if stores.same(path, str(number)):
                seconds.append(time.perf_counter() - begun)
            else:
                failures.append(f"object {number} is not what was sent")
    return {
        "transfers": count,
        "ended_well": len(seconds),
        "failures": failures,
        "disconnects": len(cuts),
        "disconnected_s": sum(cuts),
        "median_s": statistics.median(seconds or [0.0]),
        "longest_s": max(seconds, default=0.0),
        "sent_twice": moved[0] / (size * count) - 1,
    }


def speeds(
    folder: Path, *, size: int, lines: dict[str, Line], say: Callable[[str], None]
) -> dict[str, Any]:
    """MB/s of a file to and from the store over each line, and of the same over a link."""
    found = {}
    path, into = folder / "sent.bin", folder / "fetched.bin"
    path.write_bytes(random.Random(0).randbytes(size))
    entry, _ = hash_file(path, as_path=path.name)
    for name, line in lines.items():
        with long_line(line):
            with _stores(folder) as stores:
                begun = time.perf_counter()
                upload_file(stores.far, path, "sent", state=folder)
                there = time.perf_counter()
                bring(stores.far, {"sent": entry}, into)
                back = time.perf_counter()
            told = transfers(folder, way="line", size=size, count=1)
        found[name] = {
            "upload": size / MB / (there - begun),
            "download": size / MB / (back - there),
            "link": size / MB / told["receiver"]["seconds"][0],
        }
        say(f"{name}: {found[name]}")
    return found


def main() -> None:
    """Measure, and print what was found as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.far_store", description=__doc__)
    parser.add_argument("--speed", action="store_true", help="speeds over long lines instead")
    parser.add_argument("--line", choices=LINES, help="this line alone")
    parser.add_argument("--count", type=int, default=100, help="how many uploads")
    parser.add_argument("--size", type=int, help="MB of each file")
    parser.add_argument("--seed", type=int, default=1, help="chooses the moments of disconnects")
    given = parser.parse_args()
    enter_namespace("bench.far_store")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        if given.speed:
            lines = LINES if given.line is None else {given.line: LINES[given.line]}
            size = (given.size or 100) * MB
            found = speeds(Path(name), size=size, lines=lines, say=_say)
        else:
            size = (given.size or 16) * MB
            found = many(Path(name), size=size, count=given.count, seed=given.seed)
    print(json.dumps(found, indent=2))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
