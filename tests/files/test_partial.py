from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import Busy, Damaged, OutOfSpace, UnsafePath
from sleap_rtc.files import blockmap, partial
from sleap_rtc.files.packing import BlockReader
from sleap_rtc.files.partial import claim_partial, folder_of
from sleap_rtc.files.partial_files import SMALL

from .conftest import MakePacked
from .stores import SIZES, abandon, files_of, fill, open_store


def test_blocks_in_any_order_become_the_files(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed(SIZES)
    store = open_store(tmp_path / "incoming", packed)
    numbers = list(range(store.layout.count))
    random.Random(4).shuffle(numbers)
    fill(store, packed, numbers)
    told: list[int] = []
    assert store.verify(progress=told.append) == []
    assert sum(told) == sum(SIZES.values())
    staged = store.finish()
    for name in SIZES:
        assert (staged.path / name).read_bytes() == (tmp_path / "source" / name).read_bytes()
    staged.release()


def test_a_wrong_block_is_not_written(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed({"a": BLOCK})
    store = open_store(tmp_path / "incoming", packed)
    right = BlockReader(packed).read(0, 0)
    for wrong in (b"", right[:-1], right + b"x", b"\x00" + right[1:]):
        assert store.write([(0, wrong)]) == [False]
    assert store.done == b"\x00"
    with pytest.raises(Damaged, match="1 blocks are missing"):
        store.finish()
    assert (files_of(store) / "a").read_bytes() == bytes(BLOCK)
    assert store.write([(0, right)]) == [True]
    store.close()


def test_threads_write_at_once(
    make_packed: MakePacked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blockmap, "SYNC_BYTES", BLOCK)
    packed = make_packed({f"{n:02}": 2 * BLOCK + n for n in range(16)} | {"s": 5, "t": 9})
    store = open_store(tmp_path / "incoming", packed)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda number: fill(store, packed, [number]), range(store.layout.count)))
    assert store.verify() == []
    store.close()
    store = open_store(tmp_path / "incoming", packed)
    assert store.done.count(0) == 0
    store.finish().release()


def test_small_files_are_made_when_they_come(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed({"a/1": 5, "a/2": SMALL, "b/c/3": 7, "empty": 0, "large": SMALL + 1})
    store = open_store(tmp_path / "incoming", packed)
    there = {path.name for path in files_of(store).rglob("*") if path.is_file()}
    assert there == {"empty", "large"}
    fill(store, packed, [0, 2])
    abandon(store)
    # A kill loses nothing of them; what a power cut may lose is fetched again.
    (files_of(store) / "a/1").write_bytes(b"")
    store = open_store(tmp_path / "incoming", packed)
    assert store.done == b"\x00\x00\x01\x00"
    fill(store, packed, [0, 1])
    store.sync()
    (files_of(store) / "a/2").unlink()
    abandon(store)
    store = open_store(tmp_path / "incoming", packed)
    assert store.done == b"\x01\x00\x01\x00"
    fill(store, packed, [1, 3])
    with (files_of(store) / "a/1").open("ab") as file:
        file.write(b"more")
    (files_of(store) / "b/c/3").unlink()
    assert store.verify() == [0, 2]
    fill(store, packed, [0, 2])
    assert store.verify() == []
    staged = store.finish()
    for entry in packed.package.files:
        found = (staged.path / entry.path).read_bytes()
        assert found == (tmp_path / "source" / entry.path).read_bytes()
    staged.release()


def test_several_at_once_are_kept_as_far_as_the_disk_goes(
    make_packed: MakePacked, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = make_packed({f"{n:02}": 200_000 for n in range(30)})
    reader = BlockReader(packed)
    parts = [(number, reader.read(number, 0)) for number in range(30)]
    store = open_store(small_disk / "incoming", packed)
    parts[3] = 3, b"wrong"
    assert store.write(parts[:6]) == [True, True, True, False, True, True]
    store._reservation._room.drop()
    (small_disk / "other").write_bytes(bytes(5 * BLOCK))
    with pytest.raises(OutOfSpace):
        store.write(parts[6:])
    here = bytes(store.done)
    assert 6 < here.count(1) < 30
    abandon(store)
    (small_disk / "other").unlink()
    store = open_store(small_disk / "incoming", packed)
    assert bytes(store.done) == here
    store.discard()
    reader.close()


def test_one_process_at_a_time_for_a_destination(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed({"a": 1})
    store = open_store(tmp_path / "incoming", packed)
    with pytest.raises(Busy, match=str(os.getpid())):
        open_store(tmp_path / "incoming", packed)
    claim_partial(tmp_path / "incoming", packed.package.id, "elsewhere").release()
    store.close()
    open_store(tmp_path / "incoming", packed).close()


def test_a_damaged_listing_is_written_anew(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed({"a": 10})
    store = open_store(tmp_path / "incoming", packed)
    fill(store, packed)
    store.close()
    listing = folder_of(tmp_path / "incoming", packed.package.id, "there") / "listing"
    listing.write_bytes(b"nonsense")
    store = open_store(tmp_path / "incoming", packed)
    assert store.done == b"\x01"
    store.close()
    claim = claim_partial(tmp_path / "incoming", packed.package.id, "there")
    assert partial.known_listing(claim, packed.package.id) == packed.package
    claim.release()


def test_a_link_in_place_of_all_files_is_refused(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed({"a": 1})
    folder = folder_of(tmp_path / "incoming", packed.package.id, "there")
    folder.mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (folder / "files").symlink_to(tmp_path / "outside")
    with pytest.raises(UnsafePath, match="link"):
        open_store(tmp_path / "incoming", packed)
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("name", ["journal", "room", "files/a"])
def test_what_cant_be_begun_leaves_nothing_open(
    make_packed: MakePacked, tmp_path: Path, name: str
) -> None:
    packed = make_packed({"a": BLOCK})
    store = open_store(tmp_path / "incoming", packed)
    path = store._claim.directory / name
    store.close()
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    before = os.listdir("/dev/fd")  # noqa: PTH208 - it holds no files
    with pytest.raises((OSError, UnsafePath)):
        open_store(tmp_path / "incoming", packed)
    assert len(os.listdir("/dev/fd")) == len(before)  # noqa: PTH208


def test_a_kill_behind_the_placing_leaves_nothing_that_counts_as_here(
    make_packed: MakePacked, tmp_path: Path
) -> None:
    packed = make_packed(SIZES)
    store = open_store(tmp_path / "incoming", packed)
    fill(store, packed)
    staged = store.finish()
    staged.path.rename(tmp_path / "placed")
    abandon(store)
    store = open_store(tmp_path / "incoming", packed)
    assert store.here == 0
    fill(store, packed)
    assert store.verify() == []
    store.discard()


def test_only_the_packages_files_are_handed_over(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed({"a/b/x": 5, "y": 0})
    store = open_store(tmp_path / "incoming", packed)
    fill(store, packed)
    files = files_of(store)
    (files / "stranger").write_text("x")
    (files / "a" / ".record").mkdir()
    (files / "a" / ".record" / "1.json").write_text("{}")
    (files / "a" / "b" / "link").symlink_to("/etc")
    (files / "dangling").symlink_to("nowhere")
    assert store.verify() == []
    staged = store.finish()
    found = {path.relative_to(staged.path).as_posix() for path in staged.path.rglob("*")}
    assert found == {"a", "a/b", "a/b/x", "y"}
    staged.release()


def test_discard_leaves_nothing(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed(SIZES)
    store = open_store(tmp_path / "incoming", packed)
    fill(store, packed, [0])
    store.discard()
    assert list((tmp_path / "incoming").iterdir()) == []
