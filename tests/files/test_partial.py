from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import Busy, Damaged, OutOfSpace, UnsafePath
from sleap_rtc.files import partial, room, space
from sleap_rtc.files.journal import read
from sleap_rtc.files.packing import BlockReader, Packed
from sleap_rtc.files.partial import SMALL, PartialStore, claim_partial, folder_of

from .conftest import MakePacked

SIZES = {"a/x.bin": 3 * BLOCK + 5, "a/y": 1, "empty": 0, "z/deep/er/z": 2 * BLOCK}


def open_store(incoming: Path, packed: Packed) -> PartialStore:
    claim = claim_partial(incoming, packed.package.id, "there")
    try:
        return PartialStore(claim, packed.package, clock=lambda: 0.0)
    except BaseException:
        claim.release()
        raise


def fill(store: PartialStore, packed: Packed, numbers: Iterable[int] | None = None) -> None:
    reader = BlockReader(packed)
    for number in range(store.layout.count) if numbers is None else numbers:
        assert store.write([(number, reader.read(*store.layout.locate(number)))]) == [True]
    reader.close()


def abandon(store: PartialStore) -> None:
    """What a kill leaves: nothing is synced, nothing is said."""
    store._close_files()
    store._claim.release()


def files_of(store: PartialStore) -> Path:
    return store._path


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


