"""How far predictions are from known points.

In each frame instances are matched to known ones by mean distance, closest pair
first, each used once; a pair further apart than ``reach`` is no match.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import sleap_io as sio

from sleap_rtc.errors import FilesMissing, InvalidLabels

REACH_PX: Final = 20.0
"""Pixels beyond which a prediction is of something else."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """How predictions compare with known points.

    Attributes:
        mean_error_px: Mean distance of predicted points of found instances; None if none was found.
        median_error_px: The median of the same.
        found: Share of known instances that were found, 0 to 1.
        points_found: Share of known points that were predicted, 0 to 1.
        extra: Predicted instances that match no known one.
        frames: Frames that were compared.
        instances: Known instances in them.
    """

    mean_error_px: float | None
    median_error_px: float | None
    found: float
    points_found: float
    extra: int
    frames: int
    instances: int


def compare(
    predictions: Path,
    truth: Path,
    *,
    frames: tuple[int, int] | None = None,
    reach_px: float = REACH_PX,
) -> Comparison:
    """Measure predictions of one video against known points.

    Args:
        predictions: A ``.slp`` with predicted instances.
        truth: A ``.slp`` with the known points of the same video.
        frames: First and last frame to compare, both included; None is all that are known.
        reach_px: How far apart a match may be, in pixels.

    Raises:
        InvalidLabels: One of them is not a label file, or their points have different names.
        FilesMissing: One of them is not there.
    """
    known, known_nodes = _points_by_frame(truth)
    found, found_nodes = _points_by_frame(predictions)
    if set(known_nodes) != set(found_nodes):
        raise InvalidLabels(
            path=predictions,
            why=f"it has the points {', '.join(found_nodes)}, and the known points are "
            f"{', '.join(known_nodes)}",
        )
    order = [found_nodes.index(name) for name in known_nodes]
    first, last = frames if frames is not None else (0, max(known, default=-1))
    indices = [index for index in known if first <= index <= last]
    errors: list[np.ndarray] = []
    instances = matched = extra = 0
    known_points = 0
    for index in indices:
        real = known[index]
        guessed = [points[order] for points in found.get(index, [])]
        pairs = match(real, guessed, reach_px=reach_px)
        instances += len(real)
        known_points += sum(int(np.isfinite(points).all(axis=-1).sum()) for points in real)
        matched += len(pairs)
        extra += len(guessed) - len(pairs)
        for a, b in pairs:
            distances = np.linalg.norm(real[a] - guessed[b], axis=-1)
            errors.append(distances[np.isfinite(distances)])
    every = np.concatenate(errors) if errors else np.empty(0)
    return Comparison(
        mean_error_px=float(every.mean()) if every.size else None,
        median_error_px=float(np.median(every)) if every.size else None,
        found=matched / instances if instances else 0.0,
        points_found=every.size / known_points if known_points else 0.0,
        extra=extra,
        frames=len(indices),
        instances=instances,
    )


def match(
    real: list[np.ndarray], guessed: list[np.ndarray], *, reach_px: float
) -> list[tuple[int, int]]:
    """Pair instances by mean distance, closest first, each used once.

    Args:
        real: Arrays of nodes x 2, missing points NaN.
        guessed: The same.
        reach_px: Mean distance in pixels beyond which there is no match.

    Returns:
        Pairs of indices into ``real`` and ``guessed``.
    """
    candidates = []
    for a, known in enumerate(real):
        for b, guess in enumerate(guessed):
            distances = np.linalg.norm(known - guess, axis=-1)
            usable = distances[np.isfinite(distances)]
            if usable.size and usable.mean() <= reach_px:
                candidates.append((float(usable.mean()), a, b))
    pairs: list[tuple[int, int]] = []
    for _, a, b in sorted(candidates):
        if all(a != used and b != taken for used, taken in pairs):
            pairs.append((a, b))
    return pairs


def _points_by_frame(path: Path) -> tuple[dict[int, list[np.ndarray]], list[str]]:
    labels = load(path)
    nodes = [node.name for node in labels.skeletons[0].nodes] if labels.skeletons else []
    frames: dict[int, list[np.ndarray]] = {}
    for frame in labels.labeled_frames:
        points = [instance.numpy()[:, :2] for instance in frame.instances]
        frames.setdefault(int(frame.frame_idx), []).extend(points)
    return frames, nodes


def load(path: Path, *, open_videos: bool = False) -> Any:
    """Read a label file with sleap-io.

    Raises:
        FilesMissing: It is not there.
        InvalidLabels: It can't be read.
    """
    if not path.is_file():
        raise FilesMissing(name=path.name, files=str(path))
    try:
        return sio.load_slp(str(path), open_videos=open_videos)
    except (OSError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        why = f"it can't be read ({type(error).__name__}: {error})"
        raise InvalidLabels(path=path, why=why) from error
