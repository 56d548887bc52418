"""Several real processes on one library, and real kills."""

import contextlib
import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.errors import OutOfSpace
from sleap_rtc.library.entries import Query
from sleap_rtc.library.registry import Registry

pytestmark = pytest.mark.slow

RecordOf = Callable[..., ModelRecord]

PROGRAM = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from loguru import logger
from msgspec.structs import replace
from sleap_rtc.domain.ids import recipe
from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.errors import AliasTaken, NotFound
from sleap_rtc.library.registry import Registry

logger.remove()
logger.add(sys.stderr, level="WARNING")
registry = Registry(Path(sys.argv[1]), index_dir=Path(sys.argv[2]))
me, job = sys.argv[3], sys.argv[4]

def record(name, model_type="centroid", status="training", **more):
    made = recipe(model_type=model_type, backbone={}, run_name=name, dataset_hash="0")
    return ModelRecord(
        id=made.model_id, name=name, model_type=model_type, status=status,
        source="worker-training", created_at=datetime.now(UTC), full_hash=made.full_hash, **more)

def say(text):
    print(text, flush=True)

say("ready")
sys.stdin.readline()
"""

REGISTER = """
for n in range(10):
    say(registry.register(record("shared")).id)
"""

TAG = """
for n in range(10):
    registry.update(job, lambda old: replace(old, tags=(*old.tags, f"{me}-{n}")))
"""

TAKE_ALIAS = """
try:
    registry.set_alias(("fly", "FLY", "Fly", "fLy")[int(me)], job)
    say("taken")
except AliasTaken as error:
    say(str(error))
"""

LIST = """
while (names := sorted(e.record.name for e in registry.list().entries)) != ["a", "b"]:
    say(str(names))
say("all")
"""

CHANGE_FOR_EVER = """
n = int(job)
model = registry.register(record("victim")).id if n == 0 else "fly"
if n == 0:
    registry.set_alias("fly", model)
while True:
    n += 1
    registry.update(model, lambda old: replace(old, notes=str(n), tags=(f"tag-{n}",)))
    say(n)
"""

RENAME_FOR_EVER = """
n = int(job)
model = registry.get(sys.argv[5]).id
while True:
    n += 1
    registry.set_alias(f"name-{n}", model)
    say(n)
"""

PLACE_FOR_EVER = """
n = int(job)
while True:
    n += 1
    folder = registry.incoming / f"pull-{n}"
    folder.mkdir()
    (folder / "best.ckpt").write_text("weights" * 1000)
    files = (ModelFile(path="best.ckpt", size=7000, blake3="0" * 64),)
    registry.place(folder, record(f"m{n}", status="completed", files=files))
    say(n)
"""


@pytest.fixture
def start(models: Path, tmp_path: Path) -> Any:
    """Starts processes that wait until they are told to go."""
    started: list[subprocess.Popen[str]] = []

    def begin(program: str, me: str, *job: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM + program, models, tmp_path / "index", me, *job],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def go(*processes: subprocess.Popen[str]) -> None:
    """Let processes begin together."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


