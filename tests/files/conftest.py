from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sleap_rtc.files.packing import Packed, pack

MakePacked = Callable[[dict[str, int]], Packed]


def write(path: Path, size: int, *, seed: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(random.Random(f"{path.name}{seed}").randbytes(size))


@pytest.fixture
def make_packed(tmp_path: Path) -> MakePacked:
    """Makes files of these sizes below ``tmp_path/source`` and packs them."""

    def make(sizes: dict[str, int]) -> Packed:
        root = tmp_path / "source"
        for name, size in sizes.items():
            write(root / name, size)
        return pack({name: root / name for name in sizes}, root=root)

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of 8 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(path)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield path
    subprocess.run(["umount", str(path)], check=True)
