"""Looking for damage in a whole library: what a bad disk, a crash or a strange hand left.

===================  ===========================================  ====================
what                 how it is now                                mended by
===================  ===========================================  ====================
`unreadable`         no revision of a record can be read          repair-model
`older`              the newest revisions can't be read, and an   repair-model
                     older one stands
`newer`              a later sleap-rtc wrote it                   an update
`second-alias`       a model has two of its own; the later one    tag-model --remove
                     (the higher sequence) is its name
`alias-to-nothing`   an alias names models that aren't here       tag-model --remove
`alias-unreadable`   what an alias says can't be read             tag-model --force
`broken-links`       files that a model links to aren't there     repair-model
`files`              files of its own aren't there, or have       repair-model
                     another size
===================  ===========================================  ====================

Nothing is changed by looking, and no file is read: names and sizes tell.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from sleap_rtc.domain.ids import ModelId
from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.errors import DataError, NewerFormat
from sleap_rtc.library import layout, records
from sleap_rtc.library.aliases import Alias, rank
from sleap_rtc.library.checking import looks_like
from sleap_rtc.library.registry import Registry

Kind = Literal[
    "unreadable",
    "older",
    "newer",
    "second-alias",
    "alias-to-nothing",
    "alias-unreadable",
    "broken-links",
    "files",
]


class Finding(msgspec.Struct, frozen=True):
    """Something that isn't as it should be.

    Attributes:
        kind: What it is.
        name: A model's id, or an alias.
        why: One sentence.
        files: Number of files that it is about.
    """

    kind: Kind
    name: str
    why: str
    files: int = 0


class Examination(msgspec.Struct, frozen=True):
    """What was found.

    Attributes:
        findings: Aliases first, then models.
        models: Number of models that were looked at, deleted ones too.
        whole: Whether there was time for all.
    """

    findings: tuple[Finding, ...]
    models: int
    whole: bool


def examine(registry: Registry, *, seconds: float | None = None) -> Examination:
    """Look at every alias, at every model's record, and whether its files are there.

    Args:
        registry: The library.
        seconds: How long to go on at most; None looks at all.
    """
    half, end = math.inf, math.inf
    if seconds is not None:  # aliases may be as many as models, and leave these half of the time
        half, end = time.monotonic() + seconds / 2, time.monotonic() + seconds
    findings, whole = _aliases(registry, half)
    models = 0
    for name in layout.names(registry.models_dir):
        if time.monotonic() > end:
            whole = False
            break
        models += 1
        findings += _record(registry, name)
    return Examination(findings=tuple(findings), models=models, whole=whole)


def _aliases(registry: Registry, end: float) -> tuple[list[Finding], bool]:
    """What is to be said of aliases, and whether there was time for all."""
    findings: list[Finding] = []
    own: defaultdict[ModelId, list[Alias]] = defaultdict(list)
    whole = True
    for key, found in registry.read_aliases():
        if time.monotonic() > end:
            whole = False
            break
        if isinstance(found, DataError):
            findings.append(Finding(kind="alias-unreadable", name=key, why=found.message))
            continue
        gone = [model for model in found.models if not registry.exists(model)]
        if gone:
            why = f"{' and '.join(gone)} {'is' if len(gone) == 1 else 'are'} not here"
            findings.append(Finding(kind="alias-to-nothing", name=found.name, why=why))
        elif len(found.models) == 1:
            own[found.models[0]].append(found)
    for model, aliases in own.items():
        first, *others = sorted(aliases, key=rank, reverse=True)
        for each in others:
            why = f"model {model} is called {first.name}, which is later"
            findings.append(Finding(kind="second-alias", name=each.name, why=why))
    return findings, whole


def _record(registry: Registry, name: str) -> Iterator[Finding]:
    directory = registry.models_dir / name
    parsed = layout.parse(name)
    model = parsed[1] if parsed else name
    try:
        found = records.look(directory)
    except NewerFormat as error:
        yield Finding(kind="newer", name=model, why=error.message)
    except (DataError, OSError) as error:
        why = error.message if isinstance(error, DataError) else str(error)
        yield Finding(kind="unreadable", name=model, why=why)
    else:
        if found is not None and found.number < found.top:
            why = f"revision {found.top} can't be read; {found.number} stands"
            yield Finding(kind="older", name=model, why=why)
        if found is not None and found.value.deleted_at is None:
            yield from _files(directory, found.value)


def _files(directory: Path, record: ModelRecord) -> Iterator[Finding]:
    if record.status == "missing":  # that is known, and said wherever it is shown
        return
    lacking: dict[Kind, list[str]] = {}
    for file in record.files:
        if looks_like(directory, file) != "ok":
            kind: Kind = "files" if file.link is None else "broken-links"
            lacking.setdefault(kind, []).append(file.link or file.path)
    for kind, paths in lacking.items():
        yield Finding(kind=kind, name=record.id, why=paths[0], files=len(paths))
