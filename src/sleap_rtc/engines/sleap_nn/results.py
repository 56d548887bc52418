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
import math
import os
import pickletools
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from sleap_rtc.domain.models import Metrics
from sleap_rtc.files.durable import write_replacing

BEST: Final = "best.ckpt"
LAST: Final = "last.ckpt"
LOG: Final = "training_log.csv"
_MAX_LOG: Final = 64 * 1024 * 1024
_MAX_PICKLE: Final = 64 * 1024 * 1024
_MAX_METRICS: Final = 16 * 1024 * 1024
_KEPT: Final = ("initial_config.yaml", "training_config.yaml")
_LABELS: Final = ("labels_gt", "labels_pr", "metrics")

Rows = dict[int, dict[str, str]]
"""Epoch to columns of the log."""


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


def lowest(rows: Rows) -> tuple[int, float] | None:
    """The epoch with the lowest validation loss, and that loss."""
    known = [(epoch, number(row.get("val/loss"))) for epoch, row in rows.items()]
    finite = [(epoch, loss) for epoch, loss in known if loss is not None]
    return min(finite, key=lambda entry: (entry[1], entry[0]), default=None)


def read_log(path: Path) -> Rows:
    """The rows of a log; one that is missing or damaged gives what can be read of it."""
    rows: Rows = {}
    try:
        if path.stat().st_size > _MAX_LOG:
            return rows
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            for row in csv.DictReader(file):
                epoch = number(row.get("epoch"))
                if epoch is not None and epoch >= 0:
                    rows[int(epoch)] = {str(k): str(v) for k, v in row.items() if k and v}
    except (OSError, csv.Error):
        return rows
    return rows


def to_csv(rows: Rows) -> bytes:
    """Rows as a log, in the order of epochs; columns in the order in which they appear."""
    columns = dict.fromkeys(["epoch", *(key for row in rows.values() for key in row)])
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**rows[epoch], "epoch": str(epoch)} for epoch in sorted(rows))
    return text.getvalue().encode()


def number(text: str | None) -> float | None:
    """A finite number, None for anything else."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def with_losses(rows: Rows, losses: Mapping[int, float | None]) -> Rows:
    """The log with the true mean training losses: the trainer's own are those of an epoch before.

    The trainer writes in row ``n`` the loss of epoch ``n - 1``, and the last one never.
    """
    shifted = {epoch - 1: row.get("train/loss") for epoch, row in rows.items()}
    mended: Rows = {}
    for epoch, row in rows.items():
        loss = losses.get(epoch)
        text = repr(loss) if loss is not None else shifted.get(epoch)
        mended[epoch] = {k: v for k, v in row.items() if k != "train/loss"}
        if text:
            mended[epoch]["train/loss"] = text
    return mended


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
        evaluation=_evaluation(attempt),
    )


_MEASURED: Final = {
    "mean_error_px": ("distance_metrics", "avg"),
    "median_error_px": ("distance_metrics", "p50"),
    "oks_mAP": ("voc_metrics", "oks_voc.mAP"),
    "mOKS": ("mOKS", "mOKS"),
    "mPCK": ("pck_metrics", "mPCK"),
}


def _evaluation(attempt: Path) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for split in ("train", "val"):
        path = attempt / f"metrics.{split}.0.json"
        try:
            if path.stat().st_size > _MAX_METRICS:
                continue
            plain = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.MsgspecError):
            continue
        for name, (group, key) in _MEASURED.items():
            value = plain.get(group)
            measured = value.get(key) if isinstance(value, dict) else None
            if isinstance(measured, (int, float)) and math.isfinite(measured):
                found[f"{split}.{name}"] = float(measured)
    return found
