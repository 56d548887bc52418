"""Fetching in a process of its own: killed at any instant, and how much memory it takes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from sleap_rtc.domain import packages
from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.files.packing import pack
from sleap_rtc.files.partial import folder_of

pytestmark = pytest.mark.slow

RECEIVE = """
import asyncio, os, signal, sys
from pathlib import Path
import msgspec
from sleap_rtc.domain import packages
from sleap_rtc.files.packing import pack
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.fetch import fetch
from sleap_rtc.transports.local import LocalSource

root = Path(sys.argv[1])
source = root / "source"
packed = pack({
    path.relative_to(source).as_posix(): path for path in source.rglob("*") if path.is_file()
})
log = (root / "asked").open("a", buffering=1)
blocks, seconds = os.environ.get("ENDS_AFTER", "0 0").split()

class Counting(LocalSource):
    left = int(blocks)

    def count(self):
        # It ends the process a moment after so many blocks, whatever it is at: by processor time,
        # so that a busy machine ends none sooner or later in its work than another.
        if not self.left:
            signal.setitimer(signal.ITIMER_PROF, float(seconds))
        self.left -= 1

    async def block(self, package, file, block, size):
        log.write(f"{file} {block}\\n")
        self.count()
        return await super().block(package, file, block, size)

async def main():
    counting = Counting(packed)
    counting.count()
    with await fetch(packages.ref(packed.package), sources=Sources(counting), destination="there",
                     incoming=root / "incoming", window=4 << 20) as staged:
        staged.path.rename(root / "placed")

asyncio.run(main())
"""


FORKING = """
import os, sys, traceback

exec(sys.argv[2].partition("root =")[0])  # what is imported here needn't be in each process
for after in sys.stdin:
    os.environ["ENDS_AFTER"] = after
    pid = os.fork()
    if not pid:
        try:
            exec(sys.argv[2], {})
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print("ended", ended, flush=True)
"""


async def test_killed_at_any_instant_only_what_is_missing_is_asked_again(
    tmp_path: Path,
) -> None:
    sizes = {"a": 40 * BLOCK + 1, "b": 25 * BLOCK, "c": 0, "d": 7}
    source = tmp_path / "source"
    source.mkdir()
    for name, size in sizes.items():
        (source / name).write_bytes(random.Random(name).randbytes(size))
    packed = pack({name: source / name for name in sizes}, root=source)
    journal = folder_of(tmp_path / "incoming", packages.ref(packed.package).id, "there") / "journal"

    def here() -> int:
        """Blocks that a kill has left."""
        return journal.read_bytes().count(b" w ") if journal.exists() else 0

    chance = random.Random(11)
    log = tmp_path / "asked"
    kills = in_the_middle = 0
    asked: Counter[str] = Counter()
    forking = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FORKING, str(tmp_path), RECEIVE,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert forking.stdin is not None
    assert forking.stdout is not None
    for attempt in range(60):
        before = here()
        log.write_text("")
        seconds = chance.uniform(0.001, 0.02) if attempt < 50 else 0.0
        forking.stdin.write(b"%d %f\n" % (chance.randrange(12), seconds))
        async with asyncio.timeout(60):
            code = int((await forking.stdout.readline()).split()[1])
        if code == -signal.SIGPROF:
            kills += 1
            in_the_middle += before < here() < packed.package.block_count
        else:
            assert code == 0
        this_time = log.read_text().splitlines()
        assert len(this_time) <= packed.package.block_count - before
        asked.update(this_time)
        if (tmp_path / "placed").exists():
            break
    forking.stdin.close()
    assert await forking.wait() == 0
    assert (tmp_path / "placed").exists()  # the last kill may have come right after that
    assert kills >= in_the_middle >= 2
    # Each kill costs at most what was under way: the window, asked or not yet journalled.
    assert asked.total() <= packed.package.block_count + kills * 5
    for name in sizes:
        assert (tmp_path / "placed" / name).read_bytes() == (source / name).read_bytes()


MEASURE = """
import resource, sys
exec(sys.stdin.read())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_stays_flat(tmp_path: Path) -> None:
    peaks: list[int] = []
    for mebibytes in (32, 320):
        root = tmp_path / str(mebibytes)
        (root / "source").mkdir(parents=True)
        with (root / "source" / "large").open("wb") as file:
            file.truncate(mebibytes * BLOCK)
            for number in range(mebibytes):  # a block of zeros alone would never travel
                os.pwrite(file.fileno(), b"block %d" % number, number * BLOCK)
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(root)],
            input=RECEIVE, capture_output=True, text=True, check=True, timeout=100,
        )  # fmt: skip
        assert len((root / "asked").read_text().splitlines()) == mebibytes
        assert (root / "placed" / "large").stat().st_size == mebibytes * BLOCK
        scale = 1024 if sys.platform == "darwin" else 1
        peaks.append(int(done.stdout.split()[-1]) // scale)
    assert abs(peaks[1] - peaks[0]) < 20 * 1024, f"{peaks} KiB"


def test_many_small_files_need_memory_for_their_listing_alone(tmp_path: Path) -> None:
    """At this rate a hundred thousand of them take less than 300 MB, names and hashes included."""
    counts, peaks = (1_000, 5_000), []
    for count in counts:
        root = tmp_path / str(count)
        for number in range(count):
            path = root / "source" / f"{number % 100:02}" / f"{number}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"%06d" % number * 3)
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(root)],
            input=RECEIVE, capture_output=True, text=True, check=True, timeout=100,
        )  # fmt: skip
        for number in range(0, count, 7):
            placed = root / "placed" / f"{number % 100:02}" / f"{number}.json"
            assert placed.read_bytes() == b"%06d" % number * 3
        scale = 1024 if sys.platform == "darwin" else 1
        peaks.append(int(done.stdout.split()[-1]) // scale)
    assert (peaks[1] - peaks[0]) / (counts[1] - counts[0]) < 3, f"{peaks} KiB"
