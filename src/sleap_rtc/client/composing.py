"""From labels and configurations on this machine to a job that a worker can do."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from sleap_rtc.domain.ids import JobId, ModelId, RoomId, make_uuid7
from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.domain.packages import check_path, ref
from sleap_rtc.engines.base import ConfigSummary
from sleap_rtc.engines.registry import engine as find_engine
from sleap_rtc.engines.registry import running
from sleap_rtc.errors import InvalidConfig, InvalidLabels, NotFound, UsageError
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.packing import Packed, pack
from sleap_rtc.jobs.spec import JobSpec, ModelRef, TrackSpec, TrainSpec, TrainStage
from sleap_rtc.library.entries import Entry
from sleap_rtc.media.labels import LabelsReport, check_videos, read_labels

LABEL_ENDINGS: Final = (".slp",)
MAX_CONFIG: Final = 1024 * 1024
"""Bytes of a configuration file."""

_CONFIG_HINT: Final = (
    "A training configuration is a YAML or JSON file as SLEAP and sleap-nn write it, with "
    "model_config and trainer_config, one for each model."
)

Progress = Callable[[int, int], None]


class Located(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a job on a worker runs.

    Attributes:
        ref: Its id and content, and its package where this machine offers it.
        label: What it is called.
        model_type: Its head.
        engine: What runs it.
        there: Whether the worker has it, as far as is known.
        other: The model that the worker calls by that name, if it is another one.
        packed: Its files on this machine, where it is offered.
    """

    ref: ModelRef
    label: str
    model_type: str
    engine: str
    there: bool = False
    other: ModelRecord | None = None
    packed: Packed | None = None


class Composed(msgspec.Struct, frozen=True):
    """A job and where its inputs are.

    Attributes:
        spec: The job.
        packed: Its package.
        files: Path in the package → path on this machine.
        offered: Ids of models of this machine's library that the worker can fetch from here.
        labels: What the label file holds, for training.
        configs: What the configurations say, for training.
        models: The files of the models that are offered.
    """

    spec: JobSpec
    packed: Packed
    files: dict[str, Path]
    offered: tuple[ModelId, ...] = ()
    labels: LabelsReport | None = None
    configs: tuple[ConfigSummary, ...] = ()
    models: tuple[Packed, ...] = ()


