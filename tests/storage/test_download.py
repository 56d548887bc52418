"""Downloading: ranges of one content, checked, resumed, from stores that fail and lie."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import (
    Cancelled,
    Damaged,
    NotFound,
    OutOfSpace,
    SourceChanged,
    StorageRefused,
    StorageUnreachable,
)
from sleap_rtc.files.claim import Claim
from sleap_rtc.files.hashing import hash_file
from sleap_rtc.storage import download
from sleap_rtc.storage.download import RangeReader, download_file
from sleap_rtc.storage.objects import StoredObject
from sleap_rtc.storage.pausing import Patience
from sleap_rtc.storage.wire import Connections
from sleap_rtc.testing.store_endpoint import StoreEndpoint

QUICK = Patience(attempts=5, base=0.001, cap=0.01)
KEY = "models/best"
RANGE = 2 * BLOCK


class Case:
    """A file in a store, and where it goes."""

    def __init__(self, endpoint: StoreEndpoint, folder: Path, size: int) -> None:
        self.endpoint = endpoint
        self.folder = folder
        self.target = folder / "got" / "best.ckpt"
        self.target.parent.mkdir()
        self.links = 0
        self.put(os.urandom(size))

    def put(self, data: bytes) -> StoredObject:
        """Put another content there."""
        self.data = data
        source = self.folder / "source"
        source.write_bytes(data)
        self.entry, hashes = hash_file(source, as_path="best.ckpt")
        self.blake3 = hashes.blake3
        self.endpoint.store.delete(KEY)
        assert self.endpoint.store.create(KEY, data)
        found = self.endpoint.store.head(KEY)
        assert found is not None
        return found

    def link(self) -> Any:
        self.links += 1
        return self.endpoint.store.download_request(KEY)

    def fetch(self, **more: Any) -> None:
        given = {
            "partial": self.folder / "partial",
            "size": len(self.data),
            "name": "best.ckpt",
            "patience": QUICK,
        }
        download_file(self.link, self.target, **{**given, **more})


@pytest.fixture(autouse=True)
def short_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "RANGE", RANGE)


@pytest.fixture
def case(endpoint: StoreEndpoint, tmp_path: Path) -> Case:
    return Case(endpoint, tmp_path, 5 * BLOCK + 5)


@pytest.fixture(params=["blocks", "whole"])
def known(request: pytest.FixtureRequest, case: Case) -> dict[str, Any]:
    """What is known of the content."""
    return {"entry": case.entry} if request.param == "blocks" else {"blake3": case.blake3}


def test_a_file_arrives_as_it_is(case: Case, known: dict[str, Any]) -> None:
    told: list[int] = []
    case.fetch(**known, progress=told.append)
    assert case.target.read_bytes() == case.data
    assert (told[0], max(told)) == (0, len(case.data))
    assert not (case.folder / "partial").exists()
    assert case.links == 1


def test_several_share_connections(case: Case) -> None:
    shared = Connections()
    with (
        mock.patch.object(shared, "answering", wraps=shared.answering) as asked,
        mock.patch.object(shared, "close") as closed,
    ):
        case.fetch(entry=case.entry, connections=shared)
    assert case.target.read_bytes() == case.data
    assert asked.call_count == 3
    closed.assert_not_called()


def test_the_disk_gets_it_while_it_arrives(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_SYNC_EVERY", RANGE)
    with mock.patch.object(download, "sync_file", wraps=download.sync_file) as synced:
        case.fetch(entry=case.entry)
    assert synced.call_count == 3
    assert case.target.read_bytes() == case.data


@pytest.mark.parametrize("size", [0, 1, BLOCK, RANGE, RANGE + 1])
def test_sizes_at_the_edges(endpoint: StoreEndpoint, tmp_path: Path, size: int) -> None:
    case = Case(endpoint, tmp_path, size)
    case.fetch(entry=case.entry)
    case.fetch(blake3=case.blake3)
    assert case.target.read_bytes() == case.data


@pytest.mark.parametrize("fault", ["500", "503", "cut", "403"])
def test_what_fails_now_and_then_is_asked_again(
    case: Case, known: dict[str, Any], fault: str
) -> None:
    case.endpoint.fault = lambda _method, count: fault if count in (1, 3) else None
    case.fetch(**known, in_flight=2)
    assert case.target.read_bytes() == case.data
    assert len(case.endpoint.requests) == 5


def test_a_bad_block_is_fetched_again_alone(case: Case) -> None:
    case.endpoint.fault = lambda _method, count: "flip" if count in (2, 4) else None
    case.fetch(entry=case.entry, in_flight=1)
    assert case.target.read_bytes() == case.data
    assert len(case.endpoint.requests) == 5


def test_a_store_that_lies_is_not_believed(case: Case, known: dict[str, Any]) -> None:
    case.endpoint.fault = lambda _method, count: "flip" if count > 1 else None
    with pytest.raises(Damaged):
        case.fetch(**known, in_flight=1)
    assert not case.target.exists()


@pytest.mark.parametrize(
    ("fault", "expected"),
    [("503", StorageUnreachable), ("cut", StorageUnreachable), ("403", StorageRefused)],
)
def test_what_keeps_failing_ends_and_what_is_here_stays(
    case: Case, known: dict[str, Any], fault: str, expected: type[Exception]
) -> None:
    case.endpoint.fault = lambda _method, count: fault if count > 2 else None
    with pytest.raises(expected):
        case.fetch(**known, in_flight=1)
    case.endpoint.fault = lambda _method, _count: None
    before = len(case.endpoint.requests)
    case.fetch(**known)
    assert case.target.read_bytes() == case.data
    assert len(case.endpoint.requests) - before == 1


def stop_half_way(case: Case, **known: Any) -> None:
    def fault(_method: str, count: int) -> str | None:
        return "403" if count > 2 else None

    case.endpoint.fault = fault
    with pytest.raises(StorageRefused):
        case.fetch(**known, in_flight=1)
    case.endpoint.fault = lambda _method, _count: None
    case.endpoint.requests.clear()


def test_what_is_here_and_wrong_is_fetched_again(case: Case, known: dict[str, Any]) -> None:
    stop_half_way(case, **known)
    with (case.folder / "partial" / "data").open("r+b") as file:
        file.write(b"worse")
    case.fetch(**known)
    assert case.target.read_bytes() == case.data


def test_a_damaged_journal_costs_only_time(case: Case, known: dict[str, Any]) -> None:
    stop_half_way(case, **known)
    (case.folder / "partial" / "journal").write_bytes(b"rubbish")
    case.fetch(**known)
    assert case.target.read_bytes() == case.data


def test_another_object_of_the_same_blocks_goes_on(case: Case) -> None:
    stop_half_way(case, entry=case.entry)
    case.put(case.data)
    case.fetch(entry=case.entry)
    assert case.target.read_bytes() == case.data
    assert len(case.endpoint.requests) == 1


def test_contents_are_never_mixed(case: Case) -> None:
    stop_half_way(case, blake3=case.blake3)
    case.put(os.urandom(len(case.data)))
    case.fetch(blake3=case.blake3)
    assert case.target.read_bytes() == case.data


def test_an_object_that_is_replaced_in_the_middle(case: Case) -> None:
    new = os.urandom(len(case.data))

    def fault(_method: str, count: int) -> None:
        if count == 2:
            case.put(new)

    case.endpoint.fault = fault
    with pytest.raises(Damaged):
        case.fetch(blake3=case.blake3, in_flight=1)
    case.fetch(blake3=case.blake3)
    assert case.target.read_bytes() == new


def test_a_pinned_content_that_is_gone(case: Case) -> None:
    first = case.put(case.data)
    case.put(case.data[::-1])
    with pytest.raises(SourceChanged):
        case.fetch(entry=case.entry, etag=first.etag)


def test_nothing_there(case: Case) -> None:
    case.endpoint.store.delete(KEY)
    with pytest.raises(NotFound):
        case.fetch(entry=case.entry)


def test_sizes_that_don_t_agree(case: Case) -> None:
    with pytest.raises(Damaged):
        case.fetch(entry=case.entry, size=5)
    with pytest.raises(ValueError, match="hash"):
        case.fetch()


def test_a_full_disk_is_said_before_the_first_byte(case: Case) -> None:
    with pytest.raises(OutOfSpace):
        case.fetch(blake3=case.blake3, size=1 << 60)
    assert case.endpoint.requests == []


def test_a_disk_that_fills_in_the_middle_keeps_what_there_is(
    case: Case, known: dict[str, Any]
) -> None:
    real, count = os.pwrite, 0

    def full(fd: int, data: bytes, at: int) -> int:
        nonlocal count
        count += 1
        if count > 3:
            raise OSError(28, "No space left on device")
        return real(fd, data, at)

    with mock.patch("os.pwrite", full), pytest.raises(OutOfSpace):
        case.fetch(**known, in_flight=1)
    before = len(case.endpoint.requests)
    case.fetch(**known)
    assert case.target.read_bytes() == case.data
    assert len(case.endpoint.requests) - before == 2


def test_who_paces_may_end_it(case: Case) -> None:
    def pace(_size: int) -> None:
        raise Cancelled(what="It")

    with pytest.raises(Cancelled):
        case.fetch(entry=case.entry, pace=pace)


@pytest.fixture
def reader(case: Case) -> Iterator[RangeReader]:
    made = RangeReader(case.link, name="best.ckpt", patience=QUICK)
    yield made
    made.close()


def test_ranges_for_whoever_wants_blocks(case: Case, reader: RangeReader) -> None:
    assert reader.etag is None
    assert reader.read(5, 10) == case.data[5:15]
    assert reader.read(BLOCK - 1, BLOCK) == case.data[BLOCK - 1 : 2 * BLOCK - 1]
    assert reader.etag
    case.put(case.data[::-1])
    with pytest.raises(SourceChanged):
        reader.read(0, 1)
    reader.pin(None)
    assert reader.read(0, 3) == case.data[:3]
    with pytest.raises((SourceChanged, StorageUnreachable)):
        reader.read(len(case.data) - 1, 5)


def test_a_link_that_ends_is_renewed(case: Case) -> None:
    now = time.time()
    reader = RangeReader(case.link, name="it", wall=lambda: now)
    reader.read(0, 1)
    reader.read(0, 1)
    assert case.links == 1
    now += 3_550
    reader.read(0, 1)
    assert case.links == 2
    reader.close()


SCRIPT = """
import sys
from pathlib import Path
from sleap_rtc.storage import download
from sleap_rtc.storage import download
from sleap_rtc.storage.folder import FolderStore
store = FolderStore(Path(sys.argv[1]), base_url=sys.argv[2])
folder = Path(sys.argv[3])
def told(done):
    sys.stderr.write(f"{done}\\n")
    sys.stderr.flush()
