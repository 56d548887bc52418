"""What a job is asked to do.

Whoever submits a job makes its id (a UUIDv7), so that asking twice is asking
once. Inputs travel as one package; paths in a specification are paths inside
that package, never on the worker's disk.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from sleap_rtc.domain.ids import JobId, PackageId, RoomId
from sleap_rtc.domain.models import Hex64, Id, Line, ModelType, Package
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.domain.values import Document, Value
from sleap_rtc.jobs.datasets import Datasets, waits_for_nobody

EngineName = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9-]{0,31}\Z")]
PackagePath = Annotated[str, Meta(min_length=1, max_length=1024)]
UUID7: Final = r"\A[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z"
RunName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\Z")]


class TrainStage(Value, frozen=True):
    """One model to train; a top-down pair is two stages of one job.

    Attributes:
        config: The training configuration's path in the package.
        model_type: The head it declares; the worker checks that it does.
        run_name: Names the run; part of the model's id.
        resume: Model to go on from: it is on the worker, ``interrupted``, with this id.
    """

    config: PackagePath
    model_type: ModelType
    run_name: RunName
    resume: Id | None = None


class TrainSpec(Value, frozen=True, tag_field="kind", tag="train"):
    """Train models, one stage after the other.

    Attributes:
        labels: The label file's path in the package.
        stages: 1 to 8 models.
        dataset_name: The label file's name at home, for the record.
        dataset_hash: BLAKE3 of the label file (whole content).
        val_labels: A second label file to validate on; None lets the configuration decide.
    """

    labels: PackagePath
    stages: Annotated[tuple[TrainStage, ...], Meta(min_length=1, max_length=8)]
    dataset_name: Line
    dataset_hash: Hex64
    val_labels: PackagePath | None = None


class ModelRef(Value, frozen=True):
    """A model by id and by content, so that one name can't silently mean two models.

    Attributes:
        id: The model's id, for people and for looking it up.
        package: What its files must be.
        offered: The same package, as whoever submits the job offers it to a worker that lacks
            it; None where they haven't got it either.
        datasets: Where each file of what is offered is; none where all come over the link.
    """

    id: Id
    package: Package
    offered: PackageRef | None = None
    datasets: Datasets = ()


class TrackSpec(Value, frozen=True, tag_field="kind", tag="track"):
    """Run models over videos.

    Attributes:
        models: One model, or a top-down pair in order.
        videos: The videos' paths in the package.
        frames: Frame indices from first to last, both included; None is every frame.
        tracking: Whether identities are linked over time.
    """

    models: Annotated[tuple[ModelRef, ...], Meta(min_length=1, max_length=4)]
    videos: Annotated[tuple[PackagePath, ...], Meta(min_length=1, max_length=100)]
    frames: tuple[Annotated[int, Meta(ge=0)], Annotated[int, Meta(ge=0)]] | None = None
    tracking: bool = False


class JobSpec(Document, frozen=True):
    """What a job is asked to do.

    Attributes:
        id: Made by whoever asks.
        engine: The trainer to use.
        work: What to do.
        inputs: The package with labels, configurations or videos.
        room: The room it was submitted in.
        name: What people call it, for example the label file's name.
        datasets: Where each file of ``inputs`` is; none where all come over the link.
    """

    id: Annotated[JobId, Meta(pattern=UUID7)]
    engine: EngineName
    work: TrainSpec | TrackSpec
    inputs: PackageRef
    room: Annotated[RoomId, Meta(pattern=r"\A[a-z2-7]{32}\Z")]
    name: Line = ""
    datasets: Datasets = ()

    @property
    def needed(self) -> set[PackageId]:
        """Every package that the job reads, by its content."""
        models = self.work.models if isinstance(self.work, TrackSpec) else ()
        return {self.inputs.id, *(model.package for model in models)}

    @property
    def parts(self) -> tuple[tuple[PackageRef, Datasets], ...]:
        """Every package that comes with the job, the inputs first, and where its files are."""
        models = self.work.models if isinstance(self.work, TrackSpec) else ()
        brought = ((m.offered, m.datasets) for m in models if m.offered is not None)
        return ((self.inputs, self.datasets), *brought)

    @property
    def offered(self) -> tuple[PackageRef, ...]:
        """Every package that whoever submits the job offers with it, the inputs first."""
        return tuple(package for package, _ in self.parts)

    @property
    def waits_for_nobody(self) -> bool:
        """Whether a worker gets all that comes with it while whoever submitted it is away."""
        return all(waits_for_nobody(datasets) for _, datasets in self.parts)
