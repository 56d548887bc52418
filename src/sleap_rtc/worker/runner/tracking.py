"""A tracking job: models over videos, one after the other, predictions as one package.

Predictions of ``clips/a.mp4`` are ``clips/a.mp4.predictions.slp`` in the output,
so two videos never share a name.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Final

from sleap_rtc.domain.packages import check_path, ref
from sleap_rtc.engines.base import Engine, TrackPlan
from sleap_rtc.errors import DataError, NotFound, TrainingFailed, UsageError
from sleap_rtc.files.packing import pack
from sleap_rtc.jobs.events import Body, OutputReady, StageStarted
from sleap_rtc.jobs.spec import JobSpec, TrackSpec
from sleap_rtc.worker.job_directory import JobDirectory
from sleap_rtc.worker.runner.attempts import StageFolder
from sleap_rtc.worker.runner.conductor import Conductor, usable
from sleap_rtc.worker.runner.ending import Ending, from_outcome
from sleap_rtc.worker.runner.plan import RunnerPlan

SUFFIX: Final = ".predictions.slp"
VIDEOS: Final = frozenset(
    {
        *(".mp4", ".avi", ".mov", ".mj2", ".mkv", ".m4v", ".mpg", ".mpeg", ".webm", ".seq"),
        *(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"),
    }
)
"""What is taken as a video. Labels and HDF5 files aren't: they can name other files, which an
engine would open wherever they are on this machine."""


class Tracking:
    """The stages of a tracking job: one per video.

    Args:
        job: Where its files are.
        spec: What is asked.
        work: The part of it that is about tracking.
        plan: What the daemon decided.
        engine: The engine.
        conductor: Runs it.
        emit: Appends to the job's log.
    """

    def __init__(
        self,
        *,
        job: JobDirectory,
        spec: JobSpec,
        work: TrackSpec,
        plan: RunnerPlan,
        engine: Engine,
        conductor: Conductor,
        emit: Callable[[Body], None],
    ) -> None:
        self._job = job
        self._spec = spec
        self._work = work
        self._plan = plan
        self._engine = engine
        self._conductor = conductor
        self._emit = emit

    @property
    def count(self) -> int:
        """Number of stages."""
        return len(self._work.videos)

    def prepare(self) -> None:
        """See that everything is there before the first video is touched.

        Raises:
            EngineMissing: The engine isn't installed.
            NotFound: A video isn't in the package.
            UnsafePath: A video's path is refused.
            UsageError: A file isn't of a kind that is taken as a video.
            DataError: The plan doesn't fit the specification.
        """
        self._engine.find()
        if len(self._plan.models) != len(self._work.models):
            raise DataError(what="plan.json", why="it has other models than the job asks for")
        for name in self._work.videos:
            check_path(name + SUFFIX)
            if PurePosixPath(name).suffix.lower() not in VIDEOS:
                raise UsageError(
                    message=f"{name} is not taken as a video by a worker, for its ending.",
                    hint=f"It takes {', '.join(sorted(VIDEOS))}.",
                )
            if not self._video(name).is_file():
                raise NotFound(message=f"The video {name} is not in the job's package.")

    async def stage(self, number: int) -> Ending | None:
        """Track one video; None when it ended well.

        Raises:
            SleapRtcError: It can't be started.
        """
        name = self._work.videos[number]
        output = self._output(name)
        if output.is_file():
            return None  # done by an attempt before this one: it appears only when it is whole
        working = StageFolder(self._job.stage(number)).new_directory() / "predictions.slp"
        plan = TrackPlan(
            models=tuple(Path(model) for model in self._plan.models),
            video=self._video(name),
            output=working,
            frames=self._work.frames,
            tracking=self._work.tracking,
            device=self._plan.device,
            threads=self._plan.threads,
            provenance={
                "sleap_rtc.job": self._spec.id,
                "sleap_rtc.models": " ".join(model.id for model in self._work.models),
                "sleap_rtc.packages": " ".join(model.package for model in self._work.models),
            },
        )
        ended = await self._conductor.conduct(
            StageStarted(stage=number, stages=self.count, name=name[-1_000:]),
            lambda: self._engine.start_tracking(plan),
        )
        self._conductor.forget()
        if usable(ended.outcome):
            output.parent.mkdir(parents=True, exist_ok=True)
            working.rename(output)
            return None
        return from_outcome(ended.outcome, what=f"Tracking {name}", code=TrainingFailed.code)

    async def finish(self) -> None:
        """Pack the predictions.

        Raises:
            SourceChanged: Something wrote to them meanwhile.
        """
        names = [name + SUFFIX for name in self._work.videos]
        files = {name: self._job.predictions / name for name in names}
        packed = await asyncio.to_thread(pack, files, root=self._job.predictions)
        about = {
            "models": [{"id": m.id, "package": m.package} for m in self._work.models],
            "engine": self._engine.name,
        }
        self._emit(OutputReady(what="predictions", package=ref(packed.package), about=about))

    def discard(self) -> None:
        """Remove what was tracked, of a job that was cancelled."""
        shutil.rmtree(self._job.predictions, ignore_errors=True)

    def _video(self, name: str) -> Path:
        return Path(self._plan.inputs) / check_path(name)

    def _output(self, name: str) -> Path:
        return self._job.predictions / (name + SUFFIX)
