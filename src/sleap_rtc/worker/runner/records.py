"""The record of a model at each turn of its training. Pure: times and hashes are handed in."""

from __future__ import annotations

from datetime import datetime
from pathlib import PurePath
from typing import Final

import msgspec
from msgspec.structs import replace

from sleap_rtc.domain.ids import recipe
from sleap_rtc.domain.models import Interruption, ModelFile, ModelRecord, Training
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.engines.base import ConfigSummary, Outcome
from sleap_rtc.jobs.spec import JobSpec, TrainSpec, TrainStage
from sleap_rtc.worker.runner.plan import RunnerPlan

_MAX_REASON: Final = 1_000
_MAX_FAILURE: Final = 8_000


class Kept(msgspec.Struct, frozen=True):
    """Files of an attempt, hashed.

    Attributes:
        files: Every file that belongs to the model.
        package: The package that they make.
    """

    files: tuple[ModelFile, ...]
    package: PackageRef


def beginning(
    spec: JobSpec,
    work: TrainSpec,
    stage: TrainStage,
    *,
    summary: ConfigSummary,
    plan: RunnerPlan,
    engine_version: str,
    at: datetime,
) -> ModelRecord:
    """The record of a model whose training starts."""
    made = recipe(
        model_type=stage.model_type,
        backbone=summary.backbone,
        run_name=stage.run_name,
        dataset_hash=work.dataset_hash,
    )
    return ModelRecord(
        id=made.model_id,
        full_hash=made.full_hash,
        canonical=made.canonical,
        name=stage.run_name,
        model_type=stage.model_type,
        status="training",
        source="worker-training",
        created_at=at,
        training=Training(
            job=spec.id,
            engine=plan.engine,
            engine_version=engine_version,
            dataset_name=work.dataset_name,
            dataset_hash=work.dataset_hash,
            package=spec.inputs.id,
            hyperparameters=summary.hyperparameters,
            device=plan.device_name,
            worker=plan.worker or None,
        ),
    )


def taken_up(
    record: ModelRecord, new: Training, *, before: ModelRecord, point: Interruption | None
) -> ModelRecord:
    """The record of a model that is trained again.

    Args:
        record: As it is now.
        new: How it is trained this time.
        before: As it was when it was interrupted.
        point: Where it goes on; None when it starts from the first epoch.
    """
    if point is None:
        return replace(record, training=new)
    old = before.training
    return replace(
        record,
        training=replace(
            new,
            duration_s=old.duration_s,
            git_commit=old.git_commit,
            resumed_from=(*old.resumed_from, f"epoch {point.epoch}"),
        ),
    )


def completed(
    record: ModelRecord,
    outcome: Outcome,
    kept: Kept,
    *,
    root: PurePath,
    duration_s: float,
    at: datetime,
) -> ModelRecord:
    """The record of a model that is trained.

    Args:
        record: As it was.
        outcome: What the engine says.
        kept: Its files.
        root: The folder that the outcome's paths are in.
        duration_s: Seconds of training, over all attempts.
        at: Now.
    """
    return replace(
        _with_results(record, outcome, duration_s=duration_s),
        status="completed",
        completed_at=at,
        files=kept.files,
        package=kept.package.id,
        checkpoint=_inside(outcome.best, root),
        config=_config(kept),
        interruption=None,
        failure=None,
    )


def unfinished(
    record: ModelRecord,
    outcome: Outcome,
    kept: Kept,
    *,
    root: PurePath,
    duration_s: float,
    reason: str,
    failed: bool,
) -> ModelRecord:
    """The record of a model whose training ended too soon, with a checkpoint to go on from.

    Args:
        record: As it was.
        outcome: What the engine says.
        kept: Its files.
        root: The folder that the outcome's paths are in.
        duration_s: Seconds of training, over all attempts.
        reason: Why it ended.
        failed: Whether by its own fault.
    """
    return replace(
        _with_results(record, outcome, duration_s=duration_s),
        status="failed" if failed else "interrupted",
        failure=reason[-_MAX_FAILURE:] if failed else None,
        files=kept.files,
        package=None,
        checkpoint=_inside(outcome.best, root),
        config=_config(kept),
        interruption=Interruption(
            epoch=outcome.epochs or 0,
            checkpoint=_inside(outcome.last, root),
            reason=reason[:_MAX_REASON],
        ),
    )


def _with_results(record: ModelRecord, outcome: Outcome, *, duration_s: float) -> ModelRecord:
    training = replace(
        record.training,
        duration_s=duration_s,
        hyperparameters=record.training.hyperparameters | outcome.hyperparameters,
    )
    return replace(record, metrics=outcome.metrics, training=training)


def _config(kept: Kept) -> str | None:
    """The resolved configuration if the engine wrote one, else the one it was given."""
    paths = [file.path for file in kept.files]
    for name in ("training_config.yaml", "training_config.json", "initial_config.yaml"):
        for path in paths:
            if PurePath(path).name == name:
                return path
    return None


def _inside(path: PurePath | None, root: PurePath) -> str | None:
    return None if path is None else path.relative_to(root).as_posix()
