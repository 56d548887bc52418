from __future__ import annotations

from pathlib import Path

import pytest

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import Damaged, OutOfSpace
from sleap_rtc.files import blockmap, partial_files
from sleap_rtc.files.journal import read
from sleap_rtc.files.partial import PartialStore, claim_partial, folder_of

from .conftest import MakePacked
from .stores import SIZES, abandon, files_of, fill, open_store


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
        store._map._journal.append(record)
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
    monkeypatch.setattr(blockmap, "SYNC_BYTES", 2 * BLOCK)
    store = open_store(tmp_path / "incoming", packed)
    path = folder_of(tmp_path / "incoming", packed.package.id, "there") / "journal"
    seen: list[bytes] = []
    real = partial_files.sync_file

    def watched(fd: int) -> None:
        seen.append(path.read_bytes())
        real(fd)

    monkeypatch.setattr(partial_files, "sync_file", watched)
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
    now = blockmap.SYNC_SECONDS
    fill(store, packed, [1])
    journal = folder_of(tmp_path / "incoming", packed.package.id, "there") / "journal"
    assert read(journal.read_bytes())[0] == [b"w 0", b"w 1", b"s 2"]
    store.close()


def test_what_the_disk_did_not_take_is_missing_again(
    make_packed: MakePacked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = make_packed({"a": 3 * BLOCK})
    store = open_store(tmp_path / "incoming", packed)
    fill(store, packed, [0])
    store.sync()
    fill(store, packed, [1])

    def broken(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(partial_files, "sync_file", broken)
        with pytest.raises(OSError, match="Input/output"):
            store.sync()
    assert store.done == b"\x01\x00\x00"
    store.close()  # the system tells of a failed write once: this sync finds nothing wrong
    store = open_store(tmp_path / "incoming", packed)
    assert store.done == b"\x01\x00\x00"
    fill(store, packed, [1, 2])
    assert store.verify() == []
    store.finish().release()


def test_a_journal_that_cannot_be_written_is_made_up_for(
    make_packed: MakePacked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = make_packed({"a": BLOCK})
    store = open_store(tmp_path / "incoming", packed)
    fill(store, packed)

    def full(*_records: bytes) -> None:
        raise OutOfSpace(path="there", free="nothing", need="more")

    with monkeypatch.context() as patch:
        patch.setattr(store._map._journal, "append", full)
        with pytest.raises(OutOfSpace):
            store.sync()
    journal = folder_of(tmp_path / "incoming", packed.package.id, "there") / "journal"
    assert read(journal.read_bytes())[0] == [b"w 0"]
    store.sync()
    assert read(journal.read_bytes())[0] == [b"w 0", b"s 1"]
    store.close()
