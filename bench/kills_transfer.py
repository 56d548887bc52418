"""Kills one side of a transfer, again and again: ``python -m bench.kills_transfer --times 20``.

In each turn the product's two ends begin, or go on with, one transfer, until SIGKILL ends one of
them, chosen by chance, at a random instant: some before the first byte, most in the middle. The
other, which has nobody to speak to any more, is killed right after it. Then both begin again. At
the end what has arrived is compared with what was sent, byte by byte.

What a kill costs is what is sent a second time: all that was read to be sent so far, less what a
receiver that begins again still has. That should be no more than one credit window, which is
under way, and 8 MB, which were not yet on the disk.
"""

from __future__ import annotations

import argparse
import filecmp
import mmap
import random
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench.keeping import beginning, keep
from bench.ours import DESTINATION
from bench.pairs import enter_namespace, run_pair, started
from bench.transfer import made_file, scratch
from bench.wire import MB
from sleap_rtc.domain.packages import Package
from sleap_rtc.files.packing import pack
from sleap_rtc.files.partial import PartialStore, claim_partial
from sleap_rtc.transfer.events import WINDOW

WAYS: Final = ("webrtc", "direct", "local")
ALLOWED: Final = WINDOW + 8 * MB
"""Bytes that a kill may cost."""

_EARLY: Final = 0.1
"""Share of the kills that come while connections are still being made."""
_EARLY_S: Final = 1.5
_JITTER_S: Final = 0.05
_STUCK_S: Final = 120.0


def run(
    folder: Path, *, size: int, times: int, way: str, seed: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Kill processes of one transfer, and let it end.

    Args:
        folder: Empty; everything is made in it.
        size: Bytes of the file.
        times: Kills.
        way: One of `WAYS`.
        seed: Of the instants and the sides.
        say: Shows a line.

    Returns:
        Bytes sent twice by kill, in all, and how long it took.

    Raises:
        RuntimeError: It didn't end, or what has arrived isn't what was sent.
    """
    chance = random.Random(seed)
    file = made_file(folder / "file.bin", size)
    into, kept, counted = folder / "incoming", folder / "arrived", folder / "count"
    into.mkdir()
    counted.write_bytes(bytes(8))
    package = pack({file.name: file}).package
    options = {
        "size": size,
        "file": str(file),
        "into": str(into),
        "count": str(counted),
        "keep": str(kept),
        "transport": way,
    }
    twice: list[int] = []
    began = time.monotonic()
    with counted.open("rb") as opened, mmap.mmap(opened.fileno(), 8, prot=mmap.PROT_READ) as count:

        def sent() -> int:
            return int.from_bytes(count[:], "little")

        here = 0
        points = sorted(chance.randrange(size) for _ in range(times))
        for number, point in enumerate(points):
            role = chance.choice(("sender", "receiver"))
            early = chance.random() < _EARLY
            _kill_once(
                options,
                role,
                after_s=chance.uniform(0, _EARLY_S if early else _JITTER_S),
                # What it cost so far is sent on top.
                until=None if early else lambda at=point: sent() - sum(twice) >= at,
            )
            # All may have arrived before the kill came.
            here = size if kept.exists() else _here(into, package)
            twice.append(sent() - here - sum(twice))
            when = "early" if early else f"at {here / MB:.0f} MB"
            say(f"  {number + 1}/{times}  {role} killed {when}: {twice[-1] / MB:.1f} MB twice")
            if kept.exists():
                break
        if not kept.exists():
            run_pair("ours", **options)
        total = sent()
    if not filecmp.cmp(kept / file.name, file, shallow=False):
        raise RuntimeError("what has arrived isn't what was sent")
    for path in (into, kept):
        shutil.rmtree(path)
    file.unlink()
    return {
        "way": way,
        "size": size,
        "kills": len(twice),
        "seconds": time.monotonic() - began,
        "twice_bytes": twice,
        "twice_in_all": total - size,
        "allowed": ALLOWED,
    }


def _kill_once(
    options: dict[str, Any], role: str, *, after_s: float, until: Callable[[], bool] | None
) -> None:
    """Let both run until a time, kill one, and then the other.

    Args:
        options: For both.
        role: Who is killed first.
        after_s: Seconds until then, from the start or from ``until``.
        until: What has to be so before.
    """
    with started("ours", **options) as processes:
        stuck = time.monotonic() + _STUCK_S
        while until is not None and not until():
            ended = {name: p.returncode for name, p in processes.items() if p.poll() is not None}
            if ended or time.monotonic() > stuck:
                raise RuntimeError(f"the transfer doesn't go on; ended by themselves: {ended}")
            time.sleep(0.002)
        time.sleep(after_s)
        processes[role].kill()
        processes[role].wait()


def _here(into: Path, package: Package) -> int:
    """Bytes that a receiver that begins now would find, and not ask for."""
    claim = claim_partial(into, package.id, DESTINATION)
    store = PartialStore(claim, package)
    try:
        return store.here
    finally:
        store.close()


def show(measured: dict[str, Any]) -> str:
    """What was measured, as a table for people."""
    lines = [
        "| way | MB | kills | s | sent twice, MB in all | median of a kill | most | allowed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in measured.values():
        twice = [size / MB for size in each["twice_bytes"]] or [0.0]
        lines.append(
            f"| {each['way']} | {each['size'] / MB:,.0f} | {each['kills']} | {each['seconds']:.0f} "
            f"| {each['twice_in_all'] / MB:.1f} | {statistics.median(twice):.1f} "
            f"| {max(twice):.1f} | {each['allowed'] / MB:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Kill, print a table, and keep it."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.kills_transfer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", type=int, default=5000, help="MB of the file")
    parser.add_argument("--times", type=int, default=20, help="how often one side is killed")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["webrtc", "direct"])
    parser.add_argument("--seed", type=int, default=1, help="of the instants and the sides")
    parser.add_argument("--dir", type=Path, help="where files are made (default: temporary)")
    given = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    enter_namespace("bench.kills_transfer")
    measured = beginning()
    with scratch(given.dir) as folder:
        found: dict[str, Any] = {}
        for way in given.ways:
            say(f"{way}:")
            found[way] = run(
                folder, size=given.size * MB, times=given.times, way=way, seed=given.seed, say=say
            )
    measured["kills_transfer"] = found
    path = keep(measured)
    print(show(found))
    say(f"\nkept in {path}")
    if max(size for each in found.values() for size in [*each["twice_bytes"], 0]) > ALLOWED:
        raise SystemExit("a kill cost more than is allowed")


if __name__ == "__main__":
    main()
