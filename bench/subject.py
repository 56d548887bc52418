"""One registry that is measured, in a process of its own: ``python -m bench.subject KIND FOLDER``.

It is told what to do by lines of JSON and answers each with one::

    {"do": "grow", "to": 1000}                          →  {"build": 1.2, "index": 0.3}
    {"do": "measure", "what": "get", "times": 100, …}   →  {"found": 1, "ms": [0.08, …]}

Nothing but Python's own is used here, since the peers' environments run it too.
"""

from __future__ import annotations

import gc
import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

KINDS: Final = {"ours": "subject_ours", "sqlite": "subject_sqlite", "mlflow": "subject_mlflow"}

Operation = Callable[[int], Callable[[], int]]
"""Gets a number that is new each time, and makes a function of what it needs, which is measured.

That returns how many models it found, which has to be the same for all registries.
"""


class Subject(Protocol):
    """A registry with made models in it."""

    def grow(self, to: int) -> dict[str, float]:
        """Let there be so many models; seconds that its parts took."""

    def operations(self) -> dict[str, Operation]:
        """What can be measured, by name."""


def _measure(operation: Operation, first: int, times: int, within_s: float) -> Any:
    ends = time.monotonic() + within_s
    samples: list[float] = []
    found: set[int] = set()
    gc.collect()
    for number in range(first, first + times):
        act = operation(number)
        start = time.perf_counter()
        number_found = act()
        samples.append((time.perf_counter() - start) * 1000)
        found.add(number_found)
        if time.monotonic() > ends:
            break
    return {"found": sorted(found), "ms": samples}


def _serve(subject: Subject) -> None:
    operations = subject.operations()
    calls = 0
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever a library prints is no answer
    for line in sys.stdin:
        order = json.loads(line)
        answer: Any
        if order["do"] == "grow":
            answer = subject.grow(order["to"])
        elif order["what"] not in operations:
            answer = None
        else:
            answer = _measure(operations[order["what"]], calls, order["times"], order["within_s"])
            calls += order["times"]
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    _serve(importlib.import_module(f"bench.{KINDS[sys.argv[1]]}").Subject(Path(sys.argv[2])))