def output(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    assert process.wait(60) == 0
    return lines


def test_registrations_by_several_processes_are_all_kept(start: Any, registry: Registry) -> None:
    processes = [start(REGISTER, str(n), "") for n in range(4)]
    go(*processes)
    ids = [line for process in processes for line in output(process)]
    assert len(set(ids)) == 40
    assert {entry.id for entry in registry.list(Query(limit=100)).entries} == set(ids)
    base = ids[0].partition("-")[0]
    assert set(ids) == {base, *(f"{base}-{n}" for n in range(2, 41))}


def test_updates_by_several_processes_are_all_kept(
    start: Any, registry: Registry, record_of: RecordOf
) -> None:
    model = registry.register(record_of()).id
    processes = [start(TAG, str(n), model) for n in range(4)]
    go(*processes)
    for process in processes:
        output(process)
    tags = registry.get(model).record.tags
    assert tags == tuple(sorted(f"{me}-{n}" for me in range(4) for n in range(10)))


def test_an_alias_wanted_by_several_processes_has_one_owner(
    start: Any, registry: Registry, record_of: RecordOf
) -> None:
    ids = [registry.register(record_of(str(n))).id for n in range(4)]
    processes = [start(TAKE_ALIAS, str(n), ids[n]) for n in range(4)]
    go(*processes)
    said = [output(process)[0] for process in processes]
    assert said.count("taken") == 1
    owner = ids[said.index("taken")]
    (alias,) = registry.list_aliases()
    assert alias.models == (owner,)
    assert all(owner in line for line in said if line != "taken")


def test_a_process_that_lists_sees_what_others_do(
    start: Any, registry: Registry, record_of: RecordOf
) -> None:
    watcher = start(LIST, "0", "")
    go(watcher)
    assert watcher.stdout.readline() == "[]\n"
    registry.register(record_of("a"))
    registry.register(record_of("b"))
    assert output(watcher)[-1] == "all"


# Kills


def last_said(process: subprocess.Popen[str], before: int, delay_s: float) -> int:
    """Kill a process a moment after its first words; the last number that it said whole."""
    assert process.stdout is not None
    fd = process.stdout.fileno()
    said = b""
    while b"\n" not in said:
        chunk = os.read(fd, 65_536)
        assert chunk, "it ended before it was killed"
        said += chunk
    end = time.monotonic() + delay_s
    while (left := end - time.monotonic()) > 0:
        if select.select([fd], [], [], left)[0]:
            said += os.read(fd, 65_536)
    process.kill()
    process.wait()
    while more := os.read(fd, 65_536):
        said += more
    whole = said.decode().rpartition("\n")[0].split()
    return int(whole[-1]) if whole else before


def test_kills_during_updates_leave_the_old_record_or_the_new(
    start: Any, open_registry: Callable[[], Registry]
) -> None:
    said, randomness = 0, random.Random(7)
    for _ in range(8):  # test_kills.py kills many more; here each is a program of its own
        process = start(CHANGE_FOR_EVER, "0", str(said))
        go(process)
        said = last_said(process, said, randomness.uniform(0, 0.05))
        registry = open_registry()
        record = registry.get("fly").record
        assert record.notes in (str(said), str(said + 1))
        assert record.tags == (f"tag-{record.notes}",)
        (entry,) = registry.list(Query(text=record.tags[0])).entries
        assert entry.record == record
        said = int(record.notes)


def test_kills_during_renames_leave_the_old_name_or_the_new(
    start: Any, open_registry: Callable[[], Registry], record_of: RecordOf
) -> None:
    said, randomness = 0, random.Random(8)
    model = open_registry().register(record_of()).id
    for _ in range(6):
        process = start(RENAME_FOR_EVER, "0", str(said), model)
        go(process)
        said = last_said(process, said, randomness.uniform(0, 0.05))
        registry = open_registry()
        alias = registry.get(model).alias
        assert alias in (f"name-{said}", f"name-{said + 1}")
        assert registry.get(alias).id == model
        said = int(alias.removeprefix("name-"))
    registry.set_alias("last", model)
    assert [a.name for a in registry.list_aliases()] == ["last"]


def test_kills_during_placement_leave_whole_models_or_none(
    start: Any, open_registry: Callable[[], Registry]
) -> None:
    said, randomness = 0, random.Random(9)
    for turn in range(6):
        process = start(PLACE_FOR_EVER, "0", str(1_000 * turn))
        go(process)
        said = last_said(process, said, randomness.uniform(0, 0.05))
        registry = open_registry()
        entries = registry.list(Query(limit=1_000, types=("centroid",))).entries
        names = {entry.record.name for entry in entries}
        assert f"m{said}" in names
        for entry in entries:
            assert (entry.directory / "best.ckpt").stat().st_size == 7_000
            assert registry.get(entry.id).record == entry.record
        here = {path.name for path in registry.models_dir.glob("centroid_*")}
        assert here == {entry.directory.name for entry in entries}


# A disk that is really full


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of 400 kB."""
    path = tmp_path / "small"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4_096)


def test_a_library_on_a_full_disk_keeps_what_it_has(
    small_disk: Path, tmp_path: Path, record_of: RecordOf
) -> None:
    with Registry(small_disk / "models", index_dir=tmp_path / "index") as registry:
        entry = registry.register(record_of("kept"))
        registry.set_alias("fly", entry.id)
        before = registry.get("fly")
        fill(small_disk / "filler")
        for attempt in (
            lambda: registry.register(record_of("other")),
            lambda: registry.mark_failed("fly", "no memory"),
            lambda: registry.set_alias("flea", entry.id),
        ):
            with pytest.raises(OutOfSpace, match="needed") as caught:
                attempt()
            assert str(small_disk) in caught.value.message
        assert registry.get("fly") == before
        assert registry.list().entries == (before,)
        assert not list(registry.models_dir.rglob(".tmp-*"))
        (small_disk / "filler").unlink()
        assert registry.mark_failed("fly", "no memory").record.status == "failed"
        assert registry.register(record_of("other")).id != entry.id
