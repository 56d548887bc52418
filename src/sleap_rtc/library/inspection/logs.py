"""Training logs and metrics, as trainers leave them beside a model.

==============  ===========================  =======================  =========
written by      epoch                        validation loss          training
==============  ===========================  =======================  =========
sleap-nn 0.3    ``epoch``, from 0            ``val/loss``             ``train/loss``, an epoch late
sleap-nn 0.0    the same, 0 twice            ``val_loss``             ``train_loss``
SLEAP ≤ 1.4     the same                     ``val_loss``             ``loss``
==============  ===========================  =======================  =========

Metrics are read from JSON, and from ``.npz`` where it holds plain numbers; the
``.npz`` that SLEAP and sleap-nn write are pickles, and are not read.
"""

from __future__ import annotations

import ast
import csv
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from sleap_rtc.domain.models import Metrics

LOG: Final = "training_log.csv"
MAX_LOG: Final = 64 * 1024 * 1024
MAX_EPOCHS: Final = 1_000_000
_MAX_METRICS: Final = 16 * 1024 * 1024

Rows = dict[int, dict[str, str]]
"""Epoch to columns of a log."""

_VALIDATION: Final = ("val/loss", "val_loss")
_TRAINING: Final = ("train/loss", "train_loss", "loss")
_SPLITS: Final = ("train", "val", "test")

_MEASURED: Final = {
    "mean_error_px": ("distance_metrics", "avg"),
    "median_error_px": ("distance_metrics", "p50"),
    "oks_mAP": ("voc_metrics", "oks_voc.mAP"),
    "mOKS": ("mOKS", "mOKS"),
    "mPCK": ("pck_metrics", "mPCK"),
}
_PLAIN_MEASURED: Final = {
    "dist.avg": "mean_error_px",
    "dist.p50": "median_error_px",
    "oks_voc.mAP": "oks_mAP",
    "oks.mOKS": "mOKS",
    "pck.mPCK": "mPCK",
}


def read_log(path: Path) -> Rows:
    """The rows of a log; one that is missing or damaged gives what can be read of it."""
    rows: Rows = {}
    try:
        if path.stat().st_size > MAX_LOG or not path.is_file():
            return rows
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            for row in csv.DictReader(file):
                epoch = number(row.get("epoch"))
                if epoch is not None and 0 <= epoch <= MAX_EPOCHS:
                    rows[int(epoch)] = {str(k): str(v) for k, v in row.items() if k and v}
    except (OSError, csv.Error):
        return rows
    return rows


def number(text: str | None) -> float | None:
    """A finite number, None for anything else."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def validation_loss(row: Mapping[str, str]) -> float | None:
    """The validation loss in a row, None where it isn't."""
    return next((loss for name in _VALIDATION if (loss := number(row.get(name))) is not None), None)


def training_loss(row: Mapping[str, str]) -> float | None:
    """The mean training loss in a row, None where it isn't."""
    return next((loss for name in _TRAINING if (loss := number(row.get(name))) is not None), None)


def lowest(rows: Rows) -> tuple[int, float] | None:
    """The epoch with the lowest validation loss, and that loss."""
    known = [(epoch, validation_loss(row)) for epoch, row in rows.items()]
    finite = [(epoch, loss) for epoch, loss in known if loss is not None]
    return min(finite, key=lambda entry: (entry[1], entry[0]), default=None)


def with_losses(rows: Rows, losses: Mapping[int, float | None]) -> Rows:
    """The log with the true mean training losses: sleap-nn's own are those of an epoch before.

    It writes in row ``n`` the loss of epoch ``n - 1``, and the last one never.

    Args:
        rows: As the trainer wrote them.
        losses: True losses by epoch, where they are known.
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


def in_step(rows: Rows) -> Rows:
    """The log with each training loss in its own epoch's row, whoever wrote it.

    A log whose training losses are an epoch late begins with a row that has none.
    """
    if len(rows) < 2:
        return rows
    first, second = sorted(rows)[:2]
    late = "train/loss" not in rows[first] and "train/loss" in rows[second]
    return with_losses(rows, {}) if late else rows


def metrics_of(files: Mapping[str, Path]) -> Metrics:
    """How well a model does, by the log and the metrics among its files.

    Args:
        files: Path in the model → where it is.
    """
    rows = in_step(read_log(files[LOG])) if LOG in files else {}
    best = lowest(rows)
    last = rows[max(rows)] if rows else {}
    return Metrics(
        final_val_loss=validation_loss(last),
        best_val_loss=None if best is None else best[1],
        final_train_loss=training_loss(last),
        epochs=max(rows) + 1 if rows else None,
        best_epoch=None if best is None else best[0],
        evaluation=evaluation(files),
    )


def evaluation(files: Mapping[str, Path]) -> dict[str, float | None]:
    """What was measured on labelled data: ``val.mean_error_px`` and so on."""
    found: dict[str, float | None] = {}
    for split in _SPLITS:
        for name in (f"metrics.{split}.0.json", f"metrics.{split}.json"):
            if name in files and (values := _from_json(files[name])):
                found |= {f"{split}.{key}": value for key, value in values.items()}
                break
        else:
            for name in (f"metrics.{split}.0.npz", f"metrics.{split}.npz"):
                if name in files and (values := _from_npz(files[name])):
                    found |= {f"{split}.{key}": value for key, value in values.items()}
                    break
    return found


def _from_json(path: Path) -> dict[str, float]:
    try:
        if path.stat().st_size > _MAX_METRICS or not path.is_file():
            return {}
        plain = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return {}
    found = {}
    for name, (group, key) in _MEASURED.items():
        value = plain.get(group)
        measured = value.get(key) if isinstance(value, dict) else None
        if isinstance(measured, (int, float)) and math.isfinite(measured):
            found[name] = float(measured)
    return found


def _from_npz(path: Path) -> dict[str, float]:
    """Plain numbers of a ``.npz``: each member has a header, and one float or integer."""
    found: dict[str, float] = {}
    try:
        if path.stat().st_size > _MAX_METRICS:
            return found
        with zipfile.ZipFile(path) as archive:
            for stored, name in _PLAIN_MEASURED.items():
                if f"{stored}.npy" not in archive.namelist():
                    continue
                with archive.open(f"{stored}.npy") as member:
                    value = _scalar(member.read(4_096))
                if value is not None and math.isfinite(value):
                    found[name] = value
    except (OSError, ValueError, RuntimeError, zlib.error, zipfile.BadZipFile, NotImplementedError):
        return {}
    return found


def _scalar(data: bytes) -> float | None:
    """The one number of an array, None for any other array."""
    if not data.startswith(b"\x93NUMPY\x01"):
        return None
    (length,) = struct.unpack_from("<H", data.ljust(10, b"\0"), 8)
    try:
        header = ast.literal_eval(data[10 : 10 + length].decode("latin-1").strip())
        if not isinstance(header, dict) or header.get("shape") not in ((), (1,)):
            return None
        form = {"<f8": "<d", "<f4": "<f", "<i8": "<q", "<i4": "<i"}.get(str(header.get("descr")))
        if form is None:
            return None
        (value,) = struct.unpack_from(form, data, 10 + length)
    except (ValueError, SyntaxError, struct.error, RecursionError, MemoryError):
        return None
    return float(value)
