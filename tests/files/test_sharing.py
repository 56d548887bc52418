"""File systems that share content between files: what is a clone needs no room.

On real ones, made in a file and mounted; that takes root, Linux, and the programs that make them
(packages btrfs-progs and xfsprogs).
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sleap_rtc.domain.packages import BLOCK, ref
from sleap_rtc.errors import OutOfSpace
from sleap_rtc.files.copying import room_of_copies
from sleap_rtc.files.packing import pack
from sleap_rtc.files.space import free_space
from sleap_rtc.library.importing.finding import Skipped
from sleap_rtc.library.importing.importer import Importer
from sleap_rtc.library.importing.wishes import Wishes
from sleap_rtc.library.registry import Registry
from sleap_rtc.testing import model_files
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.fetch import fetch
from sleap_rtc.transports.local import LocalSource

MAKERS = {
    "btrfs": ("mkfs.btrfs", "--quiet"),
    "xfs": ("mkfs.xfs", "-q", "-m", "reflink=1"),
}
DISK = 320_000_000

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=sorted(MAKERS))
def sharing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A disk that shares content, with a file of more than half of it: ``content``."""
    maker = MAKERS[request.param]
    if shutil.which(maker[0]) is None:
        pytest.skip(f"{maker[0]} is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    image, disk = folder / "image", folder / "disk"
    with image.open("wb") as file:
        file.truncate(DISK)
    disk.mkdir()
    subprocess.run([*maker, str(image)], check=True, capture_output=True)
    mounting = ["mount", "-o", "loop", str(image), str(disk)]
    if subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("a file system in a file can only be mounted by root")
    try:
        with (disk / "content").open("wb") as file:
            for number in range(int(free_space(disk) * 0.6) // BLOCK):
                file.write((number + 1).to_bytes(8, "big") * (BLOCK // 8))
        # That disk alone: others on this machine may have much to write.
        subprocess.run(["sync", "--file-system", str(disk)], check=True)
        assert (disk / "content").stat().st_size > free_space(disk)
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def room(sharing: Path) -> Iterator[Path]:
    """A folder on that disk, gone in the end."""
    folder = sharing / "library"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def model(room: Path) -> Path:
    """A model that there is no room for twice."""
    folder = model_files.folder(room / "theirs")
    content = room.parent / "content"
    subprocess.run(["cp", "--reflink=always", content, folder / "labels.bin"], check=True)
    return folder


def test_copies_need_room_where_they_share_nothing(tmp_path: Path, room: Path) -> None:
    content, small = room.parent / "content", tmp_path / "small"
    size = content.stat().st_size
    small.write_bytes(b"123")
    (tmp_path / "empty").touch()
    assert room_of_copies([content], room) == 0
    assert room_of_copies([content, small, tmp_path / "empty"], room) == 3
    assert room_of_copies([content], tmp_path) == size
    assert room_of_copies([content], room / "not" / "made yet") == 0
    assert list(room.iterdir()) == []


def test_a_model_is_imported_by_copy(room: Path, model: Path) -> None:
    before = free_space(room)
    with Registry(room / "models", index_dir=room / "index") as registry:
        [done] = Importer(registry, Wishes(copy=True, trust=True)).run([model])
        assert not isinstance(done, Skipped), done.error
        copied = done.entry.directory / "labels.bin"
        assert copied.stat().st_size == (model / "labels.bin").stat().st_size
        assert not copied.is_symlink()
    assert before - free_space(room) < 40_000_000


async def test_a_model_of_a_peer_on_this_disk_is_taken(room: Path, model: Path) -> None:
    packed = pack({path.name: path for path in model.iterdir()}, root=model)
    sources, near = Sources(), []
    asked: dict[str, Any] = {"sources": sources, "destination": "here"}
    asked["incoming"] = room / "incoming"
    asked["incoming"].mkdir()
    with contextlib.closing(LocalSource(packed, name="gpu-1")) as source:
        sources.add(source)
        # Whoever isn't near has to bring all of it.
        with pytest.raises(OutOfSpace):
            await fetch(ref(packed.package), **asked)
        staged = await fetch(ref(packed.package), **asked, near=model, on_near=near.append)
    with staged:
        assert sum(near) == packed.package.size
        assert (staged.path / "labels.bin").read_bytes() == (model / "labels.bin").read_bytes()
        staged.discard()
