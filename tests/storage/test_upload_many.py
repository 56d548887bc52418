"""Many small files: once each, whatever the store does, and whoever else sends the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from sleap_rtc.errors import (
    Cancelled,
    Damaged,
    DataError,
    NetworkError,
    OutOfSpace,
    SourceChanged,
    StorageRefused,
    StorageUnreachable,
)
from sleap_rtc.files.hashing import hash_file
from sleap_rtc.storage import upload_many
from sleap_rtc.storage.objects import MAX_WHOLE, Content, SignedRequest
from sleap_rtc.storage.pausing import Patience
from sleap_rtc.storage.upload_many import Placed, SmallFile, upload_contents
from sleap_rtc.storage.wire import Connections
from sleap_rtc.testing.programs import running
from sleap_rtc.testing.seaweed import SeaweedServer
from sleap_rtc.testing.store_endpoint import StoreEndpoint

QUICK = Patience(attempts=5, base=0.001, cap=0.01)
COUNT = 30


class Folder:
    """Small files, one of them empty and one of two blocks, and how they got on."""

    def __init__(self, root: Path, count: int = COUNT) -> None:
        self.root = root
        root.mkdir()
        sizes = [0, (1 << 20) + 5, 100_000, *range(1, count - 2)]
        self.files = []
        for number, size in enumerate(sizes):
            path = root / str(number)
            path.write_bytes(os.urandom(size))
            entry, hashes = hash_file(path, as_path=path.name)
            key = f"rooms/lab/files/{hashes.blake3}"
            self.files.append(SmallFile(path=path, key=key, entry=entry))

    def check(self, store: Any) -> None:
        for file in self.files:
            assert store.read(file.key, limit=1 << 24) == file.path.read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "files")


def upload(store: Any, files: Sequence[SmallFile], **more: Any) -> list[Placed]:
    return upload_contents(store, files, **{"patience": QUICK, **more})


def puts(endpoint: StoreEndpoint) -> int:
    return sum(method == "PUT" for method, _ in endpoint.requests)


def test_one_request_for_each(endpoint: StoreEndpoint, folder: Folder) -> None:
    done: dict[int, int] = {}
    placed = upload(endpoint.store, folder.files, moved=done.__setitem__)
    assert [each.stored.key for each in placed] == [file.key for file in folder.files]
    assert all(each.sent for each in placed)
    assert puts(endpoint) == COUNT
    assert [done[n] for n in range(COUNT)] == [file.path.stat().st_size for file in folder.files]
    folder.check(endpoint.store)


def test_what_is_there_is_not_sent(endpoint: StoreEndpoint, folder: Folder) -> None:
    upload(endpoint.store, folder.files[:20])
    placed = upload(endpoint.store, folder.files)
    assert [each.sent for each in placed] == [False] * 20 + [True] * (COUNT - 20)
    assert puts(endpoint) == COUNT
    assert upload(endpoint.store, []) == []


def test_several_batches(
    endpoint: StoreEndpoint, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_many, "BATCH", 4)
    monkeypatch.setattr(upload_many, "BATCH_BYTES", 110_000)
    upload(endpoint.store, folder.files, in_flight=3)
    assert puts(endpoint) == COUNT
    folder.check(endpoint.store)


def test_the_same_content_twice_is_sent_once(endpoint: StoreEndpoint, tmp_path: Path) -> None:
    files = []
    for name in "ab":
        path = tmp_path / name
        path.write_bytes(b"the same")
        files.append(SmallFile(path=path, key="k/same"))
    placed = upload(endpoint.store, files)
    assert [(each.stored.size, each.sent) for each in placed] == [(8, True), (8, False)]
    assert puts(endpoint) == 1


def test_more_small_ones_at_once_than_large_ones(
    endpoint: StoreEndpoint, folder: Folder, tmp_path: Path
) -> None:
    small = upload_many.MORE_SMALL * 2
    together = threading.Barrier(small, timeout=60)
    upload(endpoint.store, folder.files[-small:], in_flight=2, pace=lambda _size: together.wait())
    large = Folder(tmp_path / "large", 3)
    large.files.clear()
    for number in range(6):
        path = tmp_path / f"large-{number}"
        path.write_bytes(os.urandom(70_000))
        large.files.append(SmallFile(path=path, key=f"rooms/lab/files/{number}"))
    lock, never = threading.Lock(), threading.Event()
    active, most = 0, 0

    def fault(_method: str, _count: int) -> None:
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
        never.wait(0.05)
        with lock:
            active -= 1

    endpoint.fault = fault
    upload(endpoint.store, large.files, in_flight=2)
    assert 1 <= most <= 2
    large.check(endpoint.store)


def test_a_store_that_takes_few_at_once_gets_no_more(
    endpoint: StoreEndpoint, folder: Folder
) -> None:
    lock, never = threading.Lock(), threading.Event()
    active = 0
    seen: list[int] = []

    def fault(_method: str, _count: int) -> str | None:
        nonlocal active
        with lock:
            active += 1
            seen.append(active)
            busy = active > 2
        never.wait(0.01)
        with lock:
            active -= 1
        return "429" if busy else None

    endpoint.fault = fault
    small = folder.files[3:]
    upload(endpoint.store, small, in_flight=2, patience=Patience(attempts=20, base=0.001))
    assert max(seen) > 2
    assert max(seen[-6:]) <= 2
    assert all(endpoint.store.head(file.key) for file in small)


@pytest.mark.parametrize("fault", ["500", "503", "409", "cut", "400", "403"])
def test_what_fails_now_and_then_is_sent_again(
    endpoint: StoreEndpoint, folder: Folder, fault: str
) -> None:
    endpoint.fault = lambda _method, count: fault if count in (1, 4, 9) else None
    upload(endpoint.store, folder.files)
    assert puts(endpoint) == COUNT + 3
    folder.check(endpoint.store)


def test_a_store_that_forgets_gets_it_again(endpoint: StoreEndpoint, folder: Folder) -> None:
    endpoint.fault = lambda _method, count: "lie" if count in (2, 5) else None
    told: list[tuple[int, int]] = []
    upload(endpoint.store, folder.files, moved=lambda *each: told.append(each), in_flight=1)
    assert puts(endpoint) == COUNT + 2
    assert sum(done == 0 for index, done in told if index) == 2  # said to be gone meanwhile
    folder.check(endpoint.store)


def test_a_store_that_always_lies_is_told_so(endpoint: StoreEndpoint, folder: Folder) -> None:
    endpoint.fault = lambda _method, _count: "lie"
    with pytest.raises(Damaged, match="keeps losing it"):
        upload(endpoint.store, folder.files)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("503", StorageUnreachable),
        ("cut", StorageUnreachable),
        ("403", StorageRefused),
        ("422", Damaged),
        ("507", OutOfSpace),
    ],
)
def test_what_keeps_failing_ends_and_keeps_what_there_is(
    endpoint: StoreEndpoint,
    folder: Folder,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    expected: type[Exception],
) -> None:
    # One by one: what is under way beside one that fails may be sent again.
    monkeypatch.setattr(upload_many, "MORE_SMALL", 1)
    endpoint.fault = lambda _method, count: fault if count > 10 else None
    with pytest.raises(expected):
        upload(endpoint.store, folder.files, in_flight=1)
    endpoint.fault = lambda _method, _count: None
    before = puts(endpoint)
    upload(endpoint.store, folder.files)
    assert puts(endpoint) - before == COUNT - 10
    folder.check(endpoint.store)


def test_something_else_under_the_name_is_replaced(endpoint: StoreEndpoint, folder: Folder) -> None:
    file = folder.files[5]
    endpoint.store.create(file.key, b"something else")
    placed = upload(endpoint.store, [file])
    assert placed[0].stored.size == file.path.stat().st_size


class Bucket:
    """A store that gives links without a look at what is there, as buckets do."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.asked: list[tuple[int, bool]] = []

    def offer(
        self, contents: Sequence[Content], *, replacing: bool = False
    ) -> list[SignedRequest | None]:
        self.asked.append((len(contents), replacing))
        return [self._store.content_request(each, replacing=replacing) for each in contents]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_what_somebody_else_sent_meanwhile(endpoint: StoreEndpoint, folder: Folder) -> None:
    upload(endpoint.store, folder.files[:10])
    file = folder.files[20]
    endpoint.store.create(file.key, b"something else")
    bucket = Bucket(endpoint.store)
    placed = upload(bucket, folder.files)
    assert [each.sent for each in placed] == [False] * 10 + [True] * (COUNT - 10)
    assert bucket.asked == [(COUNT, False), (1, True)]
    folder.check(endpoint.store)


