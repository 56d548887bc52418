"""Measures how files are moved, by us and by others: ``python -m bench.transfer``.

Three things are moved, each in every way that the table `bench.ways.ROWS` has for it: one file,
in several rounds; a folder of small files, once; and by us alone a large file, which takes no
more memory. What is compared takes turns within each round, so that other work on the machine
troubles all alike. What can't be had here is left out, and the report says why.

The programs to compare with are installed first (see `bench.environments`). Then all of it runs
in a network namespace: nothing leaves this machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from bench import copying, environments
from bench.copying import Load
from bench.keeping import beginning, keep
from bench.pairs import enter_namespace
from bench.processes import Missing, sync_file_system
from bench.report import show_transfer
from bench.stores import Store
from bench.ways import GROUPS, ROWS, Row, chosen
from bench.wire import MB
from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.testing import netns

Say = Callable[[str], None]

SMALL: Final = 20_000
"""Bytes of a small file."""
STORED_PART: Final = 5
"""Stores get this part of the small files: each is a request or more, and takes as long as the
next."""
QUICK: Final = {"size": 100, "large": 0, "small": 500, "rounds": 1}
_TEMPLATE: Final = 16 * BLOCK


def made_file(path: Path, size: int) -> Path:
    """A file of random bytes, no two blocks of which are the same."""
    template = bytearray(os.urandom(min(_TEMPLATE, size)))
    with path.open("wb", buffering=0) as file:
        for at in range(0, size, _TEMPLATE):
            # As random as new bytes to whoever compares blocks, and twenty times as quick to make.
            for block in range(0, len(template) - 8, BLOCK):
                template[block : block + 8] = (at + block).to_bytes(8, "big")
            file.write(memoryview(template)[: size - at])
    return path


def made_folder(path: Path, count: int) -> Path:
    """A folder of ``count`` small files of random bytes."""
    path.mkdir()
    for number in range(count):
        (path / f"{number:06d}.bin").write_bytes(os.urandom(SMALL))
    return path


def measure(folder: Path, given: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Measure everything about transfers.

    Args:
        folder: Where all files are made; removed again are only those that it made.
        given: Of :func:`add_options`.
        say: Shows a line.

    Returns:
        The medians by what was measured, each with its runs, and what could not be measured.
    """
    rows = chosen(given.rows)
    table = _Table(folder, until=time.monotonic() + given.minutes * 60, say=say)
    size, large, small = given.size * MB, given.large * MB, given.small
    # The file, what arrives of it, and in a store what every client sent.
    _check_room(folder, max(3 * large, (2 + sum(row.group == "up" for row in rows)) * size))
    for count, stored in ((small, False), (small // STORED_PART, True)):
        fitting = [row for row in rows if row.small and row.stores is stored]
        if count and fitting:
            with _made(made_folder(folder / "files", count)) as path:
                table.move("small", fitting, path, count * SMALL, rounds=1)
    if large:
        with _made(made_file(folder / "large.bin", large)) as path:
            table.move("large", [row for row in rows if row.large], path, large, rounds=1)
    # Last, since there are as many rounds as there is time for.
    with _made(made_file(folder / "file.bin", size)) as path:
        table.move("file", rows, path, size, rounds=given.rounds)
    return {
        "size": size,
        "small_files": small,
        "large": large and {**table.results("large"), "size": large},
        "load": os.getloadavg()[0],
        "results": table.results("file"),
        "small": table.results("small"),
        "missing": table.missing,
        "versions": {**environments.versions(), **copying.versions()},
    }


def in_turn(rows: Sequence[Row], turn: int) -> list[Row]:
    """The rows of a round: within each group another one is first each time.

    Only our uploader comes before all that fetch what it sent.
    """
    groups = [[row for row in rows if row.group == group] for group in GROUPS]
    return [row for g in groups for row in g[turn % max(1, len(g)) :] + g[: turn % max(1, len(g))]]


class _Table:
    """The rows' figures, as they come.

    Args:
        folder: Where files are moved to.
        until: When no further round is begun, by the monotonic clock.
        say: Shows a line.
    """

    def __init__(self, folder: Path, *, until: float, say: Say) -> None:
        self.missing: dict[str, str] = {}
        self._folder, self._until, self._say = folder, until, say
        self._runs: dict[str, dict[str, list[dict[str, float]]]] = {}
        self._count = 0

    def move(self, what: str, rows: Sequence[Row], path: Path, size: int, *, rounds: int) -> None:
        """Move something in every way, several times.

        Args:
            what: Names it in the results.
            rows: The ways.
            path: The file or the folder.
            size: Its bytes.
            rounds: How often.
        """
        runs = self._runs.setdefault(what, {})
        for turn in range(rounds):
            began = time.monotonic()
            with ExitStack() as undo:
                store: Store | None = None
                for row in in_turn(rows, turn):
                    if row.name in self.missing:
                        continue
                    try:
                        if row.stores and store is None:
                            store = undo.enter_context(self._store())
                        run = self._twice(row, path, size, store)
                    except (Missing, RuntimeError, OSError) as error:
                        self.missing[row.name] = str(error)
                        self._say(f"  {row.name} can't be measured: {error}")
                    else:
                        runs.setdefault(row.name, []).append({**run, "round": turn})
                        at = f"{what} {turn + 1}/{rounds}"
                        self._say(f"  {at}  {row.name}: {run['mb_per_s']:.1f} MB/s")
            # The next one takes as long as this one did.
            if 2 * time.monotonic() - began > self._until and turn + 1 < rounds:
                self._say(f"  time is up after {turn + 1} of {rounds} rounds")
                return

    def results(self, what: str) -> dict[str, dict[str, Any]]:
        """By row: the medians, and the runs."""
        return {
            name: {
                **{each: statistics.median(run[each] for run in runs) for each in runs[0]},
                "runs": runs,
            }
            for name, runs in self._runs.get(what, {}).items()
        }

    def _twice(self, row: Row, path: Path, size: int, store: Store | None) -> dict[str, float]:
        """Some programs fail now and then, as one that takes a port that just wasn't in use."""
        try:
            return self._run(row, path, size, store)
        except (RuntimeError, OSError) as error:
            self._say(f"  {row.name} failed, and is tried again: {error}")
            return self._run(row, path, size, store)

    def _run(self, row: Row, path: Path, size: int, store: Store | None) -> dict[str, float]:
        self._count += 1
        into = self._folder / f"run-{self._count}"
        into.mkdir()
        # What the one before has written isn't this one's burden.
        sync_file_system(self._folder)
        try:
            return row.run(Load(path=path, size=size, into=into), store)
        finally:
            shutil.rmtree(into, ignore_errors=True)

    @contextmanager
    def _store(self) -> Iterator[Store]:
        self._count += 1
        place = self._folder / f"store-{self._count}"
        try:
            with Store(place) as store:
                yield store
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _check_room(folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < need * 1.1:
        gb, least = free / (1000 * MB), need * 1.1 / (1000 * MB)
        raise SystemExit(f"{folder.parent} has {gb:.1f} GB free, and {least:.1f} are needed: --dir")


@contextmanager
def _made(path: Path) -> Iterator[Path]:
    """Something that was made, and is removed again."""
    try:
        yield path
    finally:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def prepare(rows: Sequence[Row], say: Say) -> None:
    """Install what rows need; does nothing inside the namespace, where nothing is reached."""
    if netns.inside() is None:
        environments.prepare(say, sorted({row.needs for row in rows} - {""}))


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.transfer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, and once each")
    add_options(parser, "--only")
    given = parser.parse_args()
    if given.quick:  # what was said beside it counts
        parser.set_defaults(**QUICK)
        given = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        rows = chosen(given.rows)
    except ValueError as error:
        parser.error(str(error))
    prepare(rows, say)
    enter_namespace("bench.transfer")
    measured = beginning()
    with scratch(given.dir) as folder:
        measured["transfer"] = measure(folder, given, say)
    path = keep(measured)
    print(show_transfer(measured["transfer"]))
    say(f"\nkept in {path}")
    if own := [name for name in measured["transfer"]["missing"] if "ours" in name]:
        raise SystemExit(f"our own failed: {', '.join(own)}")


@contextmanager
def scratch(folder: Path | None) -> Iterator[Path]:
    """A folder for what is made, which goes away however this ends, Ctrl-C and SIGTERM included.

    Args:
        folder: Where it is made; None for where the system has temporary files.
    """

    def ended(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, ended)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix="bench-") as name:
            yield Path(name)
    except KeyboardInterrupt:
        raise SystemExit("interrupted; what was made is removed") from None
    finally:
        signal.signal(signal.SIGTERM, before)


def add_options(parser: argparse.ArgumentParser, *also: str) -> None:
    """Options of the transfer's measurement.

    Args:
        parser: They are added to it.
        also: Further names of the option that chooses rows.
    """
    parser.add_argument("--size", type=int, default=1000, help="MB of the file")
    parser.add_argument("--small", type=int, default=10_000, help="number of small files; 0: none")
    parser.add_argument("--large", type=int, default=5000, help="MB of the large one; 0: none")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument(
        "--minutes", type=float, default=18, help="begin no further round that would end later"
    )
    names = f"{', '.join(GROUPS)}; or parts of names: {'; '.join(row.name for row in ROWS)}"
    parser.add_argument(
        "--rows", *also, nargs="+", default=[], metavar="ROW", help=f"measure only these: {names}"
    )
    parser.add_argument("--dir", type=Path, help="where files are made (default: temporary)")


if __name__ == "__main__":
    main()
