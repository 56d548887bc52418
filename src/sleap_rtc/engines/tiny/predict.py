"""Finding points in images with trained models: one alone, or a top-down pair."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from sleap_rtc.engines.tiny import samples
from sleap_rtc.engines.tiny.checkpoint import Checkpoint
from sleap_rtc.engines.tiny.network import STRIDE, Network, peaks
from sleap_rtc.errors import InvalidConfig

Array = np.ndarray

_THRESHOLD = 0.25
_MOST = 50


class Animal(msgspec.Struct, frozen=True):
    """What was found: nodes x 2 in image pixels, NaN where nothing was, and a score per node."""

    points: Array
    scores: Array
    score: float


class Predictor:
    """Models that together say where points are."""

    def __init__(self, models: Sequence[Checkpoint]) -> None:
        """Put models together.

        Raises:
            InvalidConfig: They don't make a whole: see the message.
        """
        by_type = {model.about.model_type: model for model in models}
        kinds = sorted(by_type)
        if len(by_type) != len(models) or len(models) > 2:
            raise InvalidConfig(where="models", why="there are two of a kind, or too many")
        if len(models) == 2 and kinds != ["centered_instance", "centroid"]:
            raise InvalidConfig(where="models", why=f"{' and '.join(kinds)} don't go together")
        self._models = by_type
        self._networks = {kind: Network(model.weights) for kind, model in by_type.items()}
        shown = by_type.get("centered_instance") or models[0]
        is_centroid = shown.about.model_type == "centroid"
        self.nodes = ("centroid",) if is_centroid else shown.about.nodes
        self.edges = () if is_centroid else shown.about.edges

    @property
    def is_complete(self) -> bool:
        """Whether the models need nothing but an image."""
        return set(self._models) != {"centered_instance"}

    def animals(self, image: Array) -> list[Animal]:
        """What is in an image of height x width, 0 to 1."""
        if "single_instance" in self._models:
            return self._instances("single_instance", image, None)
        centroids = self._centroids(image)
        if "centered_instance" not in self._models:
            return [Animal(point[None], np.array([score]), score) for point, score in centroids]
        found = self._instances("centered_instance", image, [point for point, _ in centroids])
        about = self._models["centered_instance"].about
        return _distinct(found, nearer=about.sigma * STRIDE * about.factor)

    def errors(self, frames: Sequence[samples.Frame]) -> tuple[list[float], int]:
        """Distances in pixels of what is found from what is known, on labelled frames.

        Crops of a ``centered_instance`` model alone are taken around the known places; animals
        that were found are matched to the nearest known one.

        Returns:
            The distances, and how many points are known.
        """
        found: list[float] = []
        wanted = 0
        for frame in frames:
            if self.is_complete:
                animals = self.animals(frame.image)
            else:
                anchor = self._models["centered_instance"].about.anchor
                places = list(samples.centres(frame.animals, anchor))
                animals = self._instances("centered_instance", frame.image, places)
            known = frame.animals
            if self.nodes == ("centroid",):
                anchor = self._models["centroid"].about.anchor
                known = samples.centres(frame.animals, anchor)[:, None]
            wanted += int(np.isfinite(known).all(axis=-1).sum())
            for animal in animals:
                distances = np.linalg.norm(known - animal.points, axis=-1)
                means = [float(d[np.isfinite(d)].mean()) for d in distances if np.isfinite(d).any()]
                if means:
                    nearest = distances[int(np.argmin(means))]
                    found.extend(float(d) for d in nearest[np.isfinite(nearest)])
        return found, wanted

    def _centroids(self, image: Array) -> list[tuple[Array, float]]:
        about = self._models["centroid"].about
        maps = self._maps("centroid", samples.shrink(image, about.factor)[None])[0, :, :, 0]
        kept: list[tuple[float, float, float]] = []
        for x, y, score in peaks(maps, threshold=_THRESHOLD, most=4 * _MOST):
            # Two peaks on one animal are nearer than two animals can be.
            if all(np.hypot(x - a, y - b) > 2.5 * about.sigma for a, b, _ in kept):
                kept.append((x, y, score))
        return [
            (samples.from_map(np.array([x, y]), about.factor), score)
            for x, y, score in kept[:_MOST]
        ]

    def _instances(self, kind: str, image: Array, places: list[Array] | None) -> list[Animal]:
        about = self._models[kind].about
        corners = [np.zeros(2)]
        cuts = [image]
        if places is not None:
            if not places:
                return []
            pairs = [samples.crop(image, place, about.crop) for place in places]
            cuts, corners = [cut for cut, _ in pairs], [corner for _, corner in pairs]
        images = np.stack([samples.shrink(cut, about.factor) for cut in cuts])
        found = []
        for maps, corner in zip(self._maps(kind, images), corners, strict=True):
            points = np.full((about.maps, 2), np.nan)
            scores = np.zeros(about.maps)
            for node in range(about.maps):
                best = peaks(maps[..., node], threshold=_THRESHOLD, most=1)
                if best:
                    x, y, scores[node] = best[0]
                    points[node] = samples.from_map(np.array([x, y]), about.factor) + corner
            if (scores > 0).any():
                found.append(Animal(points, scores, float(scores[scores > 0].mean())))
        return found

    def _maps(self, kind: str, images: Array) -> Array:
        return self._networks[kind].forward(samples.standardize(images))


def _distinct(animals: list[Animal], *, nearer: float) -> list[Animal]:
    """Without those that repeat a surer one: two centroids on one animal give its points twice.

    Args:
        animals: What was found.
        nearer: Mean distance of the points, in image pixels, below which two are one animal.

    Returns:
        The rest, the surest first.
    """
    kept: list[Animal] = []
    for animal in sorted(animals, key=lambda each: -each.score):
        apart = [np.linalg.norm(animal.points - other.points, axis=-1) for other in kept]
        if all(d[np.isfinite(d)].mean() >= nearer for d in apart if np.isfinite(d).any()):
            kept.append(animal)
    return kept
