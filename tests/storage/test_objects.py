"""What every store agrees on: keys, parts and their sizes, and requests that don't show secrets."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import DataError, InvalidName
from sleap_rtc.storage.objects import (
    MAX_OBJECT,
    MAX_PARTS,
    MIN_PART,
    Part,
    SignedRequest,
    StoredPart,
    Upload,
    check_key,
    check_parts,
    check_sizes,
    etag_of,
    part_size_for,
)


@given(st.integers(0, MAX_OBJECT), st.integers(1, 1 << 32))
def test_parts_are_whole_blocks_and_cover_a_file(size: int, largest: int) -> None:
    part_size = part_size_for(size, largest=largest)
    check_sizes(size, part_size)
    assert part_size % BLOCK == 0
    upload = Upload(key="a", id="u", size=size, part_size=part_size)
    assert 1 <= upload.part_count <= MAX_PARTS
    last = upload.part_count
    assert upload.offset(last) + upload.length(last) == size
    assert all(upload.length(n) == part_size for n in {1, last - 1} if 0 < n < last)


def test_parts_grow_with_the_file_up_to_what_is_set() -> None:
    assert part_size_for(0) == part_size_for(1 << 30) == 16 * BLOCK
    assert part_size_for(5 << 30) == 80 * BLOCK
    assert part_size_for(100 << 30) == 100 * BLOCK
    assert part_size_for(100 << 30, largest=100_000_000) == 96 * BLOCK
    assert part_size_for(5 << 30, largest=32 * BLOCK) == 32 * BLOCK
    assert part_size_for(MAX_OBJECT) > 500 * BLOCK


@pytest.mark.parametrize(
    ("size", "part_size"),
    [(-1, MIN_PART), (MAX_OBJECT + 1, 1 << 32), (1, MIN_PART - 1), (1, (5 << 30) + 1)],
)
def test_sizes_that_a_store_would_refuse_are_refused(size: int, part_size: int) -> None:
    with pytest.raises(DataError):
        check_sizes(size, part_size)


def test_too_many_parts_are_refused() -> None:
    check_sizes(MAX_PARTS * MIN_PART, MIN_PART)
    with pytest.raises(DataError, match="more than 10000"):
        check_sizes(MAX_PARTS * MIN_PART + 1, MIN_PART)


@pytest.mark.parametrize("key", ["a", "rooms/ab12/blobs/0f.bin", "A_b/c-d.e/_f", "x" * 200])
def test_keys_that_mean_the_same_everywhere(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/a",
        "a/",
        "a//b",
        ".",
        "a/..",
        "a/.b",
        "-a",
        "a b",
        "a?b",
        "é",
        "a%2f",
        "a\n",
        "a\\b",
        "x" * 201,
        "/".join(["x" * 100] * 6),
    ],
)
def test_other_keys_are_refused(key: str) -> None:
    with pytest.raises(InvalidName):
        check_key(key)


def test_parts_must_be_those_of_the_upload() -> None:
    upload = Upload(key="a", id="u", size=2 * MIN_PART + 1, part_size=MIN_PART)
    parts = [Part(number=n, size=upload.length(n), sha256=bytes(32)) for n in (1, 2, 3)]
    check_parts(upload, parts, every=True)
    check_parts(upload, parts[1:])
    wrong = [
        ([parts[0], parts[0]], "named twice"),
        ([Part(number=4, size=1, sha256=bytes(32))], "none with number 4"),
        ([Part(number=3, size=2, sha256=bytes(32))], "part 3 has 1 bytes, not 2"),
    ]
    for given_parts, why in wrong:
        with pytest.raises(DataError, match=why):
            check_parts(upload, given_parts)
    with pytest.raises(DataError, match="2 parts are named, and it has 3"):
        check_parts(upload, parts[:2], every=True)
    quick = msgspec.structs.replace(upload, checksum="crc32c")
    with pytest.raises(DataError, match="part 1 is named without its crc32c"):
        check_parts(quick, parts)
    named = [Part.of(quick, number, bytes(4)) for number in (1, 2, 3)]
    check_parts(quick, named)
    with pytest.raises(DataError, match="part 1 is named without the ETag"):
        check_parts(quick, named, every=True)


def test_a_part_is_there_or_another_is() -> None:
    stored = StoredPart(number=1, size=5, etag="e", sha256=bytes(32))
    old = Part(number=1, size=5, sha256=bytes(32))
    quick = Part(number=1, size=5, crc32c=bytes(4), etag="e")
    silent = msgspec.structs.replace(stored, sha256=None)
    for part in (old, msgspec.structs.replace(old, etag="e"), quick):
        assert part.is_there(stored)
        assert part.is_there(silent)
        assert not part.is_there(None)
        assert not msgspec.structs.replace(part, size=4).is_there(stored)
        assert not msgspec.structs.replace(part, etag="f").is_there(stored)
    assert not msgspec.structs.replace(old, sha256=b"1" * 32).is_there(stored)
    # A CRC32C alone tells it from no forged one.
    assert not msgspec.structs.replace(quick, etag="").is_there(stored)


@pytest.mark.parametrize(
    ("header", "etag"),
    [
        ('"abc"', "abc"),
        ('W/"abc"', "abc"),
        ("abc-2", "abc-2"),
        ("", ""),
        ('"a b"', ""),
        ('"\n"', ""),
        ("x" * 257, ""),
    ],
)
def test_an_etag_is_what_can_be_one(header: str, etag: str) -> None:
    assert etag_of(header) == etag


def test_a_signed_request_doesn_t_show_what_makes_it_valid() -> None:
    request = SignedRequest(
        method="PUT",
        url="http://127.0.0.1:1/b/key?X-Amz-Signature=secret",
        headers={"x-amz-security-token": "secret"},
        expires=datetime(2026, 1, 1, tzinfo=UTC),
    )
    assert "secret" not in repr(request)
    assert "key" not in repr(request)
    assert "127.0.0.1:1" in repr(request)
