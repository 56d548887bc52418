"""What is known of a candidate before anything is written: files read, nothing run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec
from loguru import logger

from sleap_rtc.domain import values
from sleap_rtc.domain.models import Metrics, ModelRecord, may_run
from sleap_rtc.domain.packages import check_path
from sleap_rtc.errors import DataError, FilesMissing, NotTrusted, UnsafePath
from sleap_rtc.library import chain
from sleap_rtc.library.importing import sets
from sleap_rtc.library.importing.finding import Candidate
from sleap_rtc.library.inspection import logs, profiles
from sleap_rtc.library.inspection.formats import Looked, look
from sleap_rtc.library.layout import COPY

_SHOWN: Final = 5


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a candidate.

    Attributes:
        candidate: What was looked at, without what turned out to be no part of it.
        looked: Path → what a look found, for every file that may run something.
        size: Bytes of all files.
        model_type: The head, None where nothing tells.
        profile: Its configuration, None without one that can be read.
        metrics: By its log and what was measured.
        record: What another library of ours knew of it.
        notes: What a person should know.
    """

    candidate: Candidate
    looked: Mapping[str, Looked]
    size: int
    model_type: str | None
    profile: profiles.Profile | None
    metrics: Metrics
    record: ModelRecord | None
    notes: tuple[str, ...]

    @property
    def suspicious(self) -> dict[str, str]:
        """Path → what is wrong, of every file that a person must say yes to."""
        return {
            path: looked.sentence
            for path, looked in self.looked.items()
            if looked.tier in ("unknown", "flagged")
        }

    def check_trusted(self) -> None:
        """See that no file of it needs a yes.

        Raises:
            NotTrusted: One does, with what was found.
        """
        for path, why in self.suspicious.items():
            raise NotTrusted(
                who=f"{path} in {self.candidate.path}",
                why=why,
                hint="If you know where it comes from, add --trust; that is recorded.",
            )


def examine(candidate: Candidate) -> Examined:
    """Look at everything in a candidate.

    Raises:
        FilesMissing: A file of a set isn't there; the names are told.
        Damaged: A file of weights was cut, or contradicts itself.
        DataError: None of its files holds weights.
        OSError: A file can't be read.
    """
    _check_sets(candidate)
    looked: dict[str, Looked] = {}
    left_out: set[str] = set()
    notes = list(candidate.notes)
    data: set[str] = set()
    for path in candidate.weights:
        looked[path] = _look(candidate, path)
        data |= _check_beside(candidate, path, looked[path])
    for path in candidate.files:
        if path in data:
            found = looked.get(path) or _look(candidate, path)
            # Bytes of tensors, and nothing else, unless they are something of their own.
            plain = Looked(format="unknown", tier="safe", weights=False)
            looked[path] = plain if found.format == "unknown" else found
        elif path not in looked and may_run(path):
            # What isn't weights needn't come along: metrics that are a pickle, for example.
            try:
                found = _look(candidate, path)
            except DataError as error:
                found = Looked(format="unknown", tier="unknown", found=(error.message,))
            if found.tier == "safe":
                looked[path] = found
            else:
                notes.append(f"{path} is left out ({found.sentence or 'it is a pickle'})")
                left_out.add(path)
    weights = tuple(path for path in candidate.weights if looked[path].weights)
    if not weights:
        raise DataError(
            what=str(candidate.path), why="none of its files holds the weights of a model"
        )
    files = {path: real for path, real in candidate.files.items() if path not in left_out}
    kept = msgspec.structs.replace(candidate, files=files, weights=weights)
    profile, problems = profiles.find(files)
    record = _record_of(candidate)
    metrics = logs.metrics_of(files)
    epoch = looked[weights[0]].epoch
    if metrics.epochs is None and epoch is not None:
        metrics = msgspec.structs.replace(metrics, epochs=epoch + 1)
    told = profile.model_type if profile is not None else None
    return Examined(
        candidate=kept,
        looked=looked,
        size=sum(real.stat().st_size for real in files.values()),
        model_type=record.model_type if record is not None else told,
        profile=profile,
        metrics=metrics,
        record=record,
        notes=(*notes, *problems),
    )


def _look(candidate: Candidate, path: str) -> Looked:
    """Look into a file that may run something.

    Raises:
        DataError: It was cut, or contradicts itself.
    """
    shard = sets.shard_of(path)
    if shard is not None and ".part" in path:
        return Looked(format="unknown", tier="unknown", found=("it is a part of a file",))
    # The name that counts is the one in the model: a link may lead to one without an ending.
    return look(candidate.files[path], name=path)


def _check_sets(candidate: Candidate) -> None:
    """See that no file of a set is missing.

    Raises:
        FilesMissing: With the names.
    """
    lacking = set(sets.missing(candidate.weights))
    for path, real in candidate.files.items():
        if path.endswith(sets.INDEX) and real.stat().st_size <= sets.MAX_INDEX:
            folder = path.rpartition("/")[0]
            for name in sets.named_by(real.read_bytes()):
                inside = f"{folder}/{name}" if folder else name
                if inside not in candidate.files:
                    lacking.add(inside)
    if lacking:
        raise _missing(candidate, sorted(lacking))


def _check_beside(candidate: Candidate, path: str, found: Looked) -> set[str]:
    """See that the files are there in which an ONNX file keeps its weights.

    Returns:
        Their paths.

    Raises:
        FilesMissing: One isn't.
        UnsafePath: It names one outside the model.
    """
    folder = path.rpartition("/")[0]
    named = set()
    for name in found.beside:
        try:
            check_path(name)
        except UnsafePath:
            why = f"{path} would read it, and it is not beside it"
            raise UnsafePath(path=name[:120], why=why) from None
        named.add(f"{folder}/{name}" if folder else name)
    lacking = named - candidate.files.keys()
    if lacking:
        raise _missing(candidate, sorted(lacking))
    return named


def _missing(candidate: Candidate, names: list[str]) -> FilesMissing:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return FilesMissing(
        name=str(candidate.path),
        files=", ".join(names[:_SHOWN]) + more,
        hint="Put them beside the others, and import it again.",
    )


def _record_of(candidate: Candidate) -> ModelRecord | None:
    """What another library of ours wrote of the model; None if it can't be true.

    What it says of the model's origin is kept. Its id must be the one that its recipe gives.
    """
    if candidate.record is None:
        return None
    try:
        if candidate.record.name == COPY:
            if candidate.record.stat().st_size > values.MAX_DOCUMENT:
                return None
            data = candidate.record.read_bytes()
            found = values.decode(ModelRecord, data, what=str(candidate.record))
        else:
            revision = chain.read(candidate.record, ModelRecord)
            if revision is None:
                return None
            found = revision.value
    except (DataError, OSError) as error:
        logger.bind(path=str(candidate.record), why=str(error)).debug("a record is not used")
        return None
    if found.canonical is not None:
        digest = hashlib.sha256(found.canonical.encode()).hexdigest()
        if digest != found.full_hash or found.id.partition("-")[0] != digest[:8]:
            return None
    return found
