"""What the public sleap-rtc's registries say, as records; pure functions.

Its client and its worker kept one file each::

    ~/.sleap-rtc/models/manifest.json    {"version": "1.0", "models": {id: {…}}, "aliases": {…}}
    models/.registry/manifest.json       {"version": "1.0", "models": {id: {…}}, "interrupted": […]}
    models/.registry/manifest.yaml       the same

Any field may be missing or of another type: whatever isn't as it should be is
left out, and only an entry without a type is no model. The entry itself is kept
in the record, so that nothing is lost that this version has no field for.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any, Final, cast

import msgspec
import yaml

from sleap_rtc.domain.ids import ModelId, is_model_id
from sleap_rtc.domain.models import (
    SOURCES,
    Interruption,
    Location,
    Metrics,
    ModelRecord,
    Source,
    Status,
    Training,
)
from sleap_rtc.errors import DataError

MAX_YAML: Final = 16 * 1024 * 1024
KEPT_AS: Final = "public_sleap_rtc"
"""Field of the record in which the old entry is kept."""

_MAX_KEPT: Final = 64 * 1024
_MAX_LINE: Final = 1_000
_TYPE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_HEX64: Final = re.compile(r"[0-9a-f]{64}")
_FINAL: Final = ("final_val_loss", "val_loss", "validation_loss", "final_validation_loss")
_BEST: Final = ("best_val_loss", "best_validation_loss")
_TRAIN: Final = ("final_train_loss", "train_loss")
_EPOCHS: Final = ("epochs", "epochs_completed", "total_epochs", "num_epochs")
_BEST_EPOCH: Final = ("best_epoch",)


class Old(msgspec.Struct, frozen=True):
    """An old entry.

    Attributes:
        record: As it would be with its files: their list, and a status without them, are to be
            filled in.
        alias: Its alias, as the entry itself has it.
        places: Paths at which its directory may be, the likeliest first; relative ones count from
            the library.
        checkpoint: Path of its checkpoint, as it stands there.
        renamed_from: Its id, where that can't be an id here.
    """

    record: ModelRecord
    alias: str | None
    places: tuple[str, ...]
    checkpoint: str | None
    renamed_from: str | None = None


def parse_yaml(data: bytes, *, what: str) -> dict[str, Any]:
    """Read a registry in YAML; references are refused, since they grow without bound.

    Raises:
        DataError: Too large, not YAML, or not a mapping.
    """
    if len(data) > MAX_YAML:
        raise DataError(what=what, why=f"it has more than {MAX_YAML >> 20} MiB")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        for event in yaml.parse(data, Loader=loader):
            if isinstance(event, yaml.AliasEvent):
                raise DataError(what=what, why="it has references (*), which are not read")
        plain = yaml.load(data, Loader=loader)  # noqa: S506 - one of the safe loaders
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        why = str(error).partition("\n")[0]
        raise DataError(what=what, why=f"it is not YAML ({why})") from None
    if not isinstance(plain, dict):
        raise DataError(what=what, why="it is not a registry")
    return plain


def read(name: str, entry: object, *, local: tzinfo | None, otherwise: datetime) -> Old:
    """An entry of an old registry.

    Args:
        name: Its id there.
        entry: Plain data.
        local: The time zone in which times without one are; None is this machine's.
        otherwise: When it was made, if the entry doesn't say so.

    Raises:
        DataError: It is no entry, or has no type.
    """
    if not isinstance(entry, dict):
        raise DataError(what=name, why="it is no entry")
    model_type = _text(entry, "model_type").strip().lower().replace("-", "_")
    if not _TYPE.fullmatch(model_type):
        raise DataError(what=name, why="it has no model type")
    created = _time(entry, ("created_at", "imported_at", "downloaded_at"), local) or otherwise
    status = _status(entry)
    record = ModelRecord(
        id=_id(name),
        name=(_text(entry, "run_name") or _text(entry, "alias") or name)[:_MAX_LINE],
        model_type=model_type,
        status=status,
        source=_source(entry),
        created_at=created,
        full_hash=_hex(entry, "full_hash"),
        completed_at=_time(entry, ("completed_at",), local),
        downloaded_at=_time(entry, ("downloaded_at",), local),
        metrics=_metrics(entry.get("metrics")),
        training=_training(entry),
        tags=_tags(entry.get("tags")),
        notes=_text(entry, "notes")[:_MAX_LINE],
        locations=_locations(entry, local, created),
        interruption=_interruption(entry) if status == "interrupted" else None,
        unknown=_kept(entry),
    )
    return Old(
        record=record,
        alias=_text(entry, "alias") or None,
        places=_places(entry),
        checkpoint=_text(entry, "checkpoint_path") or None,
        renamed_from=None if is_model_id(name) else name,
    )


def _id(name: str) -> ModelId:
    """The id, which is kept; another text gives the same one each time."""
    known = name if is_model_id(name) else hashlib.sha256(name.encode(errors="replace")).hexdigest()
    return ModelId(known if is_model_id(name) else known[:8])


def _source(entry: Mapping[str, Any]) -> Source:
    source = _text(entry, "source")
    if source in SOURCES:
        return cast("Source", source)
    return "worker-training" if "training_job_hash" in entry else "local-import"


def _status(entry: Mapping[str, Any]) -> Status:
    """Its status while its files are there: what says that they aren't is looked at anew."""
    status = _text(entry, "status")
    if status in ("completed", "failed"):
        return cast("Status", status)
    if status in ("interrupted", "training"):  # nothing trains it any more
        return "interrupted"
    return "imported" if _source(entry) == "local-import" else "completed"


