"""Taking in what another library knew: models and names, and a list of what became of each.

What is here already stands. Nothing is overwritten, no alias is taken from a
model, and what was deleted here stays deleted unless that is asked for; each
case is named, so that a person can decide otherwise.
"""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from sleap_rtc.domain import aliases as rules
from sleap_rtc.domain.ids import ModelId
from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.errors import AliasTaken, DataError, NotFound, SleapRtcError, UsageError
from sleap_rtc.files.hashing import Progress, hash_file
from sleap_rtc.library import claiming
from sleap_rtc.library.registry import Registry

Kind = Literal["model", "alias"]
Fate = Literal["added", "renamed", "known", "deleted", "taken", "refused"]
"""What became of something: it is new here; new, under another id; here already; deleted here and
stays so; an alias that names something else here; not usable."""

MAX_OUTCOMES: Final = 100_000
"""Outcomes that are kept one by one; the rest is only counted."""

_SHOWN: Final = 200
_NAMED: Final = 500
"""Names that are given together."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of one model or alias.

    Attributes:
        kind: Which of them.
        name: Its id or name as it came.
        fate: What became of it.
        now: The model's id here, where it has one.
        why: What there is to say, as the end of a sentence; empty where nothing is.
    """

    kind: Kind
    name: str
    fate: Fate
    now: ModelId | None = None
    why: str = ""


