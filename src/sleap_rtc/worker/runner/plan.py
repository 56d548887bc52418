"""``plan.json``: everything the daemon decided for the runner of a job.

The specification says what somebody elsewhere wants; the plan says with what
it is done here. Every path in it is this machine's.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from sleap_rtc.domain.models import Line
from sleap_rtc.domain.values import Document, Value
from sleap_rtc.engines.process import ProcessIdentity
from sleap_rtc.jobs.spec import EngineName

LocalPath = Annotated[str, Meta(pattern=r"^/", max_length=4096)]
Stage = Annotated[int, Meta(ge=0)]


class RunnerPlan(Document, frozen=True):
    """How a job is done on this worker.

    Attributes:
        engine: The trainer, as the registry of engines names it.
        inputs: The folder with the job's input package, fetched and verified.
        library: The worker's library.
        labels: For training: each label file's path in the package → the file to read in its place.
        models: For tracking: the models' directories, resolved and verified, in order.
        worker: The worker's name, for the record.
        device: ``auto``, ``cpu`` or ``cuda``.
        device_name: The GPU's model name, or ``cpu``, for the record.
        threads: Processor threads for the engine.
        grace_s: Seconds between asking the engine to end and ending it.
    """

    engine: EngineName
    inputs: LocalPath
    library: LocalPath
    labels: Annotated[dict[str, LocalPath], Meta(max_length=2)] = {}
    models: Annotated[tuple[LocalPath, ...], Meta(max_length=4)] = ()
    worker: Line = ""
    device: Annotated[str, Meta(pattern=r"\A(auto|cpu|cuda)\Z")] = "auto"
    device_name: Line = "cpu"
    threads: Annotated[int, Meta(ge=1, le=1024)] = 1
    grace_s: Annotated[float, Meta(ge=0, le=3600)] = 20.0


class RunnerFile(Document, frozen=True):
    """``runner.json``: who the runner is, and where it listens.

    Attributes:
        process: The runner.
        socket: Its Unix socket, in a short directory of its own: such paths have 107 bytes.
    """

    process: ProcessIdentity
    socket: LocalPath


class TrainerFile(Document, frozen=True):
    """``trainer.json``: the engine's process, for whoever has to end it in the runner's place.

    Attributes:
        process: The leader of its group.
        stage: What it works on.
    """

    process: ProcessIdentity
    stage: Stage


class Refusal(Value, frozen=True):
    """An error on its way to another process; the same class is raised there again."""

    code: Annotated[str, Meta(max_length=64)]
    message: Annotated[str, Meta(max_length=8_000)]
    hint: Annotated[str, Meta(max_length=2_000)] = ""
    details: dict[str, str] = {}


class Ready(Value, frozen=True):
    """The runner's first words, on a pipe.

    Attributes:
        runner: It listens.
        refused: Why it doesn't.
    """

    runner: RunnerFile | None = None
    refused: Refusal | None = None