def test_two_who_send_the_same_at_once(endpoint: StoreEndpoint, folder: Folder) -> None:
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(upload, Bucket(endpoint.store), folder.files) for _ in range(2)]
        assert [len(run.result()) for run in runs] == [COUNT, COUNT]
    folder.check(endpoint.store)


def test_a_link_that_is_too_old_is_renewed(endpoint: StoreEndpoint, folder: Folder) -> None:
    class Slow(Bucket):
        def offer(self, contents: Sequence[Content], *, replacing: bool = False) -> Any:
            found = super().offer(contents, replacing=replacing)
            if len(contents) > 1:  # all but the renewed ones have lost their signature
                return [
                    None if r is None else SignedRequest(r.method, r.url[:-3], r.headers, r.expires)
                    for r in found
                ]
            return found

    store = Slow(endpoint.store)
    upload(store, folder.files[:5])
    assert store.asked == [(5, False), *[(1, False)] * 5]


def test_a_server_that_is_away_for_a_moment(endpoint: StoreEndpoint, folder: Folder) -> None:
    away = iter([True, False, True, True, False])

    class Flaky(Bucket):
        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        def offer(self, *args: Any, **more: Any) -> Any:
            if next(away, False):
                raise NetworkError(message="away")
            return super().offer(*args, **more)

        def confirm(self, contents: Any) -> Any:
            if next(away, False):
                raise NetworkError(message="away")
            return self._store.confirm(contents)

    upload(Flaky(endpoint.store), folder.files)
    folder.check(endpoint.store)


