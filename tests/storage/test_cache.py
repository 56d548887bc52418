"""The cache of fetched files: what stays, what goes, and that processes don't hurt each other."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from blake3 import blake3

from sleap_rtc.errors import DeadlineExceeded, NotFound
from sleap_rtc.files.claim import Claim
from sleap_rtc.storage.cache import FileCache


def name(data: bytes) -> str:
    return blake3(data).hexdigest()


def fetching(data: bytes, count: list[int] | None = None) -> Callable[[Path, Path], None]:
    """Fetches as a download does: claimed, then placed."""

    def fetch(target: Path, partial: Path) -> None:
        with Claim(partial, what="it") as claim:
            if target.exists():  # another was first
                return
            if count is not None:
                count.append(1)
            (partial / "data").write_bytes(data)
            (partial / "data").rename(target)
            claim.remove()

    return fetch


def never(_target: Path, _partial: Path) -> None:
    raise AssertionError("it is here")


def put(cache: FileCache, data: bytes, *, used: int) -> None:
    with cache.use(name(data), len(data), fetching(data)) as path:
        pass
    os.utime(path, ns=(used, path.stat().st_mtime_ns))


def test_a_file_is_fetched_once(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "cache", limit=100)
    for fetch in (fetching(b"one"), never):
        with cache.use(name(b"one"), 3, fetch) as path:
            assert path.read_bytes() == b"one"
    assert cache.has(name(b"one"), 3)
    assert not cache.has(name(b"one"), 4)
    assert not cache.has(name(b"two"), 3)
    assert cache.size() == 3


def test_the_least_used_goes_first(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "cache", limit=10)
    for used, data in enumerate([b"aaaa", b"bbbb"]):
        put(cache, data, used=used)
    with cache.use(name(b"aaaa"), 4, never):
        pass
    put(cache, b"cccc", used=9)
    assert [cache.has(name(data), 4) for data in (b"aaaa", b"bbbb", b"cccc")] == [True, False, True]


def test_what_is_used_stays(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "cache", limit=5)
    with cache.use(name(b"aaaa"), 4, fetching(b"aaaa")) as path:
        put(cache, b"bbbb", used=1)
        assert path.read_bytes() == b"aaaa"
        assert cache.trim() == 4
    assert cache.trim(room=5) == 4
    assert cache.size() == 0


def test_a_file_larger_than_all_is_used_and_goes(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "cache", limit=2)
    with cache.use(name(b"aaaa"), 4, fetching(b"aaaa")) as path:
        assert path.read_bytes() == b"aaaa"
    cache.clean()
    assert cache.size() == 0


def test_what_can_t_be_right_is_fetched_again(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "cache", limit=100)
    put(cache, b"aaaa", used=1)
    (path,) = (tmp_path / "cache" / "files").glob("*/*")
    path.write_bytes(b"aaa")
    with cache.use(name(b"aaaa"), 4, fetching(b"aaaa")) as path:
        assert path.read_bytes() == b"aaaa"


def test_what_can_t_be_fetched_says_why(tmp_path: Path) -> None:
    def fail(_target: Path, _partial: Path) -> None:
        raise NotFound(message="none")

    cache = FileCache(tmp_path / "cache", limit=100)
    with pytest.raises(NotFound), cache.use(name(b"a"), 1, fail):
        pass
    with pytest.raises(ValueError, match="BLAKE3"), cache.use("../x", 1, never):
        pass


def test_who_waits_too_long_is_told(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "cache", limit=100)
    with Claim(tmp_path / "cache" / "partial" / name(b"a"), what="it"):
        with pytest.raises(DeadlineExceeded):
            cache.use(name(b"a"), 1, fetching(b"a"), patience=-1).__enter__()
        cache.clean(seconds=-1)
        assert list((tmp_path / "cache" / "partial").iterdir())


def test_what_was_left_unfinished_goes_in_time(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "cache", limit=100)
    with Claim(tmp_path / "cache" / "partial" / name(b"a"), what="it"):
        pass
    cache.clean()
    assert list((tmp_path / "cache" / "partial").iterdir())
    cache.clean(seconds=-1)
    assert not list((tmp_path / "cache" / "partial").iterdir())


def test_of_many_threads_one_fetches(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "cache", limit=100)
    count: list[int] = []
    barrier = threading.Barrier(6)

    def use() -> bytes:
        barrier.wait()
        with cache.use(name(b"aaaa"), 4, fetching(b"aaaa", count)) as path:
            return path.read_bytes()

    with ThreadPoolExecutor(6) as pool:
        found = [run.result() for run in [pool.submit(use) for _ in range(6)]]
    assert found == [b"aaaa"] * 6
    assert len(count) == 1


SCRIPT = """
import random, sys
from pathlib import Path
from blake3 import blake3
from sleap_rtc.storage.cache import FileCache
from sleap_rtc.files.claim import Claim
cache = FileCache(Path(sys.argv[1]), limit=3000)
chance = random.Random(int(sys.argv[2]))
for _ in range(150):
    data = bytes([chance.randrange(8)]) * 1000
    def fetch(target, partial):
        with Claim(partial, what="it") as claim:
            (partial / "data").write_bytes(data)
            (partial / "data").rename(target)
            claim.remove()
    with cache.use(blake3(data).hexdigest(), 1000, fetch) as path:
        assert path.read_bytes() == data
"""


@pytest.mark.slow
def test_processes_that_share_it_never_miss_what_they_use(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "cache")]
    processes = [subprocess.Popen([*command, str(number)]) for number in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    cache = FileCache(tmp_path / "cache", limit=3000)
    cache.trim()
    assert cache.size() <= 3000