def new_job_id() -> JobId:
    """An id for a job of now."""
    return JobId(make_uuid7(unix_ms=time.time_ns() // 1_000_000, randomness=os.urandom(10)))


def compose_training(
    labels: Path,
    configs: Sequence[Path],
    *,
    engine: str,
    room: RoomId,
    val_labels: Path | None = None,
    run_name: str | None = None,
    cache: HashCache | None = None,
    progress: Progress | None = None,
) -> Composed:
    """Check labels and configurations, hash them, and make a training job of them.

    Args:
        labels: A ``.pkg.slp``, or a ``.slp`` whose videos are found beside it.
        configs: One configuration per model, in the order in which they are trained.
        engine: The trainer.
        room: The room that the job is submitted in.
        val_labels: Labels to validate on.
        run_name: Names the runs; by default each configuration's own, else the label file's.
        cache: Hashes of unchanged files.
        progress: Told of bytes hashed and bytes in all.

    Raises:
        InvalidLabels: A label file can't be used.
        InvalidConfig: A configuration can't be used; the worker would refuse it too.
        UsageError: No configuration, or two for one head.
    """
    if not configs:
        raise UsageError(message="Training needs a configuration.", hint="Add --config FILE.")
    report = _check_labels(labels)
    files = _with_videos(labels, report, "labels")
    main = _package_name(labels, "labels")
    val_name = None
    if val_labels is not None:
        files |= _with_videos(val_labels, _check_labels(val_labels), "validation")
        val_name = _package_name(val_labels, "validation")
    summaries = []
    stages = []
    for number, path in enumerate(configs):
        summary = _read_config(path, engine)
        name = f"configs/{number}/{path.name}"
        files[check_path(name)] = path
        summaries.append(summary)
        stages.append(
            TrainStage(
                config=name,
                model_type=summary.model_type,
                run_name=_run_name(run_name, summary, labels),
            )
        )
    heads = [stage.model_type for stage in stages]
    if len(set(heads)) != len(heads):
        raise UsageError(message=f"Two of the configurations train a {_twice(heads)} model.")
    packed = pack(files, cache=cache, progress=progress)
    work = TrainSpec(
        labels=main,
        stages=tuple(stages),
        dataset_name=labels.name,
        dataset_hash=packed.file_hashes[main],
        val_labels=val_name,
    )
    spec = JobSpec(
        id=new_job_id(),
        engine=engine,
        work=work,
        inputs=ref(packed.package),
        room=room,
        name=labels.name,
    )
    return Composed(spec=spec, packed=packed, files=files, labels=report, configs=tuple(summaries))


def compose_tracking(
    videos: Sequence[Path],
    models: Sequence[Located],
    *,
    room: RoomId,
    frames: tuple[int, int] | None = None,
    tracking: bool = False,
    cache: HashCache | None = None,
    progress: Progress | None = None,
) -> Composed:
    """Hash videos and make a tracking job of them.

    Args:
        videos: The videos.
        models: One model, or a top-down pair in order.
        room: The room that the job is submitted in.
        frames: First and last frame, both included.
        tracking: Whether identities are linked over time.
        cache: Hashes of unchanged files.
        progress: Told of bytes hashed and bytes in all.

    Raises:
        NotFound: A video isn't there.
        UsageError: Models of different engines.
    """
    files: dict[str, Path] = {}
    for number, video in enumerate(videos):
        if not video.is_file():
            raise NotFound(message=f"There is no video {video}.")
        files[check_path(f"videos/{number}/{video.name}")] = video
    names = tuple(files)
    refs = tuple(model.ref for model in models)
    packed = pack(files, cache=cache, progress=progress)
    spec = JobSpec(
        id=new_job_id(),
        engine=one_engine(model.engine for model in models),
        work=TrackSpec(models=refs, videos=names, frames=frames, tracking=tracking),
        inputs=ref(packed.package),
        room=room,
        name=videos[0].name,
    )
    offered = tuple(model.ref.id for model in models if model.ref.offered is not None)
    brought = tuple(model.packed for model in models if model.packed is not None)
    return Composed(spec=spec, packed=packed, files=files, offered=offered, models=brought)


def engine_of(models: Sequence[Entry]) -> str:
    """The engine that runs these models: the one that trained them, where it is one.

    Raises:
        UsageError: They are of different engines.
    """
    return one_engine(running(entry.record.training.engine) for entry in models)


def one_engine(engines: Iterable[str]) -> str:
    """The engine that all models have.

    Raises:
        UsageError: They have several.
    """
    found = sorted(set(engines))
    if len(found) != 1:
        raise UsageError(
            message=f"These models can't run together: their engines are {', '.join(found)}."
        )
    return found[0]


def _check_labels(labels: Path) -> LabelsReport:
    if not labels.exists():
        raise InvalidLabels(path=str(labels), why="there is no such file", hint="Check the path.")
    if not labels.name.endswith(LABEL_ENDINGS):
        raise InvalidLabels(path=str(labels), why="its name doesn't end in .slp or .pkg.slp")
    report = read_labels(labels)
    if report.checked and not report.frames:
        raise InvalidLabels(path=str(labels), why="no frame in it is labelled")
    return report


def _with_videos(labels: Path, report: LabelsReport, folder: str) -> dict[str, Path]:
    """The label file, and beside it the videos that hold its images if they aren't embedded."""
    files = {_package_name(labels, folder): labels}
    if report.checked:
        check_videos(report, labels)
        for video in report.videos:
            if not video.embedded:
                files[check_path(f"{folder}/{video.name}")] = labels.parent / video.name
    elif not labels.name.endswith(".pkg.slp"):
        raise UsageError(
            message=f"Whether {labels.name} needs its videos can't be seen without h5py.",
            hint="pip install 'sleap-rtc[labels]', or save it from SLEAP as .pkg.slp.",
        )
    return files


def _package_name(labels: Path, folder: str) -> str:
    return check_path(f"{folder}/{labels.name}")


def _read_config(path: Path, engine: str) -> ConfigSummary:
    where = str(path)
    try:
        if path.stat().st_size > MAX_CONFIG:
            raise InvalidConfig(where=where, why="it is larger than 1 MiB")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InvalidConfig(where=where, why="there is no such file", hint=_CONFIG_HINT) from None
    except UnicodeDecodeError:
        why = "it is not text in UTF-8"
        raise InvalidConfig(where=where, why=why, hint=_CONFIG_HINT) from None
    except OSError as error:
        raise InvalidConfig(where=where, why=f"it can't be read ({error.strerror})") from None
    try:
        summary = find_engine(engine).read_config(text, where=where)
    except InvalidConfig as error:
        hint = error.hint_text or _CONFIG_HINT
        raise InvalidConfig(hint=hint, **error.details) from None
    if summary.refused:
        key, why = next(iter(summary.refused.items()))
        more = len(summary.refused) - 1
        rest = f" (and {more} more)" if more else ""
        hint = "Take it out of the file, or put a value there that is allowed."
        raise InvalidConfig(where=where, why=f"{key}: {why}{rest}", hint=hint)
    return summary


def _run_name(given: str | None, summary: ConfigSummary, labels: Path) -> str:
    stem = labels.name.removesuffix(".slp").removesuffix(".pkg")
    name = given or summary.run_name or f"{stem}.{summary.model_type}"
    cleaned = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)
    return cleaned[:100].lstrip(".-") or summary.model_type


def _twice(heads: list[str]) -> str:
    return next(head for head in heads if heads.count(head) > 1)
