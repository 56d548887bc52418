r"""What attempts of a training left behind, put together.

::

    <attempt>/
      run/<run name>/         what sleap-nn writes
      carried/                from the attempts before: last.ckpt, best.ckpt, training_log.csv
      best.ckpt …             the model, put together when the run has ended

The trainer begins a fresh log with each attempt and forgets the best score; so the
log is stitched by epoch, and the best checkpoint is chosen over all attempts.
"""

from __future__ import annotations

import csv
import io
import os
import pickletools
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sleap_rtc.domain.models import Metrics
from sleap_rtc.files.durable import write_replacing
from sleap_rtc.library.inspection.logs import (
    LOG,
    Rows,
    evaluation,
    lowest,
    number,
    read_log,
    with_losses,
)

BEST: Final = "best.ckpt"
LAST: Final = "last.ckpt"
_MAX_PICKLE: Final = 64 * 1024 * 1024
_KEPT: Final = ("initial_config.yaml", "training_config.yaml")
_LABELS: Final = ("labels_gt", "labels_pr", "metrics")


def run_directory(attempt: Path, run_name: str) -> Path:
    """Where the trainer writes."""
    return attempt / "run" / run_name


def find(attempt: Path, name: str) -> Path | None:
    """A file of an attempt: of its own run, else what it was given to go on from.

    A directory that holds a model's files alone is as good as an attempt.
    """
    own = [path for path in attempt.glob(f"run/*/{name}") if path.is_file()]
    if own:
        return max(own, key=lambda path: path.stat().st_mtime_ns)
    for path in (attempt / "carried" / name, attempt / name):
        if path.is_file():
            return path
    return None


def epochs_in(checkpoint: Path) -> int | None:
    """Whole epochs in a checkpoint, None when it is damaged.

    The trainer's checkpoints are pickles in a zip archive. Nothing is unpickled: its instructions
    are read up to the number behind the word ``epoch``, which counts from 0.
    """
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            name = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
            if archive.getinfo(name).file_size > _MAX_PICKLE:
                return None
            last: object = None
            for operation, value, _ in pickletools.genops(archive.read(name)):
                if "PUT" in operation.name or operation.name == "MEMOIZE":
                    continue
                if last == "epoch":
                    return value + 1 if isinstance(value, int) and value >= 0 else None
                last = value
    except (OSError, ValueError, StopIteration, zipfile.BadZipFile, NotImplementedError):
        return None
    return None


def carry(previous: Path, attempt: Path) -> Path | None:
    """Take over what the attempt before left, so that this one stands for both.

    Returns:
        The checkpoint to go on from, inside ``attempt``; None when there is none.
    """
    carried = attempt / "carried"
    carried.mkdir(parents=True, exist_ok=True)
    last = find(previous, LAST)
    if last is None:
        return None
    _place(last, carried / LAST)
    best = best_checkpoint(previous)
    if best is not None:
        _place(best, carried / BEST)
    # A run that was followed to its end left a log with the true losses; else the raw one does.
    rows = read_log(previous / LOG) or stitched(previous, {})
    if rows:
        write_replacing(carried / LOG, to_csv(rows))
    return carried / LAST


def _place(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where that isn't possible.

    The trainer never writes into a checkpoint: it replaces it.
    """
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def stitched(attempt: Path, losses: Mapping[int, float | None]) -> Rows:
    """The log of an attempt and all before it; where epochs were done twice the later count.

    Args:
        attempt: The attempt's directory.
        losses: True mean training losses by epoch, where they are known.
    """
    rows = read_log(attempt / "carried" / LOG)
    own = find(attempt, LOG)
    if own is not None and own.parent.name != "carried":
        fresh = with_losses(read_log(own), losses)
        first = min(fresh, default=0)
        rows = {epoch: row for epoch, row in rows.items() if epoch < first} | fresh
    return rows


def best_checkpoint(attempt: Path) -> Path | None:
    """The best checkpoint over this attempt and all before it."""
    carried = attempt / "carried" / BEST
    own = find(attempt, BEST)
    if own is None or own == carried:
        return own
    if not carried.is_file():
        return own
    before = lowest(read_log(attempt / "carried" / LOG))
    log = find(attempt, LOG)
    now = lowest({} if log is None else read_log(log))
    return carried if before is not None and (now is None or before[1] <= now[1]) else own


def to_csv(rows: Rows) -> bytes:
    """Rows as a log, in the order of epochs; columns in the order in which they appear."""
    columns = dict.fromkeys(["epoch", *(key for row in rows.values() for key in row)])
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**rows[epoch], "epoch": str(epoch)} for epoch in sorted(rows))
    return text.getvalue().encode()


def assemble(
    attempt: Path, run_name: str, losses: Mapping[int, float | None], *, with_last: bool
) -> tuple[str, ...]:
    """Put the model's files together in the attempt's directory.

    Args:
        attempt: The attempt's directory.
        run_name: Names the run's output.
        losses: True mean training losses by epoch, where they are known.
        with_last: Whether the checkpoint to go on from belongs to it.

    Returns:
        Their names, the best checkpoint first; without a best checkpoint there is no model.
    """
    best, last = best_checkpoint(attempt), find(attempt, LAST)
    names: list[str] = []
    if best is not None:
        if best != attempt / BEST:
            _place(best, attempt / BEST)
        names.append(BEST)
    if with_last and last is not None:
        if last != attempt / LAST:
            _place(last, attempt / LAST)
        names.append(LAST)
    run = run_directory(attempt, run_name)
    for name in _KEPT:
        if (run / name).is_file():
            _place(run / name, attempt / name)
            names.append(name)
    rows = stitched(attempt, losses)
    if rows:
        write_replacing(attempt / LOG, to_csv(rows))
        names.append(LOG)
    for path in sorted(run.glob("*")):
        # The .npz beside each of these is a pickle, and is left where it is.
        if path.name.startswith(_LABELS) and path.suffix in (".slp", ".json"):
            _place(path, attempt / path.name)
            names.append(path.name)
    return tuple(names)


def metrics(attempt: Path, epochs: int | None) -> Metrics:
    """Losses from the assembled log, and what the trainer measured on labelled data."""
    rows = read_log(attempt / LOG)
    best = lowest(rows)
    last = rows[max(rows)] if rows else {}
    return Metrics(
        final_val_loss=number(last.get("val/loss")),
        best_val_loss=None if best is None else best[1],
        final_train_loss=number(last.get("train/loss")),
        epochs=epochs,
        best_epoch=None if best is None else best[0],
        evaluation=evaluation(_files(attempt)),
    )


def _files(attempt: Path) -> dict[str, Path]:
    return {path.name: path for path in attempt.glob("metrics.*.json")}
