"""From labelled frames to what the network is shown: scaled images or crops, and heatmaps.

Coordinates: image pixels as labels have them; *input* pixels after scaling by a whole
factor; *map* pixels, :data:`~sleap_rtc.engines.tiny.network.STRIDE` times coarser.
A point at ``x`` in the image is at ``(x + 0.5) / factor - 0.5`` in the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import sleap_io as sio

from sleap_rtc.engines.tiny.network import GRID, STRIDE
from sleap_rtc.errors import FilesMissing, InvalidLabels

Array = np.ndarray


class Frame(msgspec.Struct, frozen=True):
    """A labelled frame.

    Attributes:
        image: Height x width, 0 to 1.
        animals: Animals x points x 2, in image pixels, NaN where not labelled.
    """

    image: Array
    animals: Array


class Labelled(msgspec.Struct, frozen=True):
    """What a label file holds.

    Attributes:
        frames: Frames with at least one labelled animal.
        nodes: Names of the points.
        edges: Pairs of indices of points.
    """

    frames: list[Frame]
    nodes: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]


def read_frames(path: Path) -> Labelled:
    """Read every labelled frame and its image into memory.

    Raises:
        FilesMissing: The label file isn't there.
        InvalidLabels: It can't be read, holds no labelled animal, or lacks an image.
    """
    if not path.is_file():
        raise FilesMissing(name=path.name, files=str(path))
    try:
        labels = sio.load_slp(str(path))
    except (OSError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        why = f"it can't be read ({type(error).__name__}: {error})"
        raise InvalidLabels(path=path, why=why) from error
    if not labels.skeletons:
        raise InvalidLabels(path=path, why="it has no skeleton")
    skeleton = labels.skeletons[0]
    frames = []
    for labelled in labels.labeled_frames:
        animals = [i.numpy()[:, :2] for i in labelled.user_instances]
        animals = [points for points in animals if np.isfinite(points).all(axis=-1).any()]
        if animals:
            frames.append(Frame(image=_image(labelled, path), animals=np.stack(animals)))
    if not frames:
        raise InvalidLabels(path=path, why="it has no labelled animal")
    return Labelled(
        frames=frames,
        nodes=tuple(node.name for node in skeleton.nodes),
        edges=tuple((int(a), int(b)) for a, b in skeleton.edge_inds),
    )


def _image(labelled: Any, path: Path) -> Array:
    try:
        return grey(labelled.image)
    except (OSError, ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        why = f"the image of frame {labelled.frame_idx} can't be read ({error})"
        raise InvalidLabels(path=path, why=why) from error


def grey(image: Array) -> Array:
    """Height x width, 0 to 1, of an image with or without colours, 8 bits."""
    if image.ndim == 3:
        image = image[..., 0] if image.shape[-1] == 1 else image[..., :3].mean(axis=-1)
    return np.asarray(image, np.float32) / 255.0


def shrink(image: Array, factor: int) -> Array:
    """The image with ``factor`` x ``factor`` pixels made one, padded to the network's grid."""
    step = factor * GRID
    height, width = (-(-size // step) * step for size in image.shape)
    padded = np.pad(image, ((0, height - image.shape[0]), (0, width - image.shape[1])), mode="edge")
    small = padded.reshape(height // factor, factor, width // factor, factor)
    return np.asarray(small.mean(axis=(1, 3)), np.float32)


def standardize(images: Array) -> Array:
    """Each image with mean 0 and spread 1: light and camera settings matter less."""
    mean = images.mean(axis=(1, 2), keepdims=True)
    spread = images.std(axis=(1, 2), keepdims=True)
    return np.asarray(((images - mean) / (spread + 0.02))[..., None], np.float32)


def crop(image: Array, centre: Array, size: int) -> tuple[Array, Array]:
    """A square around ``centre``, and where its corner is; beyond the border the edge goes on."""
    corner = np.rint(centre - (size - 1) / 2).astype(int)
    ys = np.clip(np.arange(corner[1], corner[1] + size), 0, image.shape[0] - 1)
    xs = np.clip(np.arange(corner[0], corner[0] + size), 0, image.shape[1] - 1)
    return image[np.ix_(ys, xs)], corner


def to_map(points: Array, factor: int) -> Array:
    """From image pixels to map pixels."""
    return np.asarray((points + 0.5) / (factor * STRIDE) - 0.5)


def from_map(points: Array, factor: int) -> Array:
    """From map pixels to image pixels."""
    return np.asarray((points + 0.5) * (factor * STRIDE) - 0.5)


def heatmaps(points: Array, shape: tuple[int, int], sigma: float) -> Array:
    """A bump at each point.

    Args:
        points: Channels x animals x 2 in map pixels; NaN makes none.
        shape: Height and width of a map.
        sigma: Width of a bump in map pixels.

    Returns:
        Height x width x channels; where bumps meet the higher counts.
    """
    ys, xs = np.arange(shape[0])[:, None, None], np.arange(shape[1])[None, :, None]
    maps = np.zeros((*shape, len(points)), np.float32)
    for animal in range(points.shape[1]):
        x, y = points[:, animal, 0], points[:, animal, 1]
        bump = np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * sigma * sigma))
        np.maximum(maps, np.nan_to_num(bump), out=maps)
    return maps


def centres(animals: Array, anchor: int | None) -> Array:
    """Where animals are: the anchor point where that is labelled, else the mean of all points."""
    mean = np.nanmean(animals, axis=1)
    if anchor is None:
        return np.asarray(mean)
    chosen = animals[:, anchor]
    return np.asarray(np.where(np.isfinite(chosen).all(axis=-1, keepdims=True), chosen, mean))


def turned(image: Array, maps: Array, quarter: int) -> tuple[Array, Array]:
    """Image and maps turned by quarters."""
    return np.rot90(image, quarter), np.rot90(maps, quarter)


def fitting_crop(frames: Sequence[Frame], factor: int) -> int:
    """Pixels of a square that holds any of the animals with room around, on the grid."""
    extents = []
    for frame in frames:
        low, high = np.nanmin(frame.animals, axis=1), np.nanmax(frame.animals, axis=1)
        extents.append(float((high - low).max()))
    step = GRID * factor
    return max(4 * step, int(-(-(1.5 * max(extents) + 8) // step) * step))
