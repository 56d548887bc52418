"""A training job: models, one after the other, each into the library as soon as it is there.

::

    record, status training ─► engine ─► outcome.json ─► files and record in the library ─► output

Each arrow is saved before the next step is taken, so a kill anywhere is met by
doing the last step again.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from loguru import logger

from sleap_rtc.domain.models import Interruption, ModelRecord
from sleap_rtc.domain.packages import check_path
from sleap_rtc.engines.base import ConfigSummary, Engine, TrainPlan
from sleap_rtc.errors import (
    Conflict,
    Damaged,
    DataError,
    FilesMissing,
    InvalidConfig,
    NotFound,
    OutOfSpace,
    SleapRtcError,
    TrainingFailed,
)
from sleap_rtc.jobs.events import Body, Logged, ModelChanged, OutputReady, StageStarted
from sleap_rtc.jobs.lifecycle import JobView
from sleap_rtc.jobs.spec import JobSpec, TrainSpec, TrainStage
from sleap_rtc.library.registry import Registry
from sleap_rtc.worker.job_directory import JobDirectory
from sleap_rtc.worker.runner import keeping, records
from sleap_rtc.worker.runner.attempts import Attempt, Ended, StageFolder
from sleap_rtc.worker.runner.conductor import Conductor, usable
from sleap_rtc.worker.runner.ending import Ending, from_outcome
from sleap_rtc.worker.runner.plan import RunnerPlan

_MAX_CONFIG: Final = 1024 * 1024


class Training:
    """The stages of a training job.

    Args:
        job: Where its files are.
        spec: What is asked.
        work: The part of it that is about training.
        plan: What the daemon decided.
        engine: The engine.
        library: The worker's library.
        conductor: Runs the engine.
        emit: Appends to the job's log.
        view: Gives the job's state.
        clock: The time now, UTC.
    """

    def __init__(
        self,
        *,
        job: JobDirectory,
        spec: JobSpec,
        work: TrainSpec,
        plan: RunnerPlan,
        engine: Engine,
        library: Registry,
        conductor: Conductor,
        emit: Callable[[Body], None],
        view: Callable[[], JobView],
        clock: Callable[[], datetime],
    ) -> None:
        self._job = job
        self._spec = spec
        self._work = work
        self._plan = plan
        self._engine = engine
        self._library = library
        self._conductor = conductor
        self._emit = emit
        self._view = view
        self._clock = clock
        self._configs: list[tuple[str, ConfigSummary]] = []
        self._version = ""

    @property
    def count(self) -> int:
        """Number of stages."""
        return len(self._work.stages)

    def prepare(self) -> None:
        """Read every stage's configuration before the first one takes its hours.

        Raises:
            EngineMissing: The engine isn't installed.
            InvalidConfig: A configuration is refused.
            NotFound: A file isn't in the package.
            UnsafePath: A path is refused.
        """
        self._version = self._engine.find().version
        for name in (self._work.labels, self._work.val_labels):
            if name is not None:
                self._input(name, "label file")
        for stage in self._work.stages:
            text = _read_text(self._input(stage.config, "configuration"), stage.config)
            summary = self._engine.read_config(text, where=stage.config)
            _check_config(stage, summary)
            self._configs.append((text, summary))

    async def stage(self, number: int) -> Ending | None:
        """Train one model; None when it ended well.

        Raises:
            SleapRtcError: It can't be started, or its model can't be kept.
        """
        folder = StageFolder(self._job.stage(number))
        view = self._view()
        known = view.stage_view(number).record
        if view.is_trained(number):
            return None  # an attempt before this one got that far
        begun = await self._begun_before(folder, known)
        if begun is None:
            record, attempt = await asyncio.to_thread(self._begin, number, folder, known)
            ended = await self._train(number, record, attempt)
            _save_ended(folder, ended)
            self._conductor.forget()
        else:
            record, attempt, ended = begun
        if usable(ended.outcome):
            await self._keep_result(number, record, attempt, ended)
            folder.clear()
            return None
        return await self._keep_checkpoint(number, record, attempt, ended)

    async def finish(self) -> None:
        """Nothing: each model was brought in when it was trained."""

    def discard(self) -> None:
        """Nothing: models and checkpoints stay when a job is cancelled."""

    # A stage, step by step

    async def _begun_before(
        self, folder: StageFolder, known: ModelRecord | None
    ) -> tuple[ModelRecord, Attempt, Ended] | None:
        """A training that ended well before its runner was killed: only the rest is to be done."""
        attempt, ended = folder.attempt(), folder.ended()
        if known is None or attempt is None or ended is None or not usable(ended.outcome):
            return None
        return (await asyncio.to_thread(self._library.get, known.id)).record, attempt, ended

    def _begin(
        self, number: int, folder: StageFolder, known: ModelRecord | None
    ) -> tuple[ModelRecord, Attempt]:
        """Make the record of the model, in training, and write down what is about to be done."""
        stage = self._work.stages[number]
        new = records.beginning(
            self._spec,
            self._work,
            stage,
            summary=self._configs[number][1],
            plan=self._plan,
            engine_version=self._version,
            at=self._clock(),
        )
        wanted = known.id if known is not None else stage.resume
        if wanted is None:
            record = self._library.register(new).record
            attempt = self._attempt(number, folder, record, None)
            folder.save_attempt(attempt)
            return record, attempt
        old = self._library.get(wanted).record
        self._check_resumable(old, new)
        earlier = folder.attempt()
        point = old.interruption
        if point is None and earlier is not None and earlier.model == old.id:
            point = earlier.point  # killed before it could say that it was interrupted
        if not self._is_there(old, point):
            point = None
        attempt = self._attempt(number, folder, old, point)
        folder.save_attempt(attempt)
        self._library.mark_training(old.id)
        taken_up = functools.partial(records.taken_up, new=new.training, before=old, point=point)
        return self._library.update(old.id, taken_up).record, attempt

    def _check_resumable(self, old: ModelRecord, new: ModelRecord) -> None:
        if old.full_hash != new.full_hash:
            raise Conflict(
                message=f"Model {old.id} was made from another backbone, run name or data set, so "
                "this training can't go on from it.",
                hint="Resume it with the labels and the configuration that it was started with.",
            )
        if old.status == "training" and old.training.job != self._spec.id:
            raise Conflict(message=f"Model {old.id} is in training already.")

    def _is_there(self, record: ModelRecord, point: Interruption | None) -> bool:
        """Whether the checkpoint to go on from is there as it was written."""
        if point is None or point.checkpoint is None or point.epoch == 0:
            return False
        listed = next((file for file in record.files if file.path == point.checkpoint), None)
        try:
            if listed is None:
                raise FilesMissing(name=record.id, files=point.checkpoint)
            directory = self._library.models_dir / record.directory
            found = keeping.hash_files(directory, (point.checkpoint,))
            if found.files[0].blake3 != listed.blake3:
                raise Damaged(
                    what=f"{point.checkpoint} of model {record.id}", why="its hash differs"
                )
        except (NotFound, DataError) as error:
            logger.bind(model=record.id, error=error.message).warning(
                "the checkpoint can't be used; training starts with the first epoch"
            )
            return False
        return True

    def _attempt(
        self, number: int, folder: StageFolder, record: ModelRecord, point: Interruption | None
    ) -> Attempt:
        stage, work = self._work.stages[number], self._work
        plan = TrainPlan(
            labels=self._input(work.labels, "label file"),
            val_labels=None
            if work.val_labels is None
            else self._input(work.val_labels, "label file"),
            config=self._configs[number][0],
            model_type=stage.model_type,
            directory=folder.new_directory(),
            run_name=stage.run_name,
            resume_from=None if point is None else self._library.models_dir / record.directory,
            device=self._plan.device,
            threads=self._plan.threads,
        )
        earlier_s = 0.0 if point is None else record.training.duration_s or 0.0
        return Attempt(model=record.id, plan=plan, point=point, earlier_s=earlier_s)

    async def _train(self, number: int, record: ModelRecord, attempt: Attempt) -> Ended:
        self._emit(ModelChanged(stage=number, record=record))
        stage, point = self._work.stages[number], attempt.point
        if stage.resume is not None and point is None:
            self._emit(
                Logged(
                    line=f"Model {record.id} has no usable checkpoint: "
                    "training starts with the first epoch."
                )
            )
        started = StageStarted(
            stage=number,
            stages=self.count,
            name=stage.run_name,
            epochs=self._configs[number][1].epochs,
            first_epoch=0 if point is None else point.epoch,
        )
        try:
            return await self._conductor.conduct(
                started, lambda: self._engine.start_training(attempt.plan)
            )
        except SleapRtcError as error:
            self._conductor.forget()
            await self._mark(number, record, attempt, error)
            raise

    async def _keep_result(
        self, number: int, record: ModelRecord, attempt: Attempt, ended: Ended
    ) -> None:
        try:
            done, package = await asyncio.to_thread(
                keeping.keep_result, self._library, record, attempt, ended, at=self._clock()
            )
        except SleapRtcError as error:
            await self._mark(number, record, attempt, error)
            raise
        self._emit(ModelChanged(stage=number, record=done))
        self._emit(
            OutputReady(what="model", package=package, stage=number, about={"model": done.id})
        )

    async def _keep_checkpoint(
        self, number: int, record: ModelRecord, attempt: Attempt, ended: Ended
    ) -> Ending:
        what = f"Training {record.model_type}"
        ending = from_outcome(ended.outcome, what=what, code=TrainingFailed.code)
        if self._view().pending == "cancel":
            ending = Ending("cancelled", "The job was cancelled.")
        elif self._conductor.leaving:
            ending = Ending("interrupted", self._conductor.leaving)
        try:
            left = await asyncio.to_thread(
                keeping.keep_checkpoint,
                self._library,
                record,
                attempt,
                ended,
                reason=ending.reason,
                failed=ending.state == "failed",
            )
        except SleapRtcError as error:
            await self._mark(number, record, attempt, error)
            raise
        self._emit(ModelChanged(stage=number, record=left))
        return ending

    async def _mark(
        self, number: int, record: ModelRecord, attempt: Attempt, error: SleapRtcError
    ) -> None:
        """Say in the model's record what ended it, as far as that is possible."""
        try:
            left = await asyncio.to_thread(
                keeping.keep_nothing,
                self._library,
                record,
                attempt.point,
                reason=error.message,
                failed=not isinstance(error, OutOfSpace),
            )
        except SleapRtcError as second:
            logger.bind(model=record.id, error=second.message).error("a record was not written")
            return
        self._emit(ModelChanged(stage=number, record=left))

    def _input(self, name: str, what: str) -> Path:
        """A file of the job's package.

        Raises:
            NotFound: It isn't in the package.
            UnsafePath: The path is refused.
        """
        path = Path(self._plan.labels.get(name) or Path(self._plan.inputs) / check_path(name))
        if not path.is_file():
            raise NotFound(message=f"The {what} {name} is not in the job's package.")
        return path


def _save_ended(folder: StageFolder, ended: Ended) -> None:
    try:
        folder.save_ended(ended)
    except OutOfSpace as error:  # it only matters if this process is killed within the next step
        logger.bind(error=error.message).warning("how the engine ended is not written down")


def _read_text(path: Path, name: str) -> str:
    with path.open("rb") as file:
        data = file.read(_MAX_CONFIG + 1)
    if len(data) > _MAX_CONFIG:
        raise InvalidConfig(where=name, why=f"it has more than {_MAX_CONFIG} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidConfig(where=name, why="it is not UTF-8 text") from None


def _check_config(stage: TrainStage, summary: ConfigSummary) -> None:
    if summary.refused:
        keys = "; ".join(f"{key}: {why}" for key, why in sorted(summary.refused.items()))
        raise InvalidConfig(where=stage.config, why=f"this worker refuses {keys}")
    if summary.model_type != stage.model_type:
        raise InvalidConfig(
            where=stage.config,
            why=f"it declares a {summary.model_type} model, not {stage.model_type} as the job says",
        )
