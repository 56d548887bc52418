"""What pins parts in a bucket: CRC32C where a store was seen to look at it, and at ETags."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from sleap_rtc.errors import PartsMissing, StorageRefused, StorageUnreachable
from sleap_rtc.storage import pinning
from sleap_rtc.storage.checksums import checksum_of
from sleap_rtc.storage.objects import MIN_PART, Checksum, Part, StoredObject, StoredPart, Upload
from sleap_rtc.storage.pinning import ALIKE, pins_by_crc32c
from sleap_rtc.storage.s3 import S3Store
from sleap_rtc.testing.seaweed import SeaweedServer
from sleap_rtc.testing.store_conformance import forged


@pytest.mark.slow
def test_a_real_store_is_asked_once_and_keeps_nothing(
    seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = seaweed.make_bucket("pinning")
    assert pins_by_crc32c(store)
    assert list(store.keys("")) == []
    asked: list[S3Store] = []
    monkeypatch.setattr(
        "sleap_rtc.storage.s3.pins_by_crc32c", lambda it: asked.append(it) or pins_by_crc32c(it)
    )
    with ThreadPoolExecutor(4) as pool:
        begun = list(pool.map(lambda n: store.begin(f"k{n}", size=1, part_size=MIN_PART), range(4)))
    assert {upload.checksum for upload in begun} == {"crc32c"}
    assert asked == [store]
    known = store.begin("k", size=1, part_size=MIN_PART, checksum="sha256")
    assert known.checksum == "sha256"


class Careless:
    """A store that doesn't look at everything, or says no to some of it."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.done: list[str] = []

    def begin(self, key: str, *, size: int, part_size: int, checksum: Checksum) -> Upload:
        if self.how == "refuses to begin":
            raise StorageRefused(store="it", what="begin", why="InvalidRequest")
        return Upload(key=key, id="u", size=size, part_size=part_size, checksum=checksum)

    def send_part(self, upload: Upload, part: Part, data: bytes) -> str:
        if data not in ALIKE and self.how == "fails at other bytes":
            raise StorageUnreachable(store="it", why="InternalError")
        wrong = data not in ALIKE and self.how != "takes all bytes"
        if wrong or self.how == "refuses every part":
            raise StorageRefused(store="it", what="take it", why="BadDigest")
        same = {"tells no ETag": "", "has one ETag for both": "e"}
        return same.get(self.how, data.hex())

    def complete(self, upload: Upload, parts: Sequence[Part]) -> StoredObject:
        if self.how == "takes all ETags":
            return StoredObject(key=upload.key, size=5, etag="e")
        if self.how == "can't complete":
            raise StorageRefused(store="it", what="complete", why="AccessDenied")
        if self.how in ("fails at other ETags", "is away by then"):
            raise StorageUnreachable(store="it", why="InternalError")
        raise PartsMissing(key=upload.key, parts="1")

    def parts(self, upload: Upload) -> list[StoredPart]:
        if self.how == "is away by then":
            raise StorageUnreachable(store="it", why="it is away")
        return []

    def delete(self, key: str) -> None:
        self.done.append("deleted")

    def abort(self, upload: Upload) -> None:
        self.done.append("aborted")
        raise StorageRefused(store="it", what="give it up", why="AccessDenied")


@pytest.mark.parametrize(
    ("how", "done"),
    [
        ("refuses to begin", []),
        ("takes all bytes", ["aborted"]),
        ("fails at other bytes", ["aborted"]),
        ("refuses every part", ["aborted"]),
        ("tells no ETag", ["aborted"]),
        ("has one ETag for both", ["aborted"]),
        ("takes all ETags", ["deleted", "aborted"]),
        ("can't complete", ["aborted"]),
        ("fails at other ETags", ["aborted"]),
    ],
)
def test_a_store_that_doesnt_look_keeps_sha256(how: str, done: list[str]) -> None:
    store = Careless(how)
    ask: Callable[..., bool] = pins_by_crc32c
    assert not ask(store)
    assert store.done == done


def test_a_store_that_is_away_by_then_isnt_known() -> None:
    ask: Callable[..., bool] = pins_by_crc32c
    with pytest.raises(StorageUnreachable, match="away"):
        ask(Careless("is away by then"))


@pytest.mark.slow
def test_a_store_that_is_away_is_asked_again(
    seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What isn't known yet is decided when it is back."""
    store = seaweed.make_bucket("pinning-away")
    with monkeypatch.context() as away:
        away.setattr(store, "send_part", unreachable)
        with pytest.raises(StorageUnreachable):
            store.begin("k", size=1, part_size=MIN_PART)
    assert store.begin("k", size=1, part_size=MIN_PART).checksum == "crc32c"


def unreachable(*_: object) -> str:
    raise StorageUnreachable(store="it", why="it is away")


def test_what_is_tried_is_alike() -> None:
    assert ALIKE[0] != ALIKE[1] == forged(ALIKE[0])
    assert checksum_of("crc32c", ALIKE[0]) == checksum_of("crc32c", ALIKE[1])
    assert len(ALIKE[0]) == len(b"other")


def test_one_that_looks_may(monkeypatch: pytest.MonkeyPatch) -> None:
    ask: Callable[..., bool] = pins_by_crc32c
    assert ask(Careless(""))
    monkeypatch.setattr(pinning, "QUICK", False)  # a CRC32C would take longer than a SHA-256 here
    assert not ask(Careless(""))
