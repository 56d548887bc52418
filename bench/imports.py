"""Measures the import of one large file: by link, by copy; beside cp, beside ``dvc add``.

All of them are programs, started as a person would, each with a home of its own,
so that none remembers the file. The file was just read, so the disk is only
written to. Before each start everything is synced.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from bench import environments
from bench.programs import CLIENT, QUIET, run_timed
from bench.wire import MB
from sleap_rtc.config import ENV_PREFIX
from sleap_rtc.files.hashing import hash_open
from sleap_rtc.files.space import check_space

NAME: Final = "model.safetensors"
ROOM: Final = 3
"""The file itself, a copy, and something to spare."""


def measure(folder: Path, *, size: int, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure all ways.

    Args:
        folder: Where the file is made and imported to; on one file system.
        size: Bytes of the file's weights.
        rounds: How often each has its turn.
        say: Shows a line.

    Returns:
        Seconds of each turn, and their median, by way.

    Raises:
        OutOfSpace: There isn't room for it.
    """
    check_space(folder, ROOM * size)
    file = made_weights(folder / NAME, size)
    ways: dict[str, Callable[[Path], float]] = {
        "BLAKE3 alone": lambda _: _hash(file),
        "cp + sync": lambda where: _copy(file, where),
    }
    if environments.there(CLIENT):
        ways["import-model"] = lambda where: _ours(file, where)
        ways["import-model --copy"] = lambda where: _ours(file, where, "--copy")
    if environments.there("dvc"):
        ways["dvc add, by copy"] = lambda where: _dvc(file, where, "copy")
        ways["dvc add, by symlink"] = lambda where: _dvc(file, where, "symlink")
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name, way in ways.items():
            with _place(folder) as where:
                found[name].append(way(where))
            say(f"  {turn + 1}/{rounds}  {name}: {found[name][-1]:.2f} s")
    file.unlink()
    return {
        "size": size,
        "load": os.getloadavg()[0],
        "ways": {n: {"median_s": statistics.median(each), "s": each} for n, each in found.items()},
    }


def made_weights(path: Path, size: int) -> Path:
    """A file of weights: one tensor of random bytes, behind the header that names it.

    Args:
        path: The file.
        size: Bytes of the tensor; a multiple of 4.
    """
    tensor = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    header = json.dumps({"weights": tensor}).encode("ascii")
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        left = size
        while left:
            left -= file.write(os.urandom(min(left, 16 * MB)))
    return path


@contextlib.contextmanager
def _place(folder: Path) -> Iterator[Path]:
    where = folder / "turn"
    where.mkdir()
    os.sync()
    try:
        yield where
    finally:
        shutil.rmtree(where)


def _hash(file: Path) -> float:
    start = time.perf_counter()
    with file.open("rb") as opened:
        hash_open(opened.fileno(), name=file.name)
    return time.perf_counter() - start


def _copy(file: Path, where: Path) -> float:
    script = 'cp --reflink=auto "$1" "$2" && sync "$2" "$(dirname "$2")"'
    return _run(["/bin/sh", "-c", script, "sh", str(file), str(where / NAME)], where)


def _ours(file: Path, where: Path, *more: str) -> float:
    command = [str(environments.program(CLIENT, "sleap-rtc")), "import-model", str(file)]
    return _run([*command, "--type", "centroid", "--yes", *more], where)


def _dvc(file: Path, where: Path, kind: str) -> float:
    dvc = str(environments.program("dvc", "dvc"))
    _run([dvc, "init", "--no-scm", "--quiet"], where)
    _run([dvc, "config", "cache.type", kind], where)
    (where / NAME).hardlink_to(file)
    os.sync()
    took = _run([dvc, "add", "--quiet", NAME], where)
    file.chmod(0o644)  # it protects what it links to, which is this very file
    return took


def _run(command: list[str], where: Path) -> float:
    """Run a program whose home, and all that it may keep elsewhere, is in a folder."""
    environment = {
        **os.environ,
        **QUIET,
        "HOME": str(where),
        "XDG_CACHE_HOME": str(where / ".cache"),
        "DVC_SITE_CACHE_DIR": str(where / ".site"),
        f"{ENV_PREFIX}HOME": str(where / "home"),
    }
    return run_timed(command, cwd=where, env=environment)