def test_closed_and_taken_up(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed(SIZES)
    store = open_store(tmp_path / "incoming", packed)
    fill(store, packed, [0, 3, 4])
    store.close()
    store = open_store(tmp_path / "incoming", packed)
    assert [number for number, here in enumerate(store.done) if here] == [0, 3, 4]
    fill(store, packed, [1, 2, 5, 6])
    assert store.verify() == []
    store.finish().release()


def test_synced_blocks_arent_hashed_again_and_others_are(
    make_packed: MakePacked, tmp_path: Path
) -> None:
    packed = make_packed({"a": 4 * BLOCK})
    store = open_store(tmp_path / "incoming", packed)
    fill(store, packed, [0, 1])
    store.sync()
    fill(store, packed, [2, 3])
    # A power cut that kept the journal and lost what was never synced, and some that was.
    with (files_of(store) / "a").open("r+b") as file:
        file.seek(BLOCK)
        file.write(bytes(2 * BLOCK))
    abandon(store)
    store = open_store(tmp_path / "incoming", packed)
    assert store.done == b"\x01\x01\x00\x01"
    fill(store, packed, [2])
    assert store.verify() == [1]
    assert store.done == b"\x01\x00\x01\x01"
    with pytest.raises(Damaged):
        store.finish()
    abandon(store)
    store = open_store(tmp_path / "incoming", packed)
    assert store.done == b"\x01\x00\x01\x01"
    fill(store, packed, [1])
    assert store.verify() == []
    store.finish().release()


def test_what_a_power_cut_took_stays_missing_after_the_next_sync(
    make_packed: MakePacked, tmp_path: Path
) -> None:
    packed = make_packed({"a": 3 * BLOCK})
    store = open_store(tmp_path / "incoming", packed)
    fill(store, packed, [0, 1])
    (files_of(store) / "a").write_bytes(bytes(3 * BLOCK))
    abandon(store)
    store = open_store(tmp_path / "incoming", packed)
    assert store.done == b"\x00\x00\x00"
    fill(store, packed, [1, 2])
    store.close()
    store = open_store(tmp_path / "incoming", packed)
    assert store.done == b"\x00\x01\x01"
    store.discard()


def test_a_journal_torn_at_every_byte(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed({"a": 3 * BLOCK, "b": 7})
    store = open_store(tmp_path / "incoming", packed)
    fill(store, packed, [0, 2])
    store.sync()
    fill(store, packed, [3])
    path = folder_of(tmp_path / "incoming", packed.package.id, "there") / "journal"
    abandon(store)
    whole = path.read_bytes()
    seen: set[bytes] = set()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        store = open_store(tmp_path / "incoming", packed)
        written = [int(r[2:]) for r in read(whole[:cut])[0] if r.startswith(b"w")]
        assert [number for number, here in enumerate(store.done) if here] == sorted(written)
        seen.add(bytes(store.done))
        abandon(store)
    assert seen == {b"\0\0\0\0", b"\1\0\0\0", b"\1\0\1\0", b"\1\0\1\1"}


def test_a_journal_that_says_nonsense_costs_nothing_but_time(
    make_packed: MakePacked, tmp_path: Path
) -> None:
    packed = make_packed({"a": 2 * BLOCK})
    store = open_store(tmp_path / "incoming", packed)
    for record in (b"w 99", b"w -1", b"x 7", b"q", b"", b"w 1", b"s 1000", b"w x", b"w 0"):
        store._journal.append(record)
    abandon(store)
    store = open_store(tmp_path / "incoming", packed)
    # The nonsense "s 1000" is believed, as far as it goes; the last check trusts nothing.
    assert store.verify() == [0, 1]
    fill(store, packed)
    assert store.verify() == []
    store.finish().release()


def test_data_is_synced_before_the_journal_says_so(
    make_packed: MakePacked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = make_packed({"a": 6 * BLOCK})
    monkeypatch.setattr(partial, "SYNC_BYTES", 2 * BLOCK)
    store = open_store(tmp_path / "incoming", packed)
    path = folder_of(tmp_path / "incoming", packed.package.id, "there") / "journal"
    seen: list[bytes] = []
    real = partial.sync_file

    def watched(fd: int) -> None:
        seen.append(path.read_bytes())
        real(fd)

    monkeypatch.setattr(partial, "sync_file", watched)
    fill(store, packed)
    assert [len(read(data)[0]) for data in seen] == [2, 5, 8]
    assert read(path.read_bytes())[0][2::3] == [b"s 2", b"s 4", b"s 6"]
    store.close()


def test_time_makes_a_sync_due(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed({"a": 3 * BLOCK})
    now = 0.0
    claim = claim_partial(tmp_path / "incoming", packed.package.id, "there")
    store = PartialStore(claim, packed.package, clock=lambda: now)
    fill(store, packed, [0])
    now = partial.SYNC_SECONDS
    fill(store, packed, [1])
    journal = folder_of(tmp_path / "incoming", packed.package.id, "there") / "journal"
    assert read(journal.read_bytes())[0] == [b"w 0", b"w 1", b"s 2"]
    store.close()


def test_a_failed_sync_is_made_up_for(
    make_packed: MakePacked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = make_packed({"a": BLOCK})
    store = open_store(tmp_path / "incoming", packed)
    fill(store, packed)

    def broken(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(partial, "sync_file", broken)
        with pytest.raises(OSError, match="Input/output"):
            store.sync()
    journal = folder_of(tmp_path / "incoming", packed.package.id, "there") / "journal"
    assert read(journal.read_bytes())[0] == [b"w 0"]
    store.sync()
    assert read(journal.read_bytes())[0] == [b"w 0", b"s 1"]
    store.close()


def test_threads_write_at_once(
    make_packed: MakePacked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial, "SYNC_BYTES", BLOCK)
    packed = make_packed({f"{n:02}": 2 * BLOCK + n for n in range(16)} | {"s": 5, "t": 9})
    store = open_store(tmp_path / "incoming", packed)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda number: fill(store, packed, [number]), range(store.layout.count)))
    assert store.verify() == []
    store.close()
    store = open_store(tmp_path / "incoming", packed)
    assert store.done.count(0) == 0
    store.finish().release()


def test_many_small_files_are_synced_together(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed({f"{n % 40}/{n}": n % 50 for n in range(400)})
    store = open_store(tmp_path / "incoming", packed)
    fill(store, packed)
    assert store.verify() == []
    staged = store.finish()
    assert sum(1 for path in staged.path.rglob("*") if path.is_file()) == 400
    staged.release()


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


def test_names_of_small_files_are_synced_with_them(
    make_packed: MakePacked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = make_packed({"a/b/1": 5, "2": 6})
    store = open_store(tmp_path / "incoming", packed)
    synced: list[Path] = []
    monkeypatch.setattr(partial, "sync_directory", synced.append)
    fill(store, packed)
    store.sync()
    files = files_of(store)
    assert synced == [files / "a/b", files / "a", files, files.parent, files.parent.parent]
    store.close()


def set_trap(trap: str, files: Path, outside: Path) -> None:
    """Put something else where the file ``a/x`` would be."""
    if trap == "folder link":
        (files / "a").symlink_to(outside)
    else:
        (files / "a").mkdir()
        if trap == "link":
            (files / "a" / "x").symlink_to(outside / "x")
        elif trap == "hard link":
            (files / "a" / "x").hardlink_to(outside / "x")
        else:
            os.mkfifo(files / "a" / "x")


@pytest.mark.parametrize("trap", ["link", "folder link", "hard link", "fifo"])
def test_what_stands_in_a_small_files_place_is_never_written_through(
    make_packed: MakePacked, tmp_path: Path, trap: str
) -> None:
    packed = make_packed({"a/x": 10})
    store = open_store(tmp_path / "incoming", packed)
    fill(store, packed)
    store.close()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_text("kept")
    files = files_of(store)
    shutil.rmtree(files / "a")
    set_trap(trap, files, outside)
    with pytest.raises(UnsafePath):
        open_store(tmp_path / "incoming", packed)
    assert (outside / "x").read_text() == "kept"


def test_room_for_small_files_is_held_until_they_come(
    make_packed: MakePacked, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "STEP", 4096)
    packed = make_packed({f"{n}": 100_000 for n in range(50)})
    store = open_store(small_disk / "incoming", packed)
    assert space.free_space(small_disk) < 3.2 * BLOCK
    fill(store, packed, range(20))
    assert space.free_space(small_disk) < 3.2 * BLOCK
    store.close()
    store = open_store(small_disk / "incoming", packed)
    fill(store, packed, range(20, 50))
    assert space.free_space(small_disk) > 2.5 * BLOCK
    assert store.verify() == []
    store.finish().release()
    with pytest.raises(OutOfSpace):
        open_store(small_disk / "incoming", make_packed({f"{n}": 100_000 for n in range(60)}))


def test_several_at_once_are_kept_as_far_as_the_disk_goes(
    make_packed: MakePacked, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = make_packed({f"{n:02}": 200_000 for n in range(30)})
    reader = BlockReader(packed)
    parts = [(number, reader.read(number, 0)) for number in range(30)]
    store = open_store(small_disk / "incoming", packed)
    parts[3] = 3, b"wrong"
    assert store.write(parts[:6]) == [True, True, True, False, True, True]
    store._room.drop()
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


@pytest.mark.parametrize("trap", ["link", "folder link", "hard link", "fifo"])
def test_what_isnt_ours_is_never_written_through(
    make_packed: MakePacked, tmp_path: Path, trap: str
) -> None:
    packed = make_packed({"a/x": BLOCK})
    store = open_store(tmp_path / "incoming", packed)
    store.close()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_text("kept")
    files = folder_of(tmp_path / "incoming", packed.package.id, "there") / "files"
    shutil.rmtree(files / "a")
    set_trap(trap, files, outside)
    with pytest.raises(UnsafePath):
        open_store(tmp_path / "incoming", packed)
    assert (outside / "x").read_text() == "kept"
    shutil.rmtree(files / "a") if trap != "folder link" else (files / "a").unlink()
    open_store(tmp_path / "incoming", packed).close()


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


@pytest.mark.parametrize("size", [0, BLOCK, 3 * BLOCK])
def test_a_file_of_the_wrong_length_is_mended(
    make_packed: MakePacked, tmp_path: Path, size: int
) -> None:
    packed = make_packed({"a": BLOCK + 10, "empty": 0})
    store = open_store(tmp_path / "incoming", packed)
    fill(store, packed)
    os.truncate(files_of(store) / "a", size)
    os.truncate(files_of(store) / "empty", 5)
    bad = store.verify()
    assert bad == {0: [0, 1], BLOCK: [1], 3 * BLOCK: []}[size]
    fill(store, packed, bad)
    assert store.verify() == []
    staged = store.finish()
    for name in ("a", "empty"):
        assert (staged.path / name).read_bytes() == (tmp_path / "source" / name).read_bytes()
    staged.release()


def test_discard_leaves_nothing(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed(SIZES)
    store = open_store(tmp_path / "incoming", packed)
    fill(store, packed, [0])
    store.discard()
    assert list((tmp_path / "incoming").iterdir()) == []


def test_no_room_is_said_before_the_first_byte(make_packed: MakePacked, small_disk: Path) -> None:
    packed = make_packed({"a": 9 * BLOCK})
    with pytest.raises(OutOfSpace, match=r"8\.4 MB free, and 9\.4 MB are needed"):
        open_store(small_disk / "incoming", packed)
    assert space.free_space(small_disk) > 8_000_000


def test_room_is_reserved(make_packed: MakePacked, small_disk: Path) -> None:
    packed = make_packed({"a": 5 * BLOCK})
    store = open_store(small_disk / "incoming", packed)
    assert space.free_space(small_disk) < 3.2 * BLOCK
    fill(store, packed, [0, 1])
    store.close()
    # Taken up, it needs what is missing, which is reserved already.
    store = open_store(small_disk / "incoming", packed)
    fill(store, packed, [2, 3, 4])
    assert store.verify() == []
    store.finish().release()


def test_room_that_another_takes_meanwhile_is_given_back(
    make_packed: MakePacked, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = make_packed({"a": 5 * BLOCK, "b": 5 * BLOCK})
    monkeypatch.setattr(partial, "check_space", lambda path, need: None)
    with pytest.raises(OutOfSpace):
        open_store(small_disk / "incoming", packed)
    assert space.free_space(small_disk) > 7 * BLOCK


def test_a_disk_that_runs_full_keeps_what_is_there(
    make_packed: MakePacked, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file system that can't reserve: the room is lost to somebody else's file.
    def sparse(fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    monkeypatch.setattr(partial, "reserve", sparse)
    packed = make_packed({"a": 6 * BLOCK})
    store = open_store(small_disk / "incoming", packed)
    (small_disk / "other").write_bytes(bytes(4 * BLOCK))
    with pytest.raises(OutOfSpace):
        fill(store, packed)
    here = store.done.count(1)
    assert 2 <= here <= 4
    store.close()
    with pytest.raises(OutOfSpace):
        open_store(small_disk / "incoming", packed)
    (small_disk / "other").unlink()
    store = open_store(small_disk / "incoming", packed)
    assert store.done.count(1) == here
    fill(store, packed, [n for n, done in enumerate(store.done) if not done])
    assert store.verify() == []
    store.finish().release()
