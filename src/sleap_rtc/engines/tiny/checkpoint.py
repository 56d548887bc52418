"""Checkpoints: a ``.npz`` of plain arrays, never pickled, replaced whole or not at all.

::

    about              JSON as bytes: what the model is, epochs, best loss
    weights/<name>     the network
    first/<name>       Adam's first moments, in last.npz alone
    second/<name>      Adam's second moments, in last.npz alone
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from sleap_rtc.engines.tiny.network import Adam, Weights, shapes
from sleap_rtc.errors import Damaged, FilesMissing
from sleap_rtc.files.durable import write_replacing

BEST: Final = "best.npz"
LAST: Final = "last.npz"
_MAX_SIZE: Final = 64 * 1024 * 1024
"""Bytes of a checkpoint, unpacked; the widest network with 1,000 points has 1 MiB."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint is of.

    Attributes:
        model_type: The head.
        nodes: Names of the points.
        edges: Pairs of indices of points.
        maps: Channels of the network's output.
        filters: Width of the network.
        factor: Image pixels per input pixel.
        sigma: Width of a bump in map pixels.
        crop: Side of a crop in image pixels; 0 for whole images.
        anchor: Index of the point that stands for an animal, None: the mean of all.
        epochs: Whole epochs done.
        steps: Steps of the optimizer done.
        best_loss: Lowest validation loss so far.
        best_epoch: The epoch of it, from 0.
    """

    model_type: str
    nodes: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    maps: int
    filters: int
    factor: int
    sigma: float
    crop: int
    anchor: int | None = None
    epochs: int = 0
    steps: int = 0
    best_loss: float | None = None
    best_epoch: int | None = None


class Checkpoint(msgspec.Struct, frozen=True):
    """What was read: ``adam`` is None where the optimizer's state wasn't kept."""

    about: About
    weights: Weights
    adam: Adam | None


def save(path: Path, about: About, weights: Weights, adam: Adam | None = None) -> None:
    """Write a checkpoint in place of the one that is there.

    Raises:
        OutOfSpace: The disk is full; the old one stands.
    """
    arrays = {"about": np.frombuffer(msgspec.json.encode(about), np.uint8)}
    arrays |= {f"weights/{name}": value for name, value in weights.items()}
    if adam is not None:
        arrays |= {f"first/{name}": value for name, value in adam.first.items()}
        arrays |= {f"second/{name}": value for name, value in adam.second.items()}
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, **arrays)
    write_replacing(path, packed.getvalue())


def load(path: Path, *, rate: float = 0.0) -> Checkpoint:
    """Read a checkpoint; it may come from anybody.

    Args:
        path: The file.
        rate: Learning rate for the optimizer, if its state is there.

    Raises:
        FilesMissing: It isn't there.
        Damaged: It isn't a checkpoint of this engine, or it contradicts itself.
    """
    if not path.is_file():
        raise FilesMissing(name=path.parent.name, files=path.name)
    try:
        arrays = _arrays(path)
        about = msgspec.json.decode(arrays.pop("about").tobytes(), type=About)
        weights = _group(arrays, "weights", about)
        adam = None
        if any(name.startswith("first/") for name in arrays):
            adam = Adam(weights, rate=rate)
            adam.first = _group(arrays, "first", about)
            adam.second = _group(arrays, "second", about)
            adam.steps = about.steps
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise Damaged(what=str(path), why=f"{type(error).__name__}: {error}") from error
    return Checkpoint(about=about, weights=weights, adam=adam)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > _MAX_SIZE:
            raise ValueError("it is larger than any checkpoint of this engine")
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _group(arrays: dict[str, np.ndarray], group: str, about: About) -> Weights:
    if not (1 <= about.filters <= 1_024 and 1 <= about.maps <= 1_000 and 1 <= about.factor <= 64):
        raise ValueError("its sizes are out of range")
    found: Weights = {}
    for layer, (rows, columns) in shapes(about.filters, about.maps).items():
        for name, shape in ((f"{layer}.w", (rows, columns)), (f"{layer}.b", (columns,))):
            array = arrays[f"{group}/{name}"]
            if array.shape != shape or array.dtype != np.float32 or not np.isfinite(array).all():
                raise ValueError(f"{group}/{name} doesn't fit the network")
            found[name] = array
    return found
