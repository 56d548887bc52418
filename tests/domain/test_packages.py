from __future__ import annotations

import struct
import tracemalloc

import pytest
from blake3 import blake3
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from sleap_rtc.domain import packages
from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.packages import BLOCK, HASH, FileEntry, Package, check_path, listing_of, parse
from sleap_rtc.errors import DataError, UnsafePath

names = st.text(
    st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/\\:"), max_size=20
).map(lambda name: f"{name}x")
paths = st.lists(names, min_size=1, max_size=4).map("/".join)


def entry(path: str, size: int = 1) -> FileEntry:
    return FileEntry(path=path, size=size, hashes=b"\x01" * (packages.blocks_of(size) * HASH))


def listing(*files: tuple[bytes, int]) -> bytes:
    """A listing as a stranger may write it: nothing is checked."""
    parts = [b"SRPK\x01", struct.pack(">I", len(files))]
    for path, size in files:
        parts += [struct.pack(">H", len(path)), path, struct.pack(">Q", size)]
        parts.append(b"\x01" * (packages.blocks_of(size) * HASH))
    return b"".join(parts)


def made(entries: list[FileEntry]) -> Package | None:
    try:
        return packages.package(entries)
    except UnsafePath:
        return None


@given(st.binary(max_size=400))
@example(b"SRPK\x01\x00\x00\x00\x00")
def test_any_bytes_are_a_package_or_an_error(data: bytes) -> None:
    try:
        found = parse(data)
    except (DataError, UnsafePath):
        return
    assert listing_of(found.files) == data


@given(
    st.lists(st.tuples(st.binary(max_size=30), st.integers(0, 3 * BLOCK)), max_size=5),
    st.data(),
)
def test_a_damaged_listing_is_a_package_or_an_error(
    files: list[tuple[bytes, int]], data: st.DataObject
) -> None:
    raw = bytearray(listing(*sorted(files)))
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))]
    try:
        found = parse(bytes(raw))
    except (DataError, UnsafePath):
        return
    assert listing_of(found.files) == raw
    assert found.id == blake3(raw).hexdigest()


@given(st.lists(st.builds(entry, paths, st.integers(0, 5 * BLOCK)), max_size=8))
def test_a_package_round_trips_and_doesnt_depend_on_order(entries: list[FileEntry]) -> None:
    package = made(entries)
    if package is None:
        return
    assert parse(listing_of(package.files), expect=package.id) == package
    assert packages.package(reversed(entries)) == package
    ref = packages.ref(package)
    assert (ref.size, ref.files) == (sum(e.size for e in entries), len(entries))
    assert ref.listing == len(listing_of(package.files))
    assert package.block_count == sum(e.block_count for e in entries)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "..",
        "../x",
        "a/../../x",
        "a/./b",
        ".",
        "a//b",
        "a/",
        "a\\..\\b",
        "C:/x",
        "c:x",
        "a\x00b",
        "a\nb",
        "\x7f",
        "a\x85",
        "\x9f.ckpt",
        "a\x85b",
        "\udc80",
        "a.",
        "a /b",
        "x" * 256,
        "é" * 128,
        "/".join(["dir"] * 300),
    ],
)
def test_hostile_paths_are_refused(path: str) -> None:
    with pytest.raises(UnsafePath):
        check_path(path)
    with pytest.raises(UnsafePath):
        packages.package([entry(path)])


def test_hostile_paths_are_refused_in_a_listing() -> None:
    with pytest.raises(UnsafePath):
        parse(listing((b"../../x", 1)))
    with pytest.raises(DataError, match="UTF-8"):
        parse(listing((b"\xff", 1)))


@pytest.mark.parametrize(
    "path", ["a", "sub dir/Größe 鼠.h5", "x" * 255, ".record/1", "a..b", "-rf"]
)
def test_usual_and_unusual_paths_are_taken(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Best.ckpt", "best.ckpt"),
        ("caf\u00e9", "cafe\u0301"),
        ("stra\u00dfe", "STRASSE"),
        ("a", "a"),
        ("a", "a/b"),
        ("A", "a/b/c"),
    ],
)
def test_paths_that_cant_stand_side_by_side_are_refused(one: str, other: str) -> None:
    for pair in ([one, other], [other, one]):
        with pytest.raises(UnsafePath):
            packages.package([entry(path) for path in pair])


def test_names_that_only_begin_alike_stand_side_by_side() -> None:
    assert len(packages.package([entry("a"), entry("a.b"), entry("a-/c"), entry("a b")]).files) == 4


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "version 1"),
        (b"SRPK\x02\x00\x00\x00\x00", "version 1"),
        (listing((b"a", 1)) + b"x", "follow"),
        (listing((b"a", 1))[:-1], "middle"),
        (listing((b"b", 1), (b"a", 1)), "order"),
        (listing((b"a", 1), (b"a", 1)), "order"),
        (b"SRPK\x01" + struct.pack(">I", packages.MAX_FILES + 1), "more than"),
        (b"SRPK\x01" + struct.pack(">IH", 1, 1) + b"a" + struct.pack(">Q", 1 << 60), "claims"),
        (b"SRPK\x01" + struct.pack(">I", 5), "middle"),
        (b"SRPK\x01" + struct.pack(">IH", 1, 1000), "middle"),
    ],
)
def test_a_bad_listing_says_why(data: bytes, why: str) -> None:
    with pytest.raises(DataError, match=why):
        parse(data)


def test_another_packages_listing_is_refused() -> None:
    with pytest.raises(DataError, match="not of"):
        parse(listing((b"a", 1)), expect=PackageId("0" * 64))


def test_a_listing_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "MAX_LISTING", 20)
    with pytest.raises(DataError, match="more than"):
        parse(listing((b"a", 1)))


def test_sizes_and_hashes_must_belong_together() -> None:
    with pytest.raises(DataError, match="belong together"):
        packages.package([FileEntry(path="a", size=BLOCK + 1, hashes=b"\x00" * HASH)])


def test_blocks_of_a_file() -> None:
    found = FileEntry(path="a", size=2 * BLOCK + 5, hashes=b"a" * 32 + b"b" * 32 + b"c" * 32)
    assert [found.block_size(i) for i in range(found.block_count)] == [BLOCK, BLOCK, 5]
    assert found.block_hash(1) == b"b" * 32
    assert entry("empty", 0).block_count == 0


def test_deep_paths_cost_no_more_than_their_length() -> None:
    # 500 paths of 400 parts, 400 KB: listing each one's folders would take 80 MB.
    data = listing(*((f"{number:04}/{'d/' * 400}x".encode(), 0) for number in range(500)))
    tracemalloc.start()
    try:
        assert len(parse(data).files) == 500
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@given(st.lists(st.tuples(paths, st.integers(0, 3 * BLOCK)), max_size=5))
def test_what_is_said_of_a_package_is_possible_and_a_longer_listing_is_not(
    files: list[tuple[str, int]],
) -> None:
    package = made([entry(path, size) for path, size in files])
    if package is not None:
        said = packages.ref(package)
        assert said.is_possible
        assert not replace(said, listing=said.listing + (len(files) + 1) * 1_100).is_possible