class Report:
    """What became of everything that came.

    Attributes:
        source: Where it came from.
        counts: Number of outcomes by kind and fate.
        outcomes: The first :data:`MAX_OUTCOMES` of them.
        ids: Id as it came → id here, of every model that is here now.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.counts: Counter[tuple[Kind, Fate]] = Counter()
        self.outcomes: list[Outcome] = []
        self.ids: dict[str, ModelId] = {}

    def add(
        self, kind: Kind, name: str, fate: Fate, *, now: ModelId | None = None, why: str = ""
    ) -> None:
        """Note an outcome."""
        self.counts[kind, fate] += 1
        if now is not None and kind == "model":
            self.ids[name] = now
        if len(self.outcomes) < MAX_OUTCOMES:
            outcome = Outcome(kind=kind, name=name[:_SHOWN], fate=fate, now=now, why=why)
            self.outcomes.append(outcome)

    def count(self, kind: Kind, *fates: Fate) -> int:
        """Number of models or aliases with one of these fates."""
        return sum(self.counts[kind, fate] for fate in fates)


def take_in(
    registry: Registry,
    report: Report,
    record: ModelRecord,
    assembled: Path | None = None,
    *,
    links: bool = False,
    revive: bool = False,
) -> None:
    """Take in a model, and note what became of it.

    Args:
        registry: The library.
        report: Takes the outcome.
        record: As it was elsewhere.
        assembled: Its files, as for :meth:`Registry.take_in`; gone afterwards.
        links: Whether files may be links.
        revive: Whether it comes back if it was deleted here.

    Raises:
        OutOfSpace: The disk is full; what was taken in before stays.
        PathNotPermitted: The library can't be written to.
    """
    try:
        entry, fate = registry.take_in(record, assembled, links=links, revive=revive)
    except (DataError, NotFound) as error:
        report.add("model", record.id, "refused", why=error.message)
        return
    finally:
        if assembled is not None:
            shutil.rmtree(assembled, ignore_errors=True)
    _note(report, record, entry.record if entry else None, fate)


def mend_lineage(registry: Registry, report: Report, records: Iterable[ModelRecord]) -> None:
    """Let models that came name their relatives by the ids that these have here.

    A model whose id was another model's here came in under a new one; what was trained from it
    would otherwise name the stranger.

    Args:
        registry: The library.
        report: Knows the models' ids here.
        records: The models as they came.

    Raises:
        OutOfSpace: The disk is full; what was mended before stays.
    """
    new = {model: here for model, here in report.ids.items() if model != here}
    if not new:
        return
    for record in records:
        moved = {
            field: new[ModelId(theirs)]
            for field in ("parent", "same_recipe_as")
            if (theirs := getattr(record, field)) in new
        }
        here = report.ids.get(record.id)
        if here is None or not moved:
            continue

        def mended(
            old: ModelRecord,
            record: ModelRecord = record,
            moved: dict[str, ModelId] = moved,
        ) -> ModelRecord:
            # What somebody set here meanwhile stands.
            still = {f: n for f, n in moved.items() if getattr(old, f) == getattr(record, f)}
            return replace(old, **still)

        with contextlib.suppress(NotFound, DataError):
            registry.update(here, mended)


def name_models(
    registry: Registry, report: Report, aliases: Iterable[tuple[str, tuple[str, ...]]]
) -> None:
    """Give models the names that they had elsewhere, as far as these are free.

    Args:
        registry: The library.
        report: Knows the models' ids here, and takes the outcomes.
        aliases: Name, and the ids as they were there.

    Raises:
        OutOfSpace: The disk is full; what was named before stays.
    """
    waiting: list[tuple[str, tuple[ModelId, ...]]] = []
    for name, models in aliases:
        why = rules.fault(name)
        missing = [model for model in models if model not in report.ids]
        if why or not models or missing:
            why = why or f"it names {missing[0][:_SHOWN] if missing else 'nothing'}, not here"
            report.add("alias", name, "refused", why=why)
            continue
        waiting.append((name, tuple(report.ids[model] for model in models)))
        if len(waiting) >= _NAMED:
            _name_all(registry, report, waiting)
            waiting.clear()
    _name_all(registry, report, waiting)


def _name_all(
    registry: Registry, report: Report, wanted: Sequence[tuple[str, tuple[ModelId, ...]]]
) -> None:
    """Give plain names at once, then each of the others by itself."""
    given = registry.set_first_aliases(wanted) if wanted else ()
    for name, ids in wanted:
        if name in given:
            report.add("alias", name, "added", now=ids[0])
        else:
            _name(registry, report, name, ids)


def _name(registry: Registry, report: Report, name: str, ids: tuple[ModelId, ...]) -> None:
    now = ids[0]
    try:
        current = registry.get_alias(name)
        if current is not None and current.models == ids:
            report.add("alias", name, "known", now=now)
            return
        own = registry.get(now).alias if len(ids) == 1 else None
        if own is not None and ":" not in own:
            report.add("alias", name, "taken", now=now, why=f"the model is called {own} here")
            return
        registry.set_alias(name, *ids)
    except AliasTaken as error:
        report.add("alias", name, "taken", now=now, why=f"{error.message} {error.hint_text}")
    except (DataError, NotFound, UsageError) as error:
        report.add("alias", name, "refused", now=now, why=error.message)
    else:
        report.add("alias", name, "added", now=now)


def has_content(path: Path, file: ModelFile, *, progress: Progress | None = None) -> bool:
    """Whether a regular file has exactly a listed file's content; it is read and hashed."""
    try:
        found = path.stat(follow_symlinks=False)
        if found.st_size != file.size:
            return False
        _, hashes = hash_file(path, as_path=file.path, progress=progress)
    except (SleapRtcError, OSError, ValueError):
        return False
    return hashes.blake3 == file.blake3


def _note(
    report: Report, record: ModelRecord, here: ModelRecord | None, fate: claiming.Fate
) -> None:
    if here is None:
        report.add("model", record.id, "deleted", why="it was deleted here")
        return
    why = ""
    if fate == "renamed":
        why = f"its id is another model's here; it came in as {here.id}"
    elif fate == "known":
        fields = differences(here, record)
        why = f"it differs here, and stays so: {', '.join(fields)}" if fields else ""
    report.add("model", record.id, fate, now=here.id, why=why)


def differences(here: ModelRecord, there: ModelRecord) -> tuple[str, ...]:
    """Names of what a person gave, or training found, that differs between two records."""
    fields = ("name", "status", "metrics", "tags", "notes", "checkpoint", "files", "parent")
    return tuple(field for field in fields if _told(here, field) != _told(there, field))


def _told(record: ModelRecord, field: str) -> object:
    if field == "files":  # not whether they are links, and what was found in them
        return [(file.path, file.size, file.blake3) for file in record.files]
    return getattr(record, field)
