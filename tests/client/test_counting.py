"""What is counted is what travelled."""

from __future__ import annotations

from sleap_rtc.client.counting import CountedServed, CountedSources
from sleap_rtc.files.packing import pack
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.local import LocalSource
from sleap_rtc.transports.serving import ServedPackage


def packed(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    return pack({"file": tmp_path / "file"})


def test_what_is_given_away(tmp_path) -> None:
    served = ServedPackage(packed(tmp_path))
    counted = CountedServed(served)
    assert counted.listing == served.listing
    assert counted.read(0, 0) + counted.read(0, 0) == b"1234512345"
    assert counted.sent == 10
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
