from __future__ import annotations

from pathlib import Path

import pytest

from sleap_rtc.domain import packages
from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import NotFound, SourceChanged
from sleap_rtc.files.packing import Packed, pack
from sleap_rtc.transports.local import LocalSource


@pytest.fixture
def packed(tmp_path: Path) -> Packed:
    (tmp_path / "x").write_bytes(b"x" * (BLOCK + 1))
    return pack({"x": tmp_path / "x"})


async def test_gives_listing_and_blocks(packed: Packed) -> None:
    source = LocalSource(packed, name="here")
    ref = packages.ref(packed.package)
    assert packages.parse(await source.listing(ref), expect=ref.id) == packed.package
    assert await source.block(ref.id, 0, 0, BLOCK) == b"x" * BLOCK
    assert await source.block(ref.id, 0, 1, 1) == b"x"
    with pytest.raises(NotFound):
        await source.block(ref.id, 0, 2, 1)
    source.close()


async def test_another_package_is_not_here(packed: Packed) -> None:
    source = LocalSource(packed, name="here")
    other = packages.ref(packages.package([]))
    with pytest.raises(NotFound, match="here doesn't have"):
        await source.listing(other)
    with pytest.raises(NotFound):
        await source.block(PackageId("0" * 64), 0, 0, BLOCK)
    source.close()


async def test_a_changed_file_is_named(packed: Packed, tmp_path: Path) -> None:
    source = LocalSource(packed)
    (tmp_path / "x").write_bytes(b"y" * (BLOCK + 1))
    with pytest.raises(SourceChanged, match="x changed"):
        await source.block(packed.package.id, 0, 0, BLOCK)
    source.close()
