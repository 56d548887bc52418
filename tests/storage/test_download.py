"""Reading ranges of one content, from stores that fail and change."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import Damaged, NotFound, SourceChanged, StorageRefused, StorageUnreachable
from sleap_rtc.storage.download import RangeReader
from sleap_rtc.storage.objects import StoredObject
from sleap_rtc.storage.pausing import Patience, Pauses, Stopped
from sleap_rtc.testing.store_endpoint import StoreEndpoint

QUICK = Patience(attempts=3, base=0.001, cap=0.01)
KEY = "models/best"


class Case:
    """An object in a store, and links to it."""

    def __init__(self, endpoint: StoreEndpoint) -> None:
        self.endpoint = endpoint
        self.links = 0
        self.put(os.urandom(5 * BLOCK + 5))

    def put(self, data: bytes) -> StoredObject:
        """Put another content there."""
        self.data = data
        self.endpoint.store.delete(KEY)
        assert self.endpoint.store.create(KEY, data)
        found = self.endpoint.store.head(KEY)
        assert found is not None
        return found

    def link(self) -> Any:
        self.links += 1
        return self.endpoint.store.download_request(KEY)

    def fails(self, *faults: str | None) -> None:
        """Have the first requests from now on go wrong."""
        self.endpoint.requests.clear()
        left = iter(faults)
        self.endpoint.fault = lambda _method, _count: next(left, None)


@pytest.fixture
def case(endpoint: StoreEndpoint) -> Case:
    return Case(endpoint)


@pytest.fixture
def reader(case: Case) -> Iterator[RangeReader]:
    made = RangeReader(case.link, name="best.ckpt", patience=QUICK)
    yield made
    made.close()


def streamed(reader: RangeReader, offset: int, size: int) -> list[tuple[int, bytes]]:
    pieces: list[tuple[int, bytes]] = []
    reader.stream(offset, size, lambda at, piece: pieces.append((at, bytes(piece))))
    return pieces


def test_ranges_of_one_content(case: Case, reader: RangeReader) -> None:
    assert reader.etag is None
    assert reader.read(5, 10) == case.data[5:15]
    assert reader.read(BLOCK - 1, BLOCK) == case.data[BLOCK - 1 : 2 * BLOCK - 1]
    assert reader.etag
    assert case.links == 1
    case.put(case.data[::-1])
    with pytest.raises(SourceChanged):
        reader.read(0, 1)
    reader.pin(None)
    assert reader.read(0, 3) == case.data[:3]
    with pytest.raises((SourceChanged, StorageUnreachable)):
        reader.read(len(case.data) - 1, 5)


def test_a_content_that_is_known_beforehand(case: Case) -> None:
    etag = case.put(case.data).etag
    reader = RangeReader(case.link, name="it", etag=etag, patience=QUICK)
    assert reader.read(0, 3) == case.data[:3]
    case.put(case.data[::-1])
    with pytest.raises(SourceChanged):
        reader.read(0, 3)
    reader.close()


def test_pieces_are_whole_blocks_of_the_object(case: Case, reader: RangeReader) -> None:
    pieces = streamed(reader, 5, len(case.data) - 5)
    assert [(at, len(piece)) for at, piece in pieces] == [
        (5, BLOCK - 5),
        *((n * BLOCK, BLOCK) for n in range(1, 5)),
        (5 * BLOCK, 5),
    ]
    assert b"".join(piece for _, piece in pieces) == case.data[5:]


@pytest.mark.parametrize("fault", ["500", "503", "cut", "403", "half"])
def test_what_fails_now_and_then_is_asked_again(
    case: Case, reader: RangeReader, fault: str
) -> None:
    """And goes on behind what has come: each piece comes once."""
    case.fails(fault, fault)
    pieces = streamed(reader, 0, len(case.data))
    assert [at for at, _ in pieces] == [n * BLOCK for n in range(6)]
    assert b"".join(piece for _, piece in pieces) == case.data
    assert len(case.endpoint.requests) == 3


def test_who_gets_further_each_time_isnt_given_up(case: Case, reader: RangeReader) -> None:
    case.fails("half", "403", "half", "500", "half", "403")
    assert reader.read(0, len(case.data)) == case.data
    assert len(case.endpoint.requests) == 7


@pytest.mark.parametrize(
    ("fault", "expected"),
    [("503", StorageUnreachable), ("cut", StorageUnreachable), ("403", StorageRefused)],
)
def test_what_keeps_failing_ends(
    case: Case, reader: RangeReader, fault: str, expected: type[Exception]
) -> None:
    case.fails(None, *[fault] * 9)
    reader.read(0, 1)
    with pytest.raises(expected):
        reader.read(0, 1)
    assert len(case.endpoint.requests) == 4


def test_what_the_store_can_t_read_any_more_isn_t_asked_for_again(
    case: Case, reader: RangeReader
) -> None:
    case.fails(None, "422")
    reader.read(0, 1)
    with pytest.raises(Damaged, match=r"best\.ckpt is damaged"):
        reader.read(0, 1)
    assert len(case.endpoint.requests) == 2
    assert reader.read(0, 1) == case.data[:1]


def test_nothing_there(case: Case, reader: RangeReader) -> None:
    case.endpoint.store.delete(KEY)
    with pytest.raises(NotFound):
        reader.read(0, 1)


def test_what_somebody_else_stops_ends(case: Case) -> None:
    pauses = Pauses(QUICK)
    reader = RangeReader(case.link, name="it", pauses=pauses)
    pieces: list[int] = []

    def take(at: int, _piece: memoryview) -> None:
        pieces.append(at)
        pauses.stop()

    with pytest.raises(Stopped):
        reader.stream(0, len(case.data), take)
    assert pieces == [0]
    reader.close()


def test_what_whoever_takes_a_piece_raises_ends_it(case: Case, reader: RangeReader) -> None:
    def take(_at: int, _piece: memoryview) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        reader.stream(0, 5, take)
    assert reader.read(0, 5) == case.data[:5]


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
