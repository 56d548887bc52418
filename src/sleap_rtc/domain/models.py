"""Model records: what a library, a room or a message knows of one model (REG-3).

The same value everywhere. An alias is not part of it: aliases belong to the
registry that holds the record, which fills them in when it is read. Nor is the
place on disk: a model's directory is ``<models>/{model_type}_{id}`` (REG-5), and
paths in a record are relative to it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, Literal, get_args

import msgspec
from msgspec import Meta

from sleap_rtc.domain.ids import MODEL_ID, ModelId, PackageId
from sleap_rtc.domain.packages import MAX_SIZE
from sleap_rtc.domain.values import Document, Value

Status = Literal["training", "completed", "interrupted", "failed", "imported", "missing"]
Source = Literal[
    "worker-training",
    "worker-pull",
    "client-upload",
    "local-import",
    "room-pull",
    "hub",
    "wandb",
]

STATUSES: Final[tuple[str, ...]] = get_args(Status)
SOURCES: Final[tuple[str, ...]] = get_args(Source)

Utc = Annotated[datetime, Meta(tz=True)]
Line = Annotated[str, Meta(max_length=1_000)]
Hex64 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
ModelType = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9_]{0,63}\Z")]
Id = Annotated[ModelId, Meta(pattern=MODEL_ID)]
Package = Annotated[PackageId, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
RelativePath = Annotated[str, Meta(min_length=1, max_length=1024)]
Tier = Literal["safe", "scanned", "unknown", "flagged"]
"""How far a file may be trusted (SEC-4), from the best to the worst:

``safe``     its format holds numbers and text, and nothing that could run
``scanned``  a pickle, of which every instruction was read; it would import nothing strange
``unknown``  nobody has looked into it, or its format isn't known
``flagged``  something that could run was found in it
"""

TIERS: Final[tuple[Tier, ...]] = get_args(Tier)
Tag = Annotated[str, Meta(min_length=1, max_length=64)]

# Checking the form of hashes is most of reading a record. ``ModelRecord`` is read with it, from
# wherever it comes; ``ModelRecord[str]`` is the same class read without it, for what this program
# wrote itself where nobody else writes.
if TYPE_CHECKING:
    from typing_extensions import TypeVar

    Hash = TypeVar("Hash", bound=str, default=str)
else:
    from typing import TypeVar

    Hash = TypeVar("Hash", bound=Hex64)


class ModelFile(Value, Generic[Hash], frozen=True):
    """One file of a model.

    Attributes:
        path: Relative to the model's directory, with ``/``.
        size: Bytes.
        blake3: Hash of the whole file, as ``b3sum`` prints it.
        sha256: The same by SHA-256, where another system needed it.
        link: Absolute path of the file this one is a link to, for imports by link.
        safety: What a look into it found, None if nobody looked; see :func:`safety_of`.
        found: What that was, one line; empty where nothing is out of the ordinary.
    """

    path: RelativePath
    size: Annotated[int, Meta(ge=0, le=MAX_SIZE)]
    blake3: Hash
    sha256: Hash | None = None
    link: Annotated[str, Meta(max_length=4096)] | None = None
    safety: Tier | None = None
    found: Line = ""


class Metrics(Value, frozen=True):
    """How well the model does. Losses are the trainer's own; None where it was never measured.

    Attributes:
        final_val_loss: Validation loss of the last epoch.
        best_val_loss: The lowest validation loss.
        final_train_loss: Mean training loss of the last epoch.
        epochs: Whole epochs done, over all attempts.
        best_epoch: The epoch of the lowest validation loss, counted from 0.
        evaluation: Named results on labelled data, for example ``{"val.mean_error_px": 2.1}``.
    """

    final_val_loss: float | None = None
    best_val_loss: float | None = None
    final_train_loss: float | None = None
    epochs: Annotated[int, Meta(ge=0)] | None = None
    best_epoch: Annotated[int, Meta(ge=0)] | None = None
    evaluation: dict[str, float | None] = {}


class Training(Value, Generic[Hash], frozen=True):
    """How the model came to be.

    Attributes:
        job: The job that made it.
        engine: The trainer: ``sleap-nn``, ``tiny``.
        engine_version: The trainer's own version.
        dataset_name: File name of the labels.
        dataset_hash: BLAKE3 of the labels file.
        package: Id of the uploaded package.
        hyperparameters: The settings that people compare, flat: ``{"max_epochs": 50, …}``.
        duration_s: Seconds of training, over all attempts.
        device: The GPU's model name, or ``cpu``.
        worker: Name of the worker.
        git_commit: Commit of the configuration's repository, where it has one.
        resumed_from: Checkpoint lineage, oldest first: ``epoch 3``, …
    """

    job: str | None = None
    engine: Line | None = None
    engine_version: Line | None = None
    dataset_name: Line | None = None
    dataset_hash: Hash | None = None
    package: Hash | None = None
    hyperparameters: dict[str, Any] = {}
    duration_s: Annotated[float, Meta(ge=0)] | None = None
    device: Line | None = None
    worker: Line | None = None
    git_commit: Line | None = None
    resumed_from: tuple[Line, ...] = ()


class Location(Value, frozen=True):
    """Another place that has the model.

    Attributes:
        kind: ``worker`` or ``room``.
        name: The worker's or the room's name.
        last_seen: When it was last known to be there, UTC.
        path: Where it is there.
    """

    kind: Literal["worker", "room"]
    name: Line
    last_seen: Utc
    path: Annotated[str, Meta(max_length=4096)] = ""


class Interruption(Value, frozen=True):
    """Where an interrupted training can go on.

    Attributes:
        epoch: Whole epochs that are in the checkpoint.
        checkpoint: Relative path of the checkpoint, None when there was none yet.
        reason: One sentence.
    """

    epoch: Annotated[int, Meta(ge=0)]
    checkpoint: RelativePath | None = None
    reason: Line = ""


class Trust(Value, frozen=True):
    """A person's yes to files that aren't clean.

    Attributes:
        at: When it was given, UTC.
        files: Paths of the files that it is about.
        why: What was found in them, as the person was told it.
    """

    at: Utc
    files: Annotated[tuple[RelativePath, ...], Meta(max_length=10_000)]
    why: Line = ""


class ModelRecord(Document, Generic[Hash], frozen=True):
    """What is known of one model.

    Attributes:
        id: Given once, when the record is made; it travels with the model.
        name: Name of the run.
        model_type: The head: ``centroid``, ``centered_instance``, ``single_instance``, …
        status: Where it stands.
        source: How it came to this library.
        created_at: When the record was first made, UTC.
        full_hash: SHA-256 of the recipe; None for an import without a configuration.
        canonical: The recipe itself, JSON.
        completed_at: When training ended well.
        downloaded_at: When it came to this machine.
        checkpoint: Relative path of the checkpoint to use.
        config: Relative path of the training configuration.
        files: Every file that belongs to it, and no other.
        package: Id of the package of these files, once they are all there.
        metrics: How well it does.
        training: How it came to be.
        tags: Sorted, unique.
        notes: Free text, up to 1,000 characters.
        locations: Where else it is.
        brought_by: Key of the device that sent it to this library, None if none did.
        parent: The model it was forked or fine-tuned from.
        same_recipe_as: The model with the same recipe and other content, if any.
        interruption: Where training can go on, while ``interrupted``.
        failure: Why it failed, while ``failed``.
        skeleton: Node names, where the configuration tells them.
        trust: The yes of whoever imported it although something was found in its files.
        deleted_at: Set on a tombstone.
    """

    id: Id
    name: Line
    model_type: ModelType
    status: Status
    source: Source
    created_at: Utc
    full_hash: Hash | None = None
    canonical: Annotated[str, Meta(max_length=100_000)] | None = None
    completed_at: Utc | None = None
    downloaded_at: Utc | None = None
    checkpoint: RelativePath | None = None
    config: RelativePath | None = None
    files: Annotated[tuple[ModelFile[Hash], ...], Meta(max_length=10_000)] = ()
    package: Package | None = None
    metrics: Metrics = Metrics()
    training: Training[Hash] = Training()
    tags: Annotated[tuple[Tag, ...], Meta(max_length=100)] = ()
    notes: Line = ""
    locations: Annotated[tuple[Location, ...], Meta(max_length=1_000)] = ()
    brought_by: Hash | None = None
    parent: Id | None = None
    same_recipe_as: Id | None = None
    interruption: Interruption | None = None
    failure: Annotated[str, Meta(max_length=8_000)] | None = None
    skeleton: Annotated[tuple[str, ...], Meta(max_length=1_000)] = ()
    trust: Trust | None = None
    deleted_at: Utc | None = None

    @property
    def directory(self) -> str:
        """Name of the model's directory (REG-5)."""
        return f"{self.model_type}_{self.id}"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