def _interruption(entry: Mapping[str, Any]) -> Interruption:
    epoch = entry.get("last_epoch")
    known = isinstance(epoch, int) and not isinstance(epoch, bool) and 0 <= epoch < 10**9
    return Interruption(
        epoch=cast("int", epoch) if known else 0, reason="Taken over from the public sleap-rtc."
    )


def _metrics(found: object) -> Metrics:
    if not isinstance(found, dict):
        return Metrics()
    numbers = {
        str(key)[:200]: float(value)
        for key, value in found.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300
    }

    def take(names: tuple[str, ...]) -> float | None:
        taken = [numbers.pop(name) for name in names if name in numbers]
        return next((value for value in taken if math.isfinite(value)), None)

    def whole(names: tuple[str, ...]) -> int | None:
        value = take(names)
        return int(value) if value is not None and 0 <= value < 10**9 else None

    return Metrics(
        final_val_loss=take(_FINAL),
        best_val_loss=take(_BEST),
        final_train_loss=take(_TRAIN),
        epochs=whole(_EPOCHS),
        best_epoch=whole(_BEST_EPOCH),
        evaluation={name: v for name, v in list(numbers.items())[:1_000] if math.isfinite(v)},
    )


def _training(entry: Mapping[str, Any]) -> Training:
    given = entry.get("training_hyperparameters")
    metadata = entry.get("metadata")
    about = metadata if isinstance(metadata, dict) else {}
    plain = (str, int, float, bool)
    return Training(
        hyperparameters={
            str(key)[:200]: value[:_MAX_LINE] if isinstance(value, str) else value
            for key, value in list(given.items() if isinstance(given, dict) else ())[:1_000]
            if isinstance(value, plain) and not (isinstance(value, int) and abs(value) >= 2**63)
        },
        dataset_name=_line(about, "dataset") or _line(about, "dataset_name"),
        device=_line(about, "gpu_model"),
        engine_version=_line(about, "sleap_nn_version"),
        git_commit=_line(about, "git_commit"),
    )


def _tags(found: object) -> tuple[str, ...]:
    if not isinstance(found, (list, tuple)):
        return ()
    given = {tag.strip()[:64] for tag in found if isinstance(tag, str) and tag.strip()}
    return tuple(sorted(given)[:100])


def _locations(
    entry: Mapping[str, Any], local: tzinfo | None, otherwise: datetime
) -> tuple[Location, ...]:
    if entry.get("on_worker") is not True:
        return ()
    seen = _time(entry, ("worker_last_seen",), local) or otherwise
    name = _line(entry, "worker_name") or _line(entry, "worker") or "worker"
    path = _text(entry, "worker_path")[:4096]
    return (Location(kind="worker", name=name, last_seen=seen, path=path),)


def _places(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Its directory: as it is named, above its checkpoint or config, and where it came from."""
    given = [_text(entry, "local_path")]
    for field in ("checkpoint_path", "config_path"):
        above, slash, _ = _text(entry, field).rpartition("/")
        given.append(above if slash else "")
    given.append(_text(entry, "original_path"))
    return tuple(dict.fromkeys(path for path in given if path))


def _kept(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry as it was, if it is of a sensible size."""
    try:
        data = msgspec.json.encode(entry)
        plain = msgspec.json.decode(data)
    except (TypeError, ValueError, RecursionError):
        return {}
    return {KEPT_AS: plain} if len(data) <= _MAX_KEPT else {}


def _time(
    entry: Mapping[str, Any], fields: tuple[str, ...], local: tzinfo | None
) -> datetime | None:
    """The first of these times, UTC; one without a zone is local time."""
    for field in fields:
        value = entry.get(field)
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value.strip())
            except ValueError:
                continue
        if isinstance(value, datetime):
            try:
                aware = value if value.tzinfo else _with_zone(value, local)
                return aware.astimezone(UTC)
            except (OverflowError, ValueError, OSError):
                continue
    return None


def _with_zone(value: datetime, local: tzinfo | None) -> datetime:
    return value.replace(tzinfo=local) if local is not None else value.astimezone()


def _hex(entry: Mapping[str, Any], field: str) -> str | None:
    text = _text(entry, field).lower()
    return text if _HEX64.fullmatch(text) else None


def _line(entry: Mapping[str, Any], field: str) -> str | None:
    return _text(entry, field)[:_MAX_LINE] or None


def _text(entry: Mapping[str, Any], field: str) -> str:
    """A text, without what can't be written; empty for anything else."""
    value = entry.get(field)
    if not isinstance(value, str) or "\0" in value:
        return ""
    return value.encode("utf-8", "replace").decode("utf-8")
