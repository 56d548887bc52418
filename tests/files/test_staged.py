from __future__ import annotations

from pathlib import Path

import pytest

from sleap_rtc.errors import Busy
from sleap_rtc.files.durable import place_directory
from sleap_rtc.files.packing import BlockReader, Packed
from sleap_rtc.files.partial import PartialStore, claim_partial, folder_of
from sleap_rtc.files.staged import Staged

from .conftest import MakePacked


def stage(incoming: Path, packed: Packed) -> Staged:
    store = PartialStore(claim_partial(incoming, packed.package.id, "there"), packed.package)
    reader = BlockReader(packed)
    for number in range(store.layout.count):
        file, block = store.layout.locate(number)
        assert store.write([(number, reader.read(file, block))]) == [True]
    reader.close()
    assert store.verify() == []
    return store.finish()


def test_placed_files_leave_nothing_behind(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed({"a/x": 10, "empty": 0})
    incoming = tmp_path / "incoming"
    with stage(incoming, packed) as staged:
        assert staged.package == packed.package
        with pytest.raises(Busy):
            claim_partial(incoming, packed.package.id, "there")
        place_directory(staged.path, tmp_path / "placed")
    assert (tmp_path / "placed" / "a" / "x").stat().st_size == 10
    assert (tmp_path / "placed" / "empty").stat().st_size == 0
    assert list(incoming.iterdir()) == []


def test_files_that_werent_placed_are_kept(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed({"a": 10})
    incoming = tmp_path / "incoming"
    with pytest.raises(ZeroDivisionError), stage(incoming, packed):
        raise ZeroDivisionError
    store = PartialStore(claim_partial(incoming, packed.package.id, "there"), packed.package)
    assert store.done == b"\x01"
    store.close()


def test_discarded(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed({"a": 10})
    stage(tmp_path / "incoming", packed).discard()
    assert not folder_of(tmp_path / "incoming", packed.package.id, "there").exists()


def test_discarded_within_its_block(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed({"a": 10})
    with stage(tmp_path / "incoming", packed) as staged:
        staged.discard()
    assert list((tmp_path / "incoming").iterdir()) == []