class Safety(msgspec.Struct, frozen=True):
    """How far a model may be trusted, as it is shown wherever the model is (SEC-4).

    Attributes:
        tier: That of its worst file.
        why: What was found, one line; empty for ``safe`` and ``scanned``.
        trusted: Whether a person said yes to it all the same.
    """

    tier: Tier
    why: str = ""
    trusted: bool = False


def safety_of(record: ModelRecord) -> Safety:
    """How far a model may be trusted, by what its record says of its files.

    Lists and pages show it; nothing is decided by it. A record may come from elsewhere, so before
    an engine loads a checkpoint, it is looked into on the machine that runs it. Only files that
    may be loaded count, by their endings; one that nobody looked into is ``unknown``.
    """
    looked_into = [file for file in record.files if may_run(file.path)]
    if not looked_into:
        return Safety(tier="safe" if record.files else "unknown", why="")
    worst = max(looked_into, key=lambda file: TIERS.index(file.safety or "unknown"))
    tier = worst.safety or "unknown"
    if tier in ("safe", "scanned"):
        return Safety(tier=tier)
    trusted = record.trust is not None and all(
        file.path in record.trust.files
        for file in looked_into
        if (file.safety or "unknown") in ("unknown", "flagged")
    )
    why = f"{worst.path}: {worst.found}" if worst.found else f"{worst.path} was not looked into"
    return Safety(tier=tier, why=why, trusted=trusted)


def may_run(path: str) -> bool:
    """Whether a program may load a file of this name as a model, or as a part of one."""
    _, dot, ending = path.rpartition("/")[2].rpartition(".")
    return f"{dot}{ending}".lower() in (*WEIGHT_ENDINGS, *PICKLE_ENDINGS)


WEIGHT_ENDINGS: Final = (
    *(".ckpt", ".h5", ".hdf5", ".onnx", ".pt", ".pth", ".safetensors", ".keras", ".bin", ".gguf"),
    ".npz",
)
"""Endings of files of weights."""
PICKLE_ENDINGS: Final = (".pkl", ".pickle", ".joblib", ".npy")
"""Endings of pickles that hold something else, or may."""
PLAIN_ENDINGS: Final = frozenset(
    {
        *(".yaml", ".yml", ".json", ".jsonl", ".csv", ".tsv", ".txt", ".log", ".md", ".toml"),
        *(".png", ".jpg", ".jpeg", ".svg", ".pdf", ".slp", ".mp4", ".avi"),
    }
)
"""Endings of text, tables, labels and pictures: whoever reads them runs nothing."""
