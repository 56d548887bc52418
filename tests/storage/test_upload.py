"""Uploading: to good stores and bad ones, by processes that are killed, of files that change."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sleap_rtc.errors import (
    Busy,
    Cancelled,
    Damaged,
    NetworkError,
    OutOfSpace,
    SourceChanged,
    StorageRefused,
    StorageUnreachable,
)
from sleap_rtc.files.hashing import hash_file
from sleap_rtc.files.journal import Journal, frame
from sleap_rtc.storage.objects import (
    MIN_PART,
    ObjectStore,
    Part,
    SignedRequest,
    StoredObject,
    Upload,
)
from sleap_rtc.storage.pausing import Patience
from sleap_rtc.storage.upload import unfinished, upload_file
from sleap_rtc.storage.wire import Answer, Connections
from sleap_rtc.testing.programs import running
from sleap_rtc.testing.seaweed import SeaweedServer
from sleap_rtc.testing.store_conformance import forged, send
from sleap_rtc.testing.store_endpoint import StoreEndpoint

QUICK = Patience(attempts=5, base=0.001, cap=0.01)


def upload(store: ObjectStore, path: Path, **more: Any) -> Any:
    """Upload in parts of the least size, with little patience."""
    given: dict[str, Any] = {
        "state": path.parent / "state",
        "part_size": MIN_PART,
        "patience": QUICK,
    }
    return upload_file(store, path, "models/best", **{**given, **more})


def content(store: ObjectStore) -> bytes | None:
    return store.read("models/best", limit=1 << 30)


def test_a_file_arrives_as_it_is(endpoint: StoreEndpoint, big_file: Path) -> None:
    told: list[int] = []
    entry, _ = hash_file(big_file, as_path="best.ckpt")
    done = upload(endpoint.store, big_file, entry=entry, progress=told.append)
    assert done.size == big_file.stat().st_size
    assert content(endpoint.store) == big_file.read_bytes()
    assert told[0] == 0
    assert told[-1] == done.size
    assert len(endpoint.requests) == 3
    assert list(unfinished(big_file.parent / "state")) == []


def test_what_is_there_is_not_sent(endpoint: StoreEndpoint, big_file: Path) -> None:
    first = upload(endpoint.store, big_file)
    again = upload(endpoint.store, big_file, state=big_file.parent / "other")
    assert again == first
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize("size", [0, 1, MIN_PART, MIN_PART + 1])
def test_small_files(endpoint: StoreEndpoint, tmp_path: Path, size: int) -> None:
    path = tmp_path / "small"
    path.write_bytes(os.urandom(size))
    assert upload(endpoint.store, path).size == size
    assert content(endpoint.store) == path.read_bytes()


class Shared(Connections):
    """Connections that are somebody else's."""

    used = 0

    def send(self, *args: Any, **more: Any) -> Answer:
        self.used += 1
        return super().send(*args, **more)

    def close(self) -> None:
        raise AssertionError("others use them")


def test_several_share_connections(endpoint: StoreEndpoint, big_file: Path) -> None:
    shared = Shared()
    upload(endpoint.store, big_file, connections=shared)
    assert shared.used == 3


@pytest.mark.parametrize("fault", ["500", "503", "409", "cut", "400", "403"])
def test_what_fails_now_and_then_is_sent_again(
    endpoint: StoreEndpoint, big_file: Path, fault: str
) -> None:
    endpoint.fault = lambda _method, count: fault if count in (1, 4) else None
    upload(endpoint.store, big_file, in_flight=2)
    assert content(endpoint.store) == big_file.read_bytes()
    assert len(endpoint.requests) == 5


def test_a_store_that_forgets_parts_gets_them_again(
    endpoint: StoreEndpoint, big_file: Path
) -> None:
    endpoint.fault = lambda _method, count: "lie" if count == 2 else None
    upload(endpoint.store, big_file)
    assert content(endpoint.store) == big_file.read_bytes()
    assert len(endpoint.requests) == 4


