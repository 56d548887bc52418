"""From an attempt's folder into the library: what was trained is kept, whatever happens next.

The files are linked (or copied, to another file system) into a folder below the
library's ``.incoming``, and adopted from there. The attempt's folder stays as it
is until the model is complete, so all of this can be done again after a kill.
"""

from __future__ import annotations

import os
import shutil
from datetime import datetime
from pathlib import Path

from sleap_rtc.domain.models import Interruption, ModelFile, ModelRecord
from sleap_rtc.domain.packages import PackageRef, check_path, ref
from sleap_rtc.errors import TrainingFailed
from sleap_rtc.files.durable import disk_errors, sync_directory, sync_file
from sleap_rtc.files.packing import pack
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.inspection.listed import looked_into
from sleap_rtc.library.layout import INCOMING
from sleap_rtc.library.registry import Registry
from sleap_rtc.worker.runner import records
from sleap_rtc.worker.runner.attempts import Attempt, Ended
from sleap_rtc.worker.runner.records import Kept


def keep_result(
    library: Registry, record: ModelRecord, attempt: Attempt, ended: Ended, *, at: datetime
) -> tuple[ModelRecord, PackageRef]:
    """Put a trained model into the library. Doing it again is safe.

    Args:
        library: The worker's library.
        record: The model, in training.
        attempt: The attempt that trained it.
        ended: How that ended.
        at: Now.

    Returns:
        The model as it stands, and the package of its files.

    Raises:
        TrainingFailed: There is no checkpoint.
        OutOfSpace: The disk is full; the attempt's folder has everything.
        SleapRtcError: Files are not there, are links, or changed meanwhile.
    """
    outcome, root = ended.outcome, attempt.plan.directory
    if outcome.best is None or not outcome.files:
        why = (
            "it was stopped before its first epoch was whole, so there is no model."
            if outcome.kind == "stopped"
            else "the engine names no checkpoint of the model."
        )
        raise TrainingFailed(what=f"Training {record.model_type}", why=why)
    kept = hash_files(root, outcome.files)
    done = records.completed(
        record,
        outcome,
        kept,
        root=root,
        duration_s=attempt.earlier_s + ended.duration_s,
        at=at,
    )
    return _adopt(library, done, root).record, kept.package


def keep_checkpoint(
    library: Registry,
    record: ModelRecord,
    attempt: Attempt,
    ended: Ended,
    *,
    reason: str,
    failed: bool,
) -> ModelRecord:
    """Keep what a training left that didn't end well. Doing it again is safe.

    An attempt that wrote no checkpoint leaves the model where it was before.

    Args:
        library: The worker's library.
        record: The model, in training.
        attempt: The attempt.
        ended: How it ended.
        reason: One sentence.
        failed: Whether it was its own fault.

    Returns:
        The model as it stands, interrupted or failed.

    Raises:
        OutOfSpace: The disk is full; the attempt's folder has everything.
        SleapRtcError: Files are not there, are links, or changed meanwhile.
    """
    outcome, root = ended.outcome, attempt.plan.directory
    if outcome.last is None or not outcome.epochs:
        return keep_nothing(library, record, attempt.point, reason=reason, failed=failed)
    named = [path.relative_to(root).as_posix() for path in (outcome.best, outcome.last) if path]
    kept = hash_files(root, tuple(dict.fromkeys([*outcome.files, *named])))
    left = records.unfinished(
        record,
        outcome,
        kept,
        root=root,
        duration_s=attempt.earlier_s + ended.duration_s,
        reason=reason,
        failed=failed,
    )
    return _adopt(library, left, root).record


def keep_nothing(
    library: Registry,
    record: ModelRecord,
    point: Interruption | None,
    *,
    reason: str,
    failed: bool,
) -> ModelRecord:
    """Say that a training ended without leaving anything new.

    Args:
        library: The worker's library.
        record: The model.
        point: Where it can go on, from an attempt before.
        reason: One sentence.
        failed: Whether it was its own fault.

    Returns:
        The model as it stands.
    """
    if failed:
        return library.mark_failed(record.id, reason).record
    before = point or Interruption(epoch=0)
    return library.mark_interrupted(
        record.id, before.checkpoint, before.epoch, reason=reason[:1_000]
    ).record


def hash_files(root: Path, names: tuple[str, ...]) -> Kept:
    """Hash an attempt's files.

    Args:
        root: The attempt's folder; nothing outside it is followed.
        names: Relative paths.

    Raises:
        UnsafePath: A path that is refused, or a link.
        NotFound: A file isn't there.
    """
    packed = pack({name: root / name for name in names}, root=root)
    files = tuple(
        ModelFile(path=entry.path, size=entry.size, blake3=packed.file_hashes[entry.path])
        for entry in packed.package.files
    )
    return Kept(files=looked_into(files, root), package=ref(packed.package))


def _adopt(library: Registry, record: ModelRecord, root: Path) -> Entry:
    """Put the files that a record lists into its model's directory, and write the record."""
    staged = library.models_dir / INCOMING / f"{record.training.job}-{record.directory}"
    with disk_errors(staged, need=record.size):
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        try:
            for file in record.files:
                _bring(root / check_path(file.path), staged / file.path)
            sync_directory(staged)
            return library.adopt_files(record.id, staged, record)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def _bring(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target, follow_symlinks=False)
    with target.open("rb") as file:
        sync_file(file.fileno())
    sync_directory(target.parent)
