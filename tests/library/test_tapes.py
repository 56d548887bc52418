"""Archives that were made to fill memory don't."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import tracemalloc
from collections.abc import Callable

import pytest
import zstandard

from sleap_rtc.library.tapes import MAX_HEADER, Tape


def tar(*members: tuple[tarfile.TarInfo, bytes], end: bytes = bytes(1024)) -> bytes:
    parts = []
    for info, content in members:
        info.size = len(content)
        parts += [info.tobuf(), content, bytes(-len(content) % 512)]
    return b"".join(parts) + end


def named(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    return info


def pax(count: int, first: int = 0) -> bytes:
    """So many values, as a pax header has them."""
    return b"".join(b"22 key%07d=%s\n" % (n, b"v" * 7) for n in range(first, first + count))


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress]
)
def test_members_are_met_in_order_and_read(pack: Callable[[bytes], bytes]) -> None:
    data = tar(
        (named("a"), b"x" * 2_000_000), (named("d/", tarfile.DIRTYPE), b""), (named("b"), b"2")
    )
    passed = 0

    def count(more: int) -> None:
        nonlocal passed
        passed += more

    tape = Tape(io.BytesIO(pack(data)), passed=count)
    met = []
    for member in tape.members():
        content = tape.content(member).read() if member.name == "b" else b""
        met.append((member.name, content))
    tape.finish()
    assert met == [("a", b""), ("d", b""), ("b", b"2")]
    assert passed == len(data)


def test_a_header_as_large_as_memory_is_not_read() -> None:
    info = named("x", b"x")
    info.size = 1 << 30
    data = gzip.compress(info.tobuf() + bytes(64 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="too large"):
            list(Tape(io.BytesIO(data)).members())
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_many_headers_of_one_member_are_counted_together() -> None:
    one = pax(20_000)
    assert len(one) < MAX_HEADER // 2
    data = tar(*((named("x", b"x"), one) for _ in range(3)), (named("a"), b""))
    with pytest.raises(ValueError, match="too large"):
        list(Tape(io.BytesIO(data)).members())


def test_what_holds_for_all_members_is_little() -> None:
    few = tar((named("g", b"g"), pax(3)), (named("a"), b""))
    assert [member.name for member in Tape(io.BytesIO(few)).members()] == ["a"]
    parts = []
    for n in range(6):
        parts += [(named("g", b"g"), pax(20, 20 * n)), (named("a"), b"")]
    with pytest.raises(ValueError, match="too much"):
        list(Tape(io.BytesIO(tar(*parts))).members())


def test_nothing_is_remembered_of_many_members() -> None:
    data = tar(*((named(f"d{n}/", tarfile.DIRTYPE), b"") for n in range(3_000)))
    file = io.BytesIO(gzip.compress(data))
    tracemalloc.start()
    try:
        assert sum(1 for _ in Tape(file).members()) == 3_000
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
