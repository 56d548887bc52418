"""Partial data, and what happens to it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.files.packing import BlockReader, Packed
from sleap_rtc.files.partial import PartialStore, claim_partial

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
