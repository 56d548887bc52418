"""Kills writers of one library, again and again: ``python -m bench.kills --times 2000``.

In each turn two processes change a library, each its own models, until SIGKILL
ends each of them at a moment of its own. Then the library is opened. What a
process had said was done must be there; what it was doing must be done or not
begun; files must be whole, and the index must say what the files say.

A process is a fork of this one, so a turn takes some 50 ms. Each turn is seeded:
``--seed`` and the number that is printed on failure choose the same steps again
(not the same moments).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from blake3 import blake3
from loguru import logger
from msgspec.structs import replace

from sleap_rtc.domain.ids import recipe
from sleap_rtc.domain.models import Metrics, ModelFile, ModelRecord, Training
from sleap_rtc.library import placing
from sleap_rtc.library.entries import Entry, Query
from sleap_rtc.library.finder import Unreadable
from sleap_rtc.library.registry import Registry

WRITERS: Final = 2
LATEST_S: Final = 0.04
"""Seconds after its first step within which a process is killed."""
MOST: Final = 12
"""Models of a writer; then some are deleted first."""
NEW_INDEX: Final = 20
"""So manieth turns begin with a new index; the others with the one that kills left."""
CREATED: Final = datetime(2026, 1, 1, tzinfo=UTC)
SIZE: Final = 70_000

What = Literal["place", "register", "adopt", "note", "name", "delete", "list", "manifest"]


class Model(msgspec.Struct, frozen=True):
    """What a reader sees of a model.

    Attributes:
        notes: Its notes, which say what was done last.
        whole: Whether its files are there.
        alias: Its alias.
    """

    notes: str = ""
    whole: bool = False
    alias: str | None = None


class Step(msgspec.Struct, frozen=True, array_like=True):
    """One change of a library.

    Attributes:
        what: Which.
        name: Name of the model; never used again once it was deleted.
        value: Its new notes or alias.
    """

    what: What
    name: str = ""
    value: str = ""


Models = dict[str, Model]


def choose(chance: random.Random, models: Models, unique: str) -> Step:
    """The next step of a writer.

    Args:
        chance: Decides.
        models: Its models.
        unique: Part of a name that was never used.
    """
    if not models:
        return Step(chance.choice(("place", "register")), f"m-{unique}")
    name = chance.choice(sorted(models))
    if len(models) >= MOST:
        return Step("delete", name)
    what = chance.choice(
        ("place", "register", "adopt", "note", "note", "name", "name", "delete", "list", "manifest")
    )
    match what:
        case "place" | "register":
            return Step(what, f"m-{unique}")
        case "adopt":
            bare = sorted(name for name, model in models.items() if not model.whole)
            return Step("adopt", chance.choice(bare)) if bare else Step("note", name, unique)
        case "list" | "manifest":
            return Step(what)
    return Step(what, name, f"a-{unique}" if what == "name" else unique)


def after(models: Models, step: Step) -> Models:
    """What a reader sees after a step."""
    there = models.get(step.name, Model())
    match step.what:
        case "place":
            return models | {step.name: Model(whole=True)}
        case "register":
            return models | {step.name: Model()}
        case "adopt":
            return models | {step.name: replace(there, whole=True)}
        case "note":
            return models | {step.name: replace(there, notes=step.value)}
        case "name":
            return models | {step.name: replace(there, alias=step.value)}
        case "delete":
            return {name: model for name, model in models.items() if name != step.name}
    return models


def perform(registry: Registry, step: Step) -> None:
    """Do a step."""
    record = _record(step.name)
    match step.what:
        case "place":
            registry.place(_staged(registry, record), record)
        case "register":
            bare = replace(record, status="training", files=(), checkpoint=None)
            registry.register(bare)
        case "adopt":
            registry.adopt_files(record.id, _staged(registry, record), record)
        case "note":
            registry.update(record.id, lambda old: replace(old, notes=step.value))
        case "name":
            registry.set_alias(step.value, record.id)
        case "delete":
            registry.delete(record.id)
        case "list":
            registry.list(Query(text="m", sort="rank"))
        case "manifest":
            registry.write_manifest()


def observe(registry: Registry) -> Models:
    """Every model of a library, read from its files, and compared with its index.

    Raises:
        AssertionError: A record can't be read, a file isn't whole, an alias names something else,
            or the index says something else.
    """
    entries: dict[str, Entry] = {}
    for entry in registry.walk():
        if isinstance(entry, Unreadable):
            raise AssertionError(f"{entry.directory} can't be read: {entry.why}")  # noqa: TRY004
        record = entry.record
        placing.check_files(entry.directory, record, links=False)
        for file in record.files:
            if blake3((entry.directory / file.path).read_bytes()).hexdigest() != file.blake3:
                raise AssertionError(f"{entry.directory / file.path} is not whole")
        if entry.alias is not None and registry.get(entry.alias) != entry:
            raise AssertionError(f"{entry.alias!r} doesn't name {entry.id}")
        if record.name in entries:
            raise AssertionError(f"{record.name} is there twice")
        entries[record.name] = entry
    listed = {e.record.name: e for e in registry.list(Query(limit=1_000)).entries}
    if listed != entries:
        raise AssertionError(f"the index has {listed}, the files have {entries}")
    for alias in registry.list_aliases():
        # A deletion that was killed leaves it; whoever asks for it must find nothing.
        gone = not all(registry.exists(model) for model in alias.models)
        if gone and registry.exists(alias.name):
            raise AssertionError(f"{alias.name!r} names what was deleted")
    return {
        name: Model(notes=e.record.notes, whole=bool(e.record.files), alias=e.alias)
        for name, e in entries.items()
    }


def run(folder: Path, *, times: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Kill processes.

    Args:
        folder: Empty; the library is made in it.
        times: How many are killed.
        seed: Of the choice of steps.
        say: Shows a line, now and then.

    Returns:
        How many kills there were, and in the middle of which step; a step that was under way
        counts as done or not by what was found afterwards.

    Raises:
        AssertionError: What was found isn't what it should be; the folder shows why.
    """
    known: list[Models] = [{} for _ in range(WRITERS)]
    during: dict[str, dict[str, int]] = {}
    steps = 0
    started = time.monotonic()
    moments = random.Random(seed)
    for turn in range(-(-times // WRITERS)):
        writers = [
            _Writer(folder, turn, n, random.Random(f"{seed} {turn} {n}"), models)
            for n, models in enumerate(known)
        ]
        for said in _killed(writers, moments):
            steps += said
        if turn % NEW_INDEX == 0:
            shutil.rmtree(folder / "index", ignore_errors=True)
        with Registry(folder / "models", index_dir=folder / "index") as registry:
            found = observe(registry)
        for n, writer in enumerate(writers):
            mine = {name: model for name, model in found.items() if name.endswith(f"-{n}")}
            outcome = _outcome(writer, mine)
            if outcome is None:
                raise AssertionError(
                    f"turn {turn}, writer {n}: found {mine}; {writer.models} was there, and "
                    f"{writer.under_way} was under way"
                )
            if writer.under_way is not None:
                counts = during.setdefault(writer.under_way.what, {"done": 0, "not begun": 0})
                counts[outcome] += 1
            known[n] = mine
        if turn % 100 == 99:
            say(f"  {(turn + 1) * WRITERS} kills, {steps} steps")
    return {
        "kills": (turn + 1) * WRITERS,
        "steps": steps,
        "seconds": time.monotonic() - started,
        "during": during,
    }


class _Writer:
    """A process that changes a library until it is killed, and what it said.

    Attributes:
        models: What is there after the steps that it said were done.
        under_way: The step that it had begun.
        said: Steps that were done.
    """

    def __init__(
        self, folder: Path, turn: int, number: int, chance: random.Random, models: Models
    ) -> None:
        self.models = models
        self.under_way: Step | None = None
        self.said = 0
        self.fd, theirs = os.pipe()
        self._rest = b""
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _write(folder, theirs, (f"{turn:06d}", number), chance, models)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the parent is told
                os.write(theirs, json.dumps(["failed", repr(error)]).encode() + b"\n")
            os._exit(1)
        os.close(theirs)

    def hear(self) -> bool:
        """Take in what it said; False when it is dead and all was heard."""
        said = os.read(self.fd, 65_536)
        *lines, self._rest = (self._rest + said).split(b"\n")
        for line in lines:
            what, content = json.loads(line)
            if what == "failed":
                raise AssertionError(f"a writer failed: {content}; it was at {self.under_way}")
            if what == "begin":
                self.under_way = msgspec.convert(content, Step)
            elif self.under_way is not None:
                self.models = after(self.models, self.under_way)
                self.under_way = None
                self.said += 1
        return bool(said)

    def end(self) -> None:
        """Kill it, and hear the rest."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        while self.hear():
            pass
        os.close(self.fd)


def _killed(writers: list[_Writer], moments: random.Random) -> Iterator[int]:
    """Kill each a moment after its first step began; the number of steps that each had done."""
    for writer in writers:
        writer.hear()
    began = time.monotonic()
    due = {writer.fd: began + moments.uniform(0, LATEST_S) for writer in writers}
    alive = {writer.fd: writer for writer in writers}
    while alive:
        next_fd = min(alive, key=due.__getitem__)
        left = due[next_fd] - time.monotonic()
        if left <= 0:
            writer = alive.pop(next_fd)
            writer.end()
            yield writer.said
        else:
            for fd in select.select(list(alive), [], [], left)[0]:
                alive[fd].hear()


def _write(
    folder: Path, said: int, who: tuple[str, int], chance: random.Random, models: Models
) -> None:
    """The life of a writer, which is one of a turn."""

    def say(what: str, content: object = None) -> None:
        os.write(said, json.dumps([what, content]).encode() + b"\n")

    registry = Registry(folder / "models", index_dir=folder / "index")
    count = 0
    while True:
        count += 1
        step = choose(chance, models, f"{who[0]}-{count}-{who[1]}")
        say("begin", msgspec.to_builtins(step))
        perform(registry, step)
        say("end")
        models = after(models, step)


def _outcome(writer: _Writer, found: Models) -> str | None:
    """Whether the step that was under way was done; None when neither is true."""
    if writer.under_way is not None and found == after(writer.models, writer.under_way):
        return "done" if found != writer.models else "not begun"
    return "not begun" if found == writer.models else None


def _record(name: str) -> ModelRecord:
    made = recipe(model_type="centroid", backbone={}, run_name=name, dataset_hash="0")
    return ModelRecord(
        id=made.model_id,
        name=name,
        model_type="centroid",
        status="completed",
        source="worker-pull",
        created_at=CREATED,
        full_hash=made.full_hash,
        checkpoint="best.ckpt",
        files=tuple(
            ModelFile(path=path, size=SIZE, blake3=blake3(_content(name, path)).hexdigest())
            for path in ("best.ckpt", "more/labels.slp")
        ),
        metrics=Metrics(best_val_loss=0.1, epochs=5),
        training=Training(job=name),
    )


def _staged(registry: Registry, record: ModelRecord) -> Path:
    """A folder with a model's files, all synced, as whoever received them leaves it."""
    folder = registry.incoming / f"staged-{record.name}"
    for file in record.files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_content(record.name, file.path))
    return folder


def _content(name: str, path: str) -> bytes:
    return blake3(f"{name} {path}".encode()).digest(length=SIZE)


def main() -> None:
    """Kill, and print what happened."""
    parser = argparse.ArgumentParser(prog="python -m bench.kills", description=__doc__)
    parser.add_argument("--times", type=int, default=2_000, help="how many processes are killed")
    parser.add_argument("--seed", type=int, default=1, help="of the choice of steps")
    parser.add_argument("--dir", type=Path, help="where the library is made (default: temporary)")
    given = parser.parse_args()
    logger.remove()
    folder = Path(tempfile.mkdtemp(dir=given.dir, prefix="bench-kills-"))
    done = run(
        folder,
        times=given.times,
        seed=given.seed,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    shutil.rmtree(folder)  # after a failure it is kept
    print(json.dumps(done, indent=2))


if __name__ == "__main__":
    main()
