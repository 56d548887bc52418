"""What is counted is what travelled."""

from __future__ import annotations

import pytest

from sleap_rtc.client.counting import CountedServed, CountedSources
from sleap_rtc.domain import packages as domain
from sleap_rtc.domain.packages import ref
from sleap_rtc.errors import LinkLost, NotFound
from sleap_rtc.files.packing import pack
from sleap_rtc.transports.base import Manner, Sources
from sleap_rtc.transports.local import LocalSource
from sleap_rtc.transports.serving import ServedPackage


def packed(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    return pack({"file": tmp_path / "file"})


def test_what_is_given_away(tmp_path) -> None:
    served = ServedPackage(packed(tmp_path))
    counted = CountedServed(served)
    assert counted.listing == served.listing
    assert bytes(counted.read(0, 0)) + bytes(counted.read(0, 0)) == b"1234512345"
    assert (counted.sent, counted.again) == (10, 1)
    served.close()


async def test_what_comes_from_sources_that_come_and_go(tmp_path) -> None:
    package = packed(tmp_path)
    one, two = (LocalSource(package, name=name) for name in ("one", "two"))
    theirs = Sources(one)
    counted = CountedSources(theirs)
    with counted.current() as sources:
        theirs.add(two)
        assert [source.name for source in sources.current.values()] == ["one", "two"]
        theirs.remove(one)
        [left] = sources.current.values()
        assert left.name == "two"
        assert await left.block(package.package.id, 0, 0, 5) == b"12345"
    theirs.remove(two)
    assert (counted.received, list(sources.current.values())) == (5, [left])
    assert counted.came == {("webrtc", "two"): 5}


async def test_ways_manners_and_failures_are_passed_on(tmp_path) -> None:
    package = packed(tmp_path)

    class Traced(LocalSource):
        async def bring(self, package, file, block, size):
            return await self.block(package, file, block, size), "direct"

    theirs = Sources()
    theirs.add(Traced(package, name="gpu-1"), Manner(window=7, run=3))
    counted = CountedSources(theirs)
    failures = []
    counted.on_failure = lambda source, error: failures.append((source.name, error.code))
    with counted.current() as sources:
        [(key, source)] = sources.current.items()
        assert sources.manner(key) == Manner(window=7, run=3)
        await source.block(package.package.id, 0, 0, 5)
        with pytest.raises(NotFound):
            await source.block(package.package.id, 0, 1, 5)
        with pytest.raises(NotFound):
            await source.listing(ref(domain.package([])))
    assert counted.came == {("direct", "gpu-1"): 5}
    assert failures == [("gpu-1", "not_found")] * 2


async def test_a_block_that_is_asked_for_once_more_is_counted(tmp_path) -> None:
    package = packed(tmp_path)

    class Lost(LocalSource):
        async def block(self, package, file, block, size):
            raise LinkLost(peer="gpu-1", why="it ended")

    counted = CountedSources(Sources(Lost(package), LocalSource(package)))
    with counted.current() as sources:
        lost, there = sources.current.values()
        with pytest.raises(LinkLost):
            await lost.block(package.package.id, 0, 0, 5)
        assert counted.again == 0
        await there.block(package.package.id, 0, 0, 5)
    assert counted.again == 1


async def test_several_blocks_at_once_are_counted_where_the_source_gives_them(tmp_path) -> None:
    package = packed(tmp_path)

    class Generous(LocalSource):
        at_once = 9

        async def several(self, package, places, sizes):
            if sizes != [5]:
                raise NotFound(message="no such blocks")
            return b"12345", "direct"

    failures = []
    theirs = Sources(LocalSource(package), Generous(package, name="gpu-1"))
    counted = CountedSources(theirs)
    counted.on_failure = lambda source, error: failures.append((source.name, error.code))
    with counted.current() as sources:
        plain, generous = sources.current.values()
        assert (plain.at_once, generous.at_once) == (1, 9)
        assert await generous.several(package.package.id, [(0, 0)], [5]) == (b"12345", "direct")
        with pytest.raises(NotFound):
            await generous.several(package.package.id, [(0, 0)], [6])
        with pytest.raises(TypeError):
            await plain.several(package.package.id, [(0, 0)], [5])
    assert counted.came == {("direct", "gpu-1"): 5}
    assert failures == [("gpu-1", "not_found")]


async def test_blocks_that_are_poured_are_counted_as_they_are_kept(tmp_path) -> None:
    package = packed(tmp_path)

    class Full(LocalSource):
        way = "s3"

        def run(self, file):
            return 3

        async def pour(self, package, file, first, sizes, keep):
            for number, size in enumerate(sizes):
                keep(number, b"x" * size)
            if len(sizes) > 1:
                raise NotFound(message="no more of them")

    failures, kept = [], []

    def keep(number, content):
        kept.append((number, len(content)))
        return True

    theirs = Sources(LocalSource(package), Full(package, name="bucket"))
    counted = CountedSources(theirs)
    counted.on_failure = lambda source, error: failures.append((source.name, error.code))
    with counted.current() as sources:
        plain, full = sources.current.values()
        assert (plain.run(0), full.run(0)) == (0, 3)
        assert (plain.way, full.way) == ("webrtc", "s3")
        await full.pour(package.package.id, 0, 0, [5], keep)
        with pytest.raises(NotFound):
            await full.pour(package.package.id, 0, 0, [7, 2], keep)
        with pytest.raises(TypeError):
            await plain.pour(package.package.id, 0, 0, [5], keep)
    assert counted.came == {("s3", "bucket"): 14}
    # The first came twice; the third, before which the source ended, would be the first time.
    assert counted.again == 1
    assert kept == [(0, 5), (0, 7), (1, 2)]
    assert failures == [("bucket", "not_found")]