def test_a_store_that_always_lies_is_told_so(endpoint: StoreEndpoint, big_file: Path) -> None:
    endpoint.fault = lambda _method, _count: "lie"
    with pytest.raises(Damaged, match="losing parts"):
        upload(endpoint.store, big_file)


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
    endpoint: StoreEndpoint, big_file: Path, fault: str, expected: type[Exception]
) -> None:
    endpoint.fault = lambda _method, count: fault if count > 1 else None
    with pytest.raises(expected):
        upload(endpoint.store, big_file, in_flight=1)
    assert len(list(unfinished(big_file.parent / "state"))) == 1
    endpoint.fault = lambda _method, _count: None
    before = len(endpoint.requests)
    upload(endpoint.store, big_file)
    assert len(endpoint.requests) - before == 2
    assert content(endpoint.store) == big_file.read_bytes()


class Thief:
    """Has every link that is given, and sends other bytes of the same CRC32C by it.

    Args:
        store: Whose links.
        when: ``before`` the sender, ``after`` it, or ``both``.
        times: That it does so; afterwards it has given up.
    """

    def __init__(self, store: ObjectStore, when: str, *, times: int = 1 << 30) -> None:
        self._store, self._when, self._times = store, when, times
        self.data = b""
        self.links: list[tuple[Upload, Part]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def part_requests(self, upload: Upload, parts: Sequence[Part]) -> list[SignedRequest]:
        self.links += [(upload, part) for part in parts]
        if self._when != "after":
            self.send(*self.links[-1])
        return self._store.part_requests(upload, parts)

    def complete(self, upload: Upload, parts: Sequence[Part]) -> StoredObject:
        if self._when != "before":
            for link in self.links:
                self.send(*link)
        return self._store.complete(upload, parts)

    def send(self, upload: Upload, part: Part) -> None:
        if self._times > 0:
            self._times -= 1
            start = upload.offset(part.number)
            assert send(self._store, upload, part, forged(self.data[start : start + part.size])).ok


@pytest.mark.parametrize(
    ("when", "times", "links"), [("before", 3, 3), ("after", 3, 6), ("both", 6, 6)]
)
def test_a_thief_of_links_gets_nothing_into_the_object(
    endpoint: StoreEndpoint, big_file: Path, when: str, times: int, links: int
) -> None:
    thief = Thief(endpoint.store, when, times=times)
    thief.data = big_file.read_bytes()
    upload(thief, big_file, in_flight=1)  # type: ignore[arg-type]
    assert content(endpoint.store) == thief.data
    assert len(thief.links) == links


def test_a_thief_who_never_ends_keeps_it_from_ending_and_no_more(
    endpoint: StoreEndpoint, big_file: Path
) -> None:
    thief = Thief(endpoint.store, "after")
    thief.data = big_file.read_bytes()
    with pytest.raises(Damaged, match="losing parts"):
        upload(thief, big_file, in_flight=1)  # type: ignore[arg-type]
    assert endpoint.store.head("models/best") is None
    upload(endpoint.store, big_file)
    assert content(endpoint.store) == thief.data


def test_what_somebody_else_sent_meanwhile_is_sent_again(
    endpoint: StoreEndpoint, big_file: Path
) -> None:
    """Of an upload that is taken up, parts count that its own journal has with the same ETag."""
    thief = Thief(endpoint.store, "after")
    thief.data = big_file.read_bytes()
    endpoint.fault = lambda _method, count: "403" if count > 2 else None
    with pytest.raises(StorageRefused):
        upload(thief, big_file, in_flight=1)  # type: ignore[arg-type]
    endpoint.fault = lambda _method, _count: None
    assert [part.number for _, part in thief.links[:2]] == [1, 2]
    thief.send(*thief.links[0])  # one that the journal has
    before = len(endpoint.requests)
    upload(endpoint.store, big_file)
    assert sorted(number for _, number in endpoint.requests[before:]) == [1, 3]
    assert content(endpoint.store) == thief.data


def test_parts_that_the_journal_lost_are_sent_again(
    endpoint: StoreEndpoint, big_file: Path
) -> None:
    endpoint.fault = lambda _method, count: "403" if count > 2 else None
    with pytest.raises(StorageRefused):
        upload(endpoint.store, big_file, in_flight=1)
    endpoint.fault = lambda _method, _count: None
    (folder,) = unfinished(big_file.parent / "state")
    lines = (folder / "journal").read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    (folder / "journal").write_bytes(b"".join(lines[:-1]))
    before = len(endpoint.requests)
    upload(endpoint.store, big_file)
    assert sorted(number for _, number in endpoint.requests[before:]) == [2, 3]


def test_an_upload_of_a_version_that_knew_only_sha256_goes_on(
    endpoint: StoreEndpoint, big_file: Path
) -> None:
    class Old:
        def __getattr__(self, name: str) -> Any:
            return getattr(endpoint.store, name)

        def begin(self, key: str, **more: Any) -> Upload:
            return endpoint.store.begin(key, **more, checksum="sha256")

    endpoint.fault = lambda _method, count: "403" if count > 2 else None
    with pytest.raises(StorageRefused):
        upload(Old(), big_file, in_flight=1)  # type: ignore[arg-type]
    endpoint.fault = lambda _method, _count: None
    (folder,) = unfinished(big_file.parent / "state")
    journal = Journal(folder / "journal")
    records = [msgspec.json.decode(record) for record in journal.records]
    journal.close()
    del records[0]["upload"]["checksum"]
    assert [set(record["part"]) for record in records[1:]] == [{"number", "size", "sha256"}] * 2
    lost = records.pop()  # a power cut took it: the store's list tells its SHA-256
    assert lost["part"]["number"] == 2
    (folder / "journal").write_bytes(b"".join(frame(msgspec.json.encode(r)) for r in records))
    before = len(endpoint.requests)
    upload(endpoint.store, big_file)
    assert [number for _, number in endpoint.requests[before:]] == [3]
    assert content(endpoint.store) == big_file.read_bytes()


def test_an_upload_that_expired_starts_anew(endpoint: StoreEndpoint, big_file: Path) -> None:
    store = endpoint.store

    def fault(_method: str, count: int) -> None:
        if count == 2:
            store.sweep(seconds=-1)

    endpoint.fault = fault
    upload(store, big_file, in_flight=1)
    assert content(store) == big_file.read_bytes()


def test_an_upload_that_expired_between_runs_starts_anew(
    endpoint: StoreEndpoint, big_file: Path
) -> None:
    endpoint.fault = lambda _method, count: "403" if count > 2 else None
    with pytest.raises(StorageRefused):
        upload(endpoint.store, big_file, in_flight=1)
    endpoint.store.sweep(seconds=-1)
    endpoint.fault = lambda _method, _count: None
    upload(endpoint.store, big_file)
    assert content(endpoint.store) == big_file.read_bytes()


def test_a_file_that_changes_while_it_is_sent(endpoint: StoreEndpoint, big_file: Path) -> None:
    def fault(_method: str, count: int) -> None:
        if count == 2:
            with big_file.open("r+b") as file:
                file.write(b"other")

    endpoint.fault = fault
    with pytest.raises(SourceChanged):
        upload(endpoint.store, big_file, in_flight=1)
    assert endpoint.store.head("models/best") is None


def test_a_file_that_isn_t_what_was_packed(endpoint: StoreEndpoint, big_file: Path) -> None:
    entry, _ = hash_file(big_file, as_path="best.ckpt")
    data = bytearray(big_file.read_bytes())
    data[-1] ^= 1
    big_file.write_bytes(data)
    with pytest.raises(SourceChanged):
        upload(endpoint.store, big_file, entry=entry)
    big_file.write_bytes(b"short")
    with pytest.raises(SourceChanged):
        upload(endpoint.store, big_file, entry=entry)


def test_a_file_that_changed_between_runs_is_sent_whole(
    endpoint: StoreEndpoint, big_file: Path
) -> None:
    endpoint.fault = lambda _method, count: "403" if count > 2 else None
    with pytest.raises(StorageRefused):
        upload(endpoint.store, big_file, in_flight=1)
    endpoint.fault = lambda _method, _count: None
    big_file.write_bytes(os.urandom(big_file.stat().st_size))
    before = len(endpoint.requests)
    upload(endpoint.store, big_file)
    assert len(endpoint.requests) - before == 3
    assert content(endpoint.store) == big_file.read_bytes()
    assert list(endpoint.store._uploads.iterdir()) == []


def test_who_paces_may_end_it(endpoint: StoreEndpoint, big_file: Path) -> None:
    moved = 0

    def pace(size: int) -> None:
        nonlocal moved
        moved += size
        if moved > MIN_PART:
            raise Cancelled(what="It")

    with pytest.raises(Cancelled):
        upload(endpoint.store, big_file, pace=pace, in_flight=1)
    upload(endpoint.store, big_file)
    assert content(endpoint.store) == big_file.read_bytes()


def test_a_journal_that_is_damaged_costs_only_time(endpoint: StoreEndpoint, big_file: Path) -> None:
    endpoint.fault = lambda _method, count: "403" if count > 2 else None
    with pytest.raises(StorageRefused):
        upload(endpoint.store, big_file, in_flight=1)
    endpoint.fault = lambda _method, _count: None
    (folder,) = unfinished(big_file.parent / "state")
    (folder / "journal").write_bytes(b"rubbish")
    upload(endpoint.store, big_file)
    assert content(endpoint.store) == big_file.read_bytes()


@pytest.mark.parametrize("how", ["older", "newer", "newer part"])
def test_a_journal_of_another_version_costs_only_time(
    endpoint: StoreEndpoint, big_file: Path, how: str
) -> None:
    """One line of an older one, which didn't know what pins the parts, or what isn't known yet."""
    endpoint.fault = lambda _method, count: "403" if count > 1 else None
    with pytest.raises(StorageRefused):
        upload(endpoint.store, big_file, in_flight=1)
    endpoint.fault = lambda _method, _count: None
    (folder,) = unfinished(big_file.parent / "state")
    journal = Journal(folder / "journal")
    records = [msgspec.json.decode(record) for record in journal.records]
    journal.close()
    if how == "newer part":
        records[1]["part"]["seal"] = "?"
    else:
        del records[1:]
    if how == "older":
        assert records[0]["upload"].pop("checksum") == "crc32c"
    elif how == "newer":
        records[0]["upload"]["sealed"] = True
    (folder / "journal").write_bytes(b"".join(frame(msgspec.json.encode(r)) for r in records))
    before = len(endpoint.requests)
    upload(endpoint.store, big_file)
    assert len(endpoint.requests) == before + 3
    assert content(endpoint.store) == big_file.read_bytes()


def test_two_at_once_here_is_one_too_many(endpoint: StoreEndpoint, big_file: Path) -> None:
    holding, going = threading.Event(), threading.Event()

    def fault(_method: str, _count: int) -> None:
        holding.set()
        going.wait(60)

    endpoint.fault = fault
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(upload, endpoint.store, big_file)
        assert holding.wait(60)
        with pytest.raises(Busy, match="in use"):
            upload(endpoint.store, big_file)
        going.set()
        first.result()


def test_two_devices_that_send_the_same(endpoint: StoreEndpoint, big_file: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        states = [big_file.parent / name for name in ("a", "b")]
        runs = [pool.submit(upload, endpoint.store, big_file, state=state) for state in states]
        sizes = {run.result().size for run in runs}
    assert sizes == {big_file.stat().st_size}
    assert content(endpoint.store) == big_file.read_bytes()


def test_a_server_that_is_away_for_a_moment(endpoint: StoreEndpoint, big_file: Path) -> None:
    store = endpoint.store
    away = iter([True, False, True, True, False])

    class Flaky:
        def __getattr__(self, name: str) -> Callable[..., Any]:
            def call(*args: Any, **more: Any) -> Any:
                if name in ("begin", "complete") and next(away, False):
                    raise NetworkError(message="away")
                return getattr(store, name)(*args, **more)

            return call

    upload(Flaky(), big_file)  # type: ignore[arg-type]
    assert content(store) == big_file.read_bytes()


SCRIPT = """
import sys
from pathlib import Path
from sleap_rtc.storage.upload import upload_file
from sleap_rtc.storage.bucket import Bucket
from sleap_rtc.storage.s3 import S3Store
from sleap_rtc.testing.seaweed import ADMIN
path, endpoint = Path(sys.argv[1]), sys.argv[2]
store = S3Store(Bucket(name="kills", endpoint=endpoint), lambda: ADMIN)
def told(done):
    sys.stderr.write(f"{done}\\n")
    sys.stderr.flush()
upload_file(store, path, "models/best", state=path.parent / "state", part_size=5 << 20,
            in_flight=2, progress=told)
"""


STALLED = """
import signal, socket, sys, threading
from pathlib import Path
from sleap_rtc.storage.upload import upload_file
from sleap_rtc.storage.folder import FolderStore
listener = socket.create_server(("127.0.0.1", 0))
folder = Path(sys.argv[1])
store = FolderStore(folder / "store", base_url=f"http://127.0.0.1:{listener.getsockname()[1]}")
def told():
    held = listener.accept()
    held[0].recv(1)
    print("now", flush=True)
    threading.Event().wait()
threading.Thread(target=told, daemon=True).start()
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    upload_file(store, folder / "best.ckpt", "k", state=folder / "s")
except KeyboardInterrupt:
    print("ended", flush=True)
"""


@pytest.mark.slow
def test_who_gives_up_needn_t_wait_for_a_dead_network(big_file: Path) -> None:
    command = [sys.executable, "-c", STALLED, str(big_file.parent)]
    with running(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stdout.read() == "ended\n"


def start(path: Path, server: SeaweedServer) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(path), server.endpoint]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_until(process: subprocess.Popen[str], done: int) -> list[int]:
    """Read how far a process is, until it has sent so much, or its end."""
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        told.append(int(line))
        if told[-1] >= done:
            break
    return told


@pytest.mark.slow
def test_a_killed_process_is_taken_up_and_sends_the_rest(
    seaweed: SeaweedServer, tmp_path: Path
) -> None:
    path = tmp_path / "best.ckpt"
    path.write_bytes(os.urandom(31 << 20))
    store = seaweed.make_bucket("kills")
    for part in (2, 4):
        with start(path, seaweed) as process:
            wait_until(process, part * (5 << 20) + 1)
            process.send_signal(signal.SIGKILL)
    (folder,) = unfinished(tmp_path / "state")
    kept = (folder / "journal").read_bytes().count(b'"etag"')
    assert kept >= 2
    with start(path, seaweed) as process:
        told = wait_until(process, 1 << 60)
    assert process.returncode == 0
    assert told[0] >= kept * (5 << 20)
    assert store.read("models/best", limit=1 << 30) == path.read_bytes()
    assert list(unfinished(tmp_path / "state")) == []


@pytest.mark.slow
def test_a_store_that_is_killed_and_comes_back(seaweed: SeaweedServer, big_file: Path) -> None:
    store = seaweed.make_bucket("restarts")
    killed = threading.Event()

    def told(done: int) -> None:
        if done > MIN_PART and not killed.is_set():
            killed.set()
            seaweed.kill()
            seaweed.start()

    patience = Patience(attempts=200, base=0.2, cap=2.0)
    upload(store, big_file, in_flight=1, progress=told, patience=patience)
    assert killed.is_set()
    assert content(store) == big_file.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_thief_at_a_real_store(seaweed: SeaweedServer, big_file: Path, when: str) -> None:
    store = seaweed.make_bucket(f"thief-{when}")
    thief = Thief(store, when, times=3)
    thief.data = big_file.read_bytes()
    upload(thief, big_file, in_flight=1)  # type: ignore[arg-type]
    assert content(store) == thief.data
    assert not send(store, *thief.links[0], forged(thief.data[:MIN_PART])).ok


@pytest.mark.slow
def test_two_processes_send_the_same_to_a_real_store(
    seaweed: SeaweedServer, big_file: Path
) -> None:
    store = seaweed.make_bucket("kills2")
    script = SCRIPT.replace('"kills"', '"kills2"').replace('/ "state"', "/ sys.argv[3]")
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(big_file), seaweed.endpoint, name])
        for name in ("a", "b")
    ]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert content(store) == big_file.read_bytes()
