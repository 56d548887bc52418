"""Measures registries of 100 to 100,000 models: ours, plain SQLite, MLflow's.

Each is a process of its own, and they take turns with each operation in each
round, so that other work on the machine troubles all of them alike. That they
found the same number of models is checked.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from bench import environments
from bench.pairs import ROOT

SIZES: Final = (100, 1_000, 10_000, 100_000)
MOST: Final = {"mlflow": 10_000}
"""Models up to which a registry is measured; the others up to all."""
TIMES: Final = 200
"""Calls of an operation in a round, unless they take too long."""
WITHIN_S: Final = 1.5
OPERATIONS: Final = (
    *("get", "get by alias", "list a page", "list filtered", "search a word"),
    *("search another word", "search a name"),
    *("search a prefix, newest", "search a prefix, best"),
    *("register", "list after a change", "set alias"),
)
"""In this order: those that change something come last."""


def measure(folder: Path, *, most: int, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure all operations.

    Args:
        folder: Where the registries are made.
        most: Models of the largest.
        rounds: How often each operation has its turn.
        say: Shows a line.

    Returns:
        By number of models and registry: seconds to build it; p50, p99 and number of calls for
        each operation, in milliseconds.
    """
    results: dict[str, Any] = {}
    with ExitStack() as stack:
        kinds = ["ours", "sqlite"] + (["mlflow"] if environments.there("mlflow") else [])
        subjects = {kind: stack.enter_context(_Subject.started(kind, folder)) for kind in kinds}
        for size in (size for size in SIZES if size <= most):
            able = {k: s for k, s in subjects.items() if size <= MOST.get(k, size)}
            grown = {kind: subject.ask(do="grow", to=size) for kind, subject in able.items()}
            say(f"  {size} models: {json.dumps(grown)}")
            samples = _rounds(able, rounds)
            results[str(size)] = {
                kind: {"grown": grown[kind], **{o: summary(ms) for o, ms in each.items()}}
                for kind, each in samples.items()
            }
            for line in _shown(results[str(size)]):
                say(line)
    return {"load": os.getloadavg()[0], "models": results}


def summary(ms: list[float]) -> dict[str, float]:
    """Median, 99th percentile and number of samples.

    Args:
        ms: At least one.
    """
    ordered = sorted(ms)
    last = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return {"p50_ms": statistics.median(ms), "p99_ms": last, "calls": len(ms)}


class _Subject:
    """A registry in a process of its own."""

    def __init__(self, kind: str, process: subprocess.Popen[str]) -> None:
        self._kind = kind
        self._process = process

    @classmethod
    @contextmanager
    def started(cls, kind: str, folder: Path) -> Iterator[_Subject]:
        """Start one, and end it."""
        own = Path(tempfile.mkdtemp(dir=folder, prefix=f"{kind}-"))
        python = sys.executable if kind != "mlflow" else environments.program("mlflow", "python")
        process = subprocess.Popen(
            [str(python), "-m", "bench.subject", kind, str(own)],
            cwd=ROOT,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "HOME": str(own)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / f"{kind}.log").open("w"),
            text=True,
        )
        try:
            yield cls(kind, process)
        finally:
            process.kill()
            process.communicate()

    def ask(self, **order: Any) -> Any:
        """Let it do something, and wait for what it says."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("it has no pipes")
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the registry {self._kind!r} ended with {self._process.wait()}")
        return json.loads(line)


def _rounds(subjects: dict[str, _Subject], rounds: int) -> dict[str, dict[str, list[float]]]:
    samples: dict[str, dict[str, list[float]]] = {kind: {} for kind in subjects}
    for _ in range(rounds):
        for operation in OPERATIONS:
            found: dict[str, list[int]] = {}
            for kind, subject in subjects.items():
                order = {"what": operation, "times": TIMES, "within_s": WITHIN_S}
                answer = subject.ask(do="measure", **order)
                if answer is not None:
                    samples[kind].setdefault(operation, []).extend(answer["ms"])
                    found[kind] = answer["found"]
            if len({tuple(each) for each in found.values()}) != 1:
                raise RuntimeError(f"{operation!r} found different numbers of models: {found}")
    return samples


def _shown(results: dict[str, Any]) -> Iterator[str]:
    for operation in OPERATIONS:
        each = (
            f"{kind} {known[operation]['p50_ms']:.2f} / {known[operation]['p99_ms']:.1f}"
            for kind, known in results.items()
            if operation in known
        )
        yield f"    {operation}: {', '.join(each)}"
