"""What happens to a model's record when something happens to the model; pure functions."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from msgspec.structs import replace

from sleap_rtc.domain.models import Interruption, Metrics, ModelRecord, Status
from sleap_rtc.errors import IllegalTransition
from sleap_rtc.library.status import Event, after

MAX_FAILURE: Final = 8_000

_EVENT: Final[dict[Status, Event]] = {
    "training": "train",
    "completed": "complete",
    "interrupted": "interrupt",
    "failed": "fail",
}


def trained(old: ModelRecord) -> ModelRecord:
    """Training began, or goes on: the interruption becomes part of the lineage."""
    training = old.training
    if old.interruption is not None:
        lineage = (*training.resumed_from, f"epoch {old.interruption.epoch}")
        training = replace(training, resumed_from=lineage)
    return replace(
        old, status=_after(old, "train"), training=training, interruption=None, failure=None
    )


def completed(
    old: ModelRecord, metrics: Metrics, now: datetime, given: dict[str, Any]
) -> ModelRecord:
    """Training ended well; ``given`` holds further fields of the record."""
    return replace(
        old,
        status=_after(old, "complete"),
        metrics=metrics,
        completed_at=old.completed_at or now,
        interruption=None,
        failure=None,
        **given,
    )


def interrupted(old: ModelRecord, interruption: Interruption) -> ModelRecord:
    """Training stopped, and can go on."""
    return replace(old, status=_after(old, "interrupt"), interruption=interruption)


def failed(old: ModelRecord, reason: str) -> ModelRecord:
    """Training can't go on; the end of the reason is kept, where a log says what went wrong."""
    return replace(
        old, status=_after(old, "fail"), interruption=None, failure=reason[-MAX_FAILURE:]
    )


def arrived(old: ModelRecord, new: ModelRecord, now: datetime) -> ModelRecord:
    """The record of a model whose files came home: the news, and what is known better here."""
    # What was trained on this very machine came from nowhere else.
    came = None if old.source == "worker-training" else now
    return replace(
        new,
        id=old.id,
        model_type=old.model_type,
        name=old.name,
        status=_towards(old, new.status),
        source=old.source,
        created_at=old.created_at,
        downloaded_at=old.downloaded_at or came,
        tags=(*old.tags, *new.tags),
        notes=old.notes or new.notes,
        locations=old.locations or new.locations,
        parent=old.parent or new.parent,
        same_recipe_as=old.same_recipe_as,
        deleted_at=old.deleted_at,
        unknown=new.unknown | old.unknown,
    )


def _after(old: ModelRecord, event: Event) -> Status:
    return after(old.status, event, what=f"model {old.id}")


def _towards(old: ModelRecord, wanted: Status) -> Status:
    if wanted == old.status:
        return wanted
    event = _EVENT.get(wanted)
    if event is None:
        raise IllegalTransition(what=f"model {old.id}", state=old.status, event=f"{wanted} files")
    return _after(old, event)