@pytest.mark.parametrize("number", [2, 10])
def test_a_file_that_isnt_what_was_packed(
    endpoint: StoreEndpoint, folder: Folder, number: int
) -> None:
    path = folder.files[number].path
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(SourceChanged):
        upload(endpoint.store, folder.files)
    path.write_bytes(b"")
    with pytest.raises(SourceChanged):
        upload(endpoint.store, folder.files)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        upload(endpoint.store, folder.files)


def test_a_file_that_changes_before_it_is_sent(endpoint: StoreEndpoint, folder: Folder) -> None:
    large = folder.files[1]

    class Meanwhile(Bucket):
        def offer(self, *args: Any, **more: Any) -> Any:
            large.path.write_bytes(os.urandom((1 << 20) + 5))
            return super().offer(*args, **more)

    with pytest.raises(SourceChanged):
        upload(Meanwhile(endpoint.store), [large])
    assert endpoint.store.head(large.key) is None


def test_what_is_too_large(endpoint: StoreEndpoint, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(MAX_WHOLE + 1)
    with pytest.raises(DataError, match="go in one piece"):
        upload(endpoint.store, [SmallFile(path=path, key="k")])


def test_who_paces_may_end_it(endpoint: StoreEndpoint, folder: Folder) -> None:
    lock, moved = threading.Lock(), [0]

    def pace(size: int) -> None:
        with lock:
            moved[0] += size
            if moved[0] > 1_100_000:
                raise Cancelled(what="It")

    with pytest.raises(Cancelled):
        upload(endpoint.store, folder.files, pace=pace)
    upload(endpoint.store, folder.files)
    folder.check(endpoint.store)


def test_connections_are_shared(endpoint: StoreEndpoint, folder: Folder) -> None:
    class Shared(Connections):
        def close(self) -> None:
            raise AssertionError("others use them")

    upload(endpoint.store, folder.files[:3], connections=Shared())


def test_a_store_that_answers_with_another_checksum(
    endpoint: StoreEndpoint, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Connections()
    send = wire.send

    def wrong(*args: Any, **more: Any) -> Any:
        answer = send(*args, **more)
        answer.headers["x-amz-checksum-sha256"] = "AAAA"
        return answer

    monkeypatch.setattr(wire, "send", wrong)
    endpoint.fault = lambda _method, _count: "lie"
    with pytest.raises(Damaged, match="another checksum"):
        upload(endpoint.store, folder.files[:1], connections=wire)
    wire.close()


SCRIPT = """
import sys
from pathlib import Path
from blake3 import blake3
from sleap_rtc.storage.upload_many import SmallFile, upload_contents
from sleap_rtc.storage.bucket import Bucket
from sleap_rtc.storage.s3 import S3Store
from sleap_rtc.testing.seaweed import ADMIN
folder, endpoint = Path(sys.argv[1]), sys.argv[2]
store = S3Store(Bucket(name="many", endpoint=endpoint), lambda: ADMIN)
def told(index, done):
    sys.stderr.write(f"{index}\\n")
    sys.stderr.flush()
paths = sorted(folder.iterdir())
files = [SmallFile(path=p, key=blake3(p.read_bytes()).hexdigest()) for p in paths]
print(sum(each.sent for each in upload_contents(store, files, moved=told)))
"""


@pytest.mark.slow
def test_killed_and_gone_on_with_on_a_real_store(seaweed: SeaweedServer, tmp_path: Path) -> None:
    store = seaweed.make_bucket("many")
    folder = Folder(tmp_path / "files", 400)
    command = [sys.executable, "-c", SCRIPT, str(folder.root), seaweed.endpoint]
    with running(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for _ in range(150):
            process.stderr.readline()
        process.send_signal(signal.SIGKILL)
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 0 < int(ended.stdout) < 400
    for file in folder.files:
        data = file.path.read_bytes()
        assert store.read(blake3(data).hexdigest(), limit=1 << 24) == data
