from __future__ import annotations

from pathlib import Path

from sleap_rtc.files.packing import pack
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.local import LocalSource


def test_sources_come_and_go_under_new_ids(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    packed = pack({"x": tmp_path / "x"})
    one, other = LocalSource(packed), LocalSource(packed)
    sources = Sources(one)
    told: list[int] = []
    with sources.watch(lambda: told.append(len(sources.current))):
        sources.add(other)
        sources.remove(one)
        sources.remove(one)
        sources.add(one)
    sources.add(one)
    assert told == [2, 1, 2]
    assert list(sources.current.values()) == [other, one, one]
    assert list(sources.current) == [2, 3, 4]
    sources.remove(one)
    assert list(sources.current.values()) == [other]
    for source in (one, other):
        source.close()
