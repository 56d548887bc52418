"""All benchmarks, one after the other: ``python -m bench``, or ``make bench``.

``--only`` chooses the main job's (``transfer``, with control and start-up), those of
bad and long lines (``network``) or the library's; each of their parts can be started
alone too, and ``--quick`` is a look at all of them. The figures and goals go to
``bench/results/<time>.json``, which git ignores, and tables to standard output;
``bench/README.md`` keeps the ones worth keeping.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from loguru import logger

from bench import control, goals, library, network, startup, transfer
from bench.keeping import beginning, keep
from bench.library_report import show_library
from bench.network import show_network
from bench.pairs import enter_namespace
from bench.report import show_control, show_startup, show_transfer
from bench.transfer import scratch
from bench.ways import chosen
from bench.wire import MB

PARTS = ("transfer", "network", "library")
QUICK = {**transfer.QUICK, **network.QUICK, "models": 1_000, "file": 200, "kills": 100}
_SATURATING = 500 * MB


def main() -> None:
    """Measure everything, print it, and keep it."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="measure only these")
    parser.add_argument("--quick", action="store_true", help="small sizes, and once each")
    transfer.add_options(parser)
    network.add_options(parser)
    library.add_options(parser)
    given = parser.parse_args()
    if given.quick:  # what was said beside it counts
        parser.set_defaults(**QUICK)
        given = parser.parse_args()
    wanted = PARTS if given.only is None else (given.only,)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        rows = chosen(given.rows)
    except ValueError as error:
        parser.error(str(error))
    if "transfer" in wanted:
        transfer.prepare(rows, say)
    if "library" in wanted:
        library.prepare(say)
    enter_namespace("bench")
    measured = beginning()
    with scratch(given.dir) as folder:
        if "transfer" in wanted:
            measured |= _main_job(folder, given, say)
        if "network" in wanted:
            measured["network"] = network.measure(folder, given, say=say)
        if "library" in wanted:
            logger.remove()
            measured["library"] = library.measure(folder, given, say=say)
    measured["goals"] = _goals(measured)
    path = keep(measured)
    for show, part in (
        (show_transfer, "transfer"),
        (show_control, "control"),
        (show_startup, "startup"),
        (show_network, "network"),
        (show_library, "library"),
    ):
        if part in measured:
            print(f"\n{show(measured[part])}")
    say(f"\nkept in {path}")


def _goals(measured: dict[str, Any]) -> list[dict[str, Any]]:
    """The goals of all that was measured, and whether they are met."""
    reached = [
        goal
        for judge, part in ((goals.goals, "transfer"), (network.goals, "network"))
        if part in measured
        for goal in judge(measured[part])
    ]
    return [{**msgspec.structs.asdict(goal), "met": goal.met} for goal in reached]


def _main_job(
    folder: Path, given: argparse.Namespace, say: Callable[[str], None]
) -> dict[str, Any]:
    rounds = given.rounds
    return {
        "startup": startup.measure(folder, rounds=rounds, say=say),
        "control": control.measure(folder, size=_SATURATING, rounds=min(rounds, 3), say=say),
        "transfer": transfer.measure(folder, given, say),
    }


if __name__ == "__main__":
    main()