download.RANGE = 2 << 20
download.download_file(lambda: store.download_request("models/best"), folder / "target",
              partial=folder / "partial", size=int(sys.argv[4]), name="it",
              blake3=sys.argv[5], in_flight=2, progress=told)
"""


@pytest.mark.slow
def test_a_killed_process_is_taken_up(case: Case, tmp_path: Path) -> None:
    store = case.endpoint.store
    arguments = [str(store.name), store._base_url, str(tmp_path), str(len(case.data)), case.blake3]
    command = [sys.executable, "-c", SCRIPT, *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if int(line) > 3 * BLOCK:
                break
        process.send_signal(signal.SIGKILL)
    case.endpoint.requests.clear()
    done = subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True)
    assert (tmp_path / "target").read_bytes() == case.data
    assert int(done.stderr.split()[0]) == 0 or len(case.endpoint.requests) < 3


def test_memory_doesn_t_grow_with_the_file(case: Case, reader: RangeReader) -> None:
    pieces: list[tuple[int, int]] = []
    reader.stream(5, len(case.data) - 5, lambda at, data: pieces.append((at, len(data))))
    assert pieces[0] == (5, BLOCK - 5)
    assert pieces[1:-1] == [(n * BLOCK, BLOCK) for n in range(1, 5)]
    assert pieces[-1] == (5 * BLOCK, 5)


def test_one_process_at_a_time(case: Case) -> None:
    with Claim(case.folder / "partial", what="it"), pytest.raises(Exception, match="in use"):
        case.fetch(entry=case.entry)
