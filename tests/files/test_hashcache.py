from __future__ import annotations

import os
import threading
from pathlib import Path

import msgspec
import pytest

from sleap_rtc.domain.packages import HASH
from sleap_rtc.files import hashcache
from sleap_rtc.files.hashcache import KEPT_NS, SETTLED_NS, SMALLEST, HashCache
from sleap_rtc.files.hashing import FileHashes, FileStamp

NOW = 10**18
STAMP = FileStamp(device=1, inode=2, size=SMALLEST, mtime_ns=5, ctime_ns=6)
HASHES = FileHashes(blocks=b"\x07" * (SMALLEST // (1024 * 1024) * HASH), blake3="ab" * 32)


def cache(folder: Path, now: int = NOW) -> HashCache:
    return HashCache(folder / "hashes", now_ns=lambda: now)


def test_remembers_across_processes(tmp_path: Path) -> None:
    assert cache(tmp_path).get(STAMP) is None
    cache(tmp_path).put(STAMP, HASHES)
    assert cache(tmp_path).get(STAMP) == HASHES


@pytest.mark.parametrize("field", FileStamp.__struct_fields__)
def test_anything_different_is_another_file(tmp_path: Path, field: str) -> None:
    cache(tmp_path).put(STAMP, HASHES)
    other = msgspec.structs.replace(STAMP, **{field: getattr(STAMP, field) + 1})
    assert cache(tmp_path).get(other) is None


@pytest.mark.parametrize("field", ["mtime_ns", "ctime_ns"])
@pytest.mark.parametrize("age", [0, SETTLED_NS - 1, -1])
def test_a_file_that_just_changed_is_not_remembered(tmp_path: Path, field: str, age: int) -> None:
    young = msgspec.structs.replace(STAMP, **{field: NOW - age})
    cache(tmp_path).put(young, HASHES)
    assert cache(tmp_path).get(young) is None
    cache(tmp_path, NOW + SETTLED_NS + 1).put(young, HASHES)
    assert cache(tmp_path).get(young) == HASHES


def test_small_files_are_not_remembered(tmp_path: Path) -> None:
    small = msgspec.structs.replace(STAMP, size=SMALLEST - 1)
    cache(tmp_path).put(small, HASHES)
    assert cache(tmp_path).get(small) is None
    assert list(tmp_path.iterdir()) == []


def test_damage_counts_as_none(tmp_path: Path) -> None:
    cache(tmp_path).put(STAMP, HASHES)
    (path,) = (p for p in (tmp_path / "hashes").rglob("*") if p.is_file())
    whole = path.read_bytes()
    for damaged in (whole[:-1], b"", whole[:40] + b"x" + whole[41:], whole + b"x"):
        path.write_bytes(damaged)
        assert cache(tmp_path).get(STAMP) is None
    cache(tmp_path).put(STAMP, HASHES)
    assert cache(tmp_path).get(STAMP) == HASHES


def test_a_folder_that_cant_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "hashes").write_text("in the way")
    cache(tmp_path).put(STAMP, HASHES)
    assert cache(tmp_path).get(STAMP) is None


def test_old_entries_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HashCache, "_path", lambda self, stamp: tmp_path / "f" / str(stamp.inode))
    cache(tmp_path).put(STAMP, HASHES)
    os.utime(tmp_path / "f" / "2", ns=(NOW - KEPT_NS - 1, NOW - KEPT_NS - 1))
    newer = msgspec.structs.replace(STAMP, inode=3)
    cache(tmp_path).put(newer, HASHES)
    assert cache(tmp_path).get(STAMP) is None
    assert hashcache.HashCache(tmp_path, now_ns=lambda: NOW).get(newer) == HASHES


def test_many_may_write_and_read_at_once(tmp_path: Path) -> None:
    wrong: list[object] = []

    def work() -> None:
        mine = cache(tmp_path)
        for _ in range(20):
            mine.put(STAMP, HASHES)
            found = mine.get(STAMP)
            if found != HASHES:
                wrong.append(found)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
