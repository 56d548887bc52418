from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from blake3 import blake3

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import NotFound, PathNotPermitted, SourceChanged, UnsafePath
from sleap_rtc.files.hashcache import SMALLEST, HashCache
from sleap_rtc.files.packing import BlockReader, Packed, pack

from .conftest import MakePacked, write


def content(packed: Packed) -> dict[str, bytes]:
    reader = BlockReader(packed)
    found = {
        entry.path: b"".join(reader.read(file, block) for block in range(entry.block_count))
        for file, entry in enumerate(packed.package.files)
    }
    reader.close()
    return found


def test_a_package_reads_as_its_files(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed({"b/x": 2 * BLOCK + 3, "a": 10, "empty": 0})
    read = content(packed)
    assert list(read) == ["a", "b/x", "empty"]
    for name, data in read.items():
        assert data == (tmp_path / "source" / name).read_bytes()
        assert packed.file_hashes[name] == blake3(data).hexdigest()


def test_the_same_content_is_the_same_package(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write(tmp_path / folder / "x", 5)
    packages = {pack({"m/x": tmp_path / folder / "x"}).package.id for folder in ("one", "two")}
    assert len(packages) == 1


def test_progress_counts_up_to_all(make_packed: MakePacked, tmp_path: Path) -> None:
    make_packed({"a": 5 * BLOCK, "b": 7})
    told: list[tuple[int, int]] = []
    root = tmp_path / "source"
    pack(
        {"a": root / "a", "b": root / "b"},
        root=root,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (5 * BLOCK + 7, 5 * BLOCK + 7)
    assert told == sorted(told)


def test_a_cached_file_isnt_read_again(tmp_path: Path) -> None:
    write(tmp_path / "x", SMALLEST)
    os.utime(tmp_path / "x", ns=(1, 1))
    later = (tmp_path / "x").stat().st_ctime_ns + 10**10
    cache = HashCache(tmp_path / "cache", now_ns=lambda: later)
    first = pack({"x": tmp_path / "x"}, cache=cache)
    told: list[int] = []
    second = pack({"x": tmp_path / "x"}, cache=cache, progress=lambda done, _: told.append(done))
    assert second == first
    assert told == [SMALLEST]  # at once, not in pieces


def test_a_link_inside_the_root_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "secret", 5)
    root = tmp_path / "root"
    (root / "model").mkdir(parents=True)
    (root / "model" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafePath, match="link"):
        pack({"x": root / "model" / "link"}, root=root)


def test_a_link_that_the_user_names_is_followed(tmp_path: Path) -> None:
    write(tmp_path / "labels", 5)
    (tmp_path / "link").symlink_to("labels")
    packed = pack({"x": tmp_path / "link"})
    assert packed.sources[0].path == str(tmp_path / "labels")
    assert content(packed)["x"] == (tmp_path / "labels").read_bytes()


def test_a_path_out_of_the_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    write(tmp_path / "x", 1)
    with pytest.raises(UnsafePath):
        pack({"x": tmp_path / "root" / ".." / "x"}, root=tmp_path / "root")
    with pytest.raises(UnsafePath):
        pack({"../x": tmp_path / "x"})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing-here"):
        pack({"x": tmp_path / "nothing-here"})
    (tmp_path / "folder").mkdir()
    with pytest.raises(UnsafePath, match="regular"):
        pack({"x": tmp_path / "folder"})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    write(tmp_path / "x", 1)
    (tmp_path / "x").chmod(0)
    with pytest.raises(PathNotPermitted, match="x"):
        pack({"x": tmp_path / "x"})


@pytest.mark.parametrize("place", [(5, 0), (-1, 0), (0, 1), (0, -1)])
def test_a_block_that_isnt_there(make_packed: MakePacked, place: tuple[int, int]) -> None:
    reader = BlockReader(make_packed({"a": 10}))
    with pytest.raises(NotFound):
        reader.read(*place)
    reader.close()


@pytest.mark.parametrize("kept_open", [True, False])
@pytest.mark.parametrize("change", ["content", "hidden content", "replaced", "shorter", "touched"])
def test_a_changed_file_isnt_served(
    make_packed: MakePacked, tmp_path: Path, change: str, kept_open: bool
) -> None:
    packed = make_packed({"a": 2 * BLOCK})
    reader = BlockReader(packed)
    path = tmp_path / "source" / "a"
    before = path.stat()
    if kept_open:
        reader.read(0, 0)
    if change == "replaced":
        write(tmp_path / "new", 2 * BLOCK)
        (tmp_path / "new").rename(path)
        if kept_open:  # the old file is still the old file
            assert len(reader.read(0, 1)) == BLOCK
            reader.close()
            return
    elif change == "shorter":
        os.truncate(path, BLOCK)
    elif change == "touched":
        os.utime(path, ns=(1, 1))
    else:
        with path.open("r+b") as file:
            file.seek(BLOCK + 100)
            file.write(b"other")
        if change == "hidden content":
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(SourceChanged, match="a changed"):
        reader.read(0, 1)
    reader.close()


def test_a_closed_reader_reads_nothing_more(make_packed: MakePacked) -> None:
    reader = BlockReader(make_packed({"a": 1}))
    reader.close()
    with pytest.raises(NotFound, match="not given away any more"):
        reader.read(0, 0)


def test_a_vanished_file_is_named(make_packed: MakePacked, tmp_path: Path) -> None:
    reader = BlockReader(make_packed({"a": 1}))
    (tmp_path / "source" / "a").unlink()
    with pytest.raises(NotFound, match="a does not exist"):
        reader.read(0, 0)
    (tmp_path / "source" / "a").symlink_to("/etc/passwd")
    with pytest.raises(UnsafePath):
        reader.read(0, 0)
    reader.close()


def test_a_hard_link_is_no_change(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed({"a": 1})
    (tmp_path / "again").hardlink_to(tmp_path / "source" / "a")
    assert content(packed)["a"]


def test_threads_read_at_once(make_packed: MakePacked) -> None:
    packed = make_packed({f"{number:02}": BLOCK + number for number in range(40)})
    reader = BlockReader(packed)
    places = [(file, block) for file in range(1, 40) for block in range(2)] * 2
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(lambda place: len(reader.read(*place)), places))
    reader.close()
    assert sizes == [packed.package.files[f].block_size(b) for f, b in places]
