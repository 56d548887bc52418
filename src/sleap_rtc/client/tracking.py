"""Running models over videos on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from sleap_rtc.client.approvals import Approvals
from sleap_rtc.client.composing import engine_of
from sleap_rtc.client.submitted import SubmittedJob
from sleap_rtc.engines.base import EngineEvent, Outcome, TrackPlan
from sleap_rtc.engines.registry import engine
from sleap_rtc.engines.threads import default_threads
from sleap_rtc.errors import AlreadyExists, FilesMissing, NotFound, TrainingFailed, UsageError
from sleap_rtc.files.durable import disk_errors, sync_file
from sleap_rtc.library.entries import Entry, Group
from sleap_rtc.library.registry import Registry


class Resolved(msgspec.Struct, frozen=True):
    """The models that a name stands for, in the order in which they run."""

    entries: tuple[Entry, ...]

    @property
    def shown(self) -> str:
        """What a person is told: every model with its id and the beginning of its content hash."""
        return " + ".join(
            f"{e.label} ({e.record.model_type} {e.id}, {(e.record.package or '?')[:12]})"
            for e in self.entries
        )


def resolve_models(registry: Registry, names: Sequence[str]) -> Resolved:
    """The models that were named: ids, prefixes, aliases, or the alias of a pair.

    Raises:
        UnknownModel: One isn't here.
        AmbiguousName: A prefix fits several.
        FilesMissing: One's files are not all here.
        UsageError: No model, or a path that no library knows.
    """
    if not names:
        raise UsageError(message="Tracking needs a model.", hint="Add --model NAME.")
    entries = resolve_names(registry, names)
    for entry in entries:
        if not is_whole(entry):
            raise FilesMissing(name=entry.label, files=", ".join(_gone(entry)) or "all of them")
    return Resolved(entries=entries)


def resolve_names(registry: Registry, names: Sequence[str]) -> tuple[Entry, ...]:
    """The models that were named, whether their files are here or not.

    Raises:
        UnknownModel: One isn't here.
        AmbiguousName: A prefix fits several.
        UsageError: A path that no library knows.
    """
    entries: list[Entry] = []
    for name in names:
        found = registry.resolve(name)
        if isinstance(found, Group):
            entries += found.entries
        elif isinstance(found, Entry):
            entries.append(found)
        else:
            raise UsageError(
                message=f"{found} is a directory that this library doesn't know.",
                hint="Name a model of the library; sleap-rtc list-models shows them.",
            )
    return tuple(entries)


def is_whole(entry: Entry) -> bool:
    """Whether a model's files are all here."""
    return bool(entry.record.files) and not _gone(entry)


def _gone(entry: Entry) -> list[str]:
    return [f.path for f in entry.record.files if not (entry.directory / f.path).is_file()]


def output_path(video: Path, given: Path | None, *, many: bool) -> Path:
    """Where the predictions of a video go: beside it by default.

    Raises:
        UsageError: One file was named for several videos.
    """
    if given is None:
        return video.with_name(f"{video.name}.predictions.slp")
    if given.suffix == ".slp":
        if many:
            raise UsageError(message="Several videos need a folder for -o, not one file.")
        return given
    return given / f"{video.name}.predictions.slp"


def deliver(job: SubmittedJob, *, overwrite: bool = False) -> dict[str, Path]:
    """Put the predictions of a job that came home where they are to be in the end. Twice is once.

    Args:
        job: A tracking job whose predictions are home.
        overwrite: Whether a file that is there already is replaced.

    Returns:
        Video's path in the package → its predictions.

    Raises:
        AlreadyExists: A file is there already; the predictions stay where they arrived.
        OutOfSpace: There is no room; so they do then.
        PathNotPermitted: This user may not write there.
    """
    if job.output is None:
        return {}
    arrived = Path(job.output)
    placed = {}
    for video, target_text in job.targets.items():
        target = Path(target_text)
        source = arrived / f"{video}.predictions.slp"
        placed[video] = target
        if not source.is_file():
            continue
        if target.exists() and not overwrite:
            hint = f"They are in {source}; move them from there."
            raise AlreadyExists(what=str(target), hint=hint)
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            # Perhaps over the border of a file system: whole or not at all.
            partial = target.with_name(f".{target.name}.partial")
            shutil.copyfile(source, partial)
            with partial.open("rb") as file:
                sync_file(file.fileno())
            partial.replace(target)
        source.unlink()
        with contextlib.suppress(OSError):  # others of its videos are still there
            for folder in (source.parent, source.parent.parent, arrived):
                folder.rmdir()
    return placed


async def track_here(
    models: Resolved,
    video: Path,
    output: Path,
    *,
    approvals: Approvals,
    frames: tuple[int, int] | None = None,
    tracking: bool = False,
    device: str = "auto",
    overwrite: bool = False,
    trust: bool = False,
) -> AsyncIterator[EngineEvent]:
    """Run models over one video with the engine that trained them.

    Yields:
        The engine's events, until the predictions are written.

    Raises:
        EngineMissing: The engine isn't installed here.
        NotFound: There is no such video.
        AlreadyExists: There are predictions at ``output`` already.
        NotTrusted: A checkpoint from elsewhere isn't clean, and ``trust`` doesn't say yes to it.
        TrainingFailed: The engine failed; the sentence has its last words.
    """
    if not video.is_file():
        raise NotFound(message=f"There is no video {video}.")
    if output.exists() and not overwrite:
        raise AlreadyExists(what=str(output), hint="Add --overwrite, or another -o.")
    for entry in models.entries:
        await asyncio.to_thread(approvals.check, entry, trust=trust)
    chosen = engine(engine_of(models.entries))
    output.parent.mkdir(parents=True, exist_ok=True)
    # The engine writes beside the target; what is there is replaced in one step, when it is whole.
    partial = output.with_name(f".{output.name}.partial.slp")
    plan = TrackPlan(
        models=tuple(entry.directory for entry in models.entries),
        video=video.resolve(),
        output=partial.resolve(),
        frames=frames,
        tracking=tracking,
        device=device,
        threads=default_threads(),
    )
    run = await chosen.start_tracking(plan)
    try:
        async for event in run.events():
            yield event
        outcome: Outcome = await run.outcome()
        if outcome.kind != "succeeded":
            why = outcome.reason or "\n".join(outcome.log_tail[-5:])
            raise TrainingFailed(what=f"Tracking {video.name}", why=why)
        partial.replace(output)
    finally:
        await run.cancel(grace_s=5.0)
        for left in (partial, partial.with_name(f"{partial.name}.log")):
            left.unlink(missing_ok=True)
