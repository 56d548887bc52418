"""A heatmap network and its optimizer, in numpy.

::

    image 1 ── conv F, stride 2 ──┬── conv 2F, stride 2 ── conv 2F ── conv 2F, spread 2 ──┐
                                  └────────────── beside ── 2 x enlarged ─────────────────┴─
                                                            ── conv F ── 1 x 1 ── a map per point

Arrays are N, height, width, channels, in single precision. Height and width are
multiples of :data:`GRID`; maps have half the image's resolution. The receptive field
is 43 pixels, so what is to be found should be of that size after scaling.
"""

from __future__ import annotations

from typing import Final

import numpy as np

Array = np.ndarray
Weights = dict[str, Array]

STRIDE: Final = 2
"""Image pixels per map pixel."""
GRID: Final = 4
"""Height and width of an image must be multiples of this."""

# Name: (kernel, stride, spread); channels follow from the number of filters.
_LAYERS: Final = {
    "enter": (3, 2, 1),
    "down": (3, 2, 1),
    "deep": (3, 1, 1),
    "wide": (3, 1, 2),
    "join": (3, 1, 1),
    "maps": (1, 1, 1),
}


def new_weights(filters: int, maps: int, rng: np.random.Generator) -> Weights:
    """Weights to start from (He initialization; no map says anything yet)."""
    channels = shapes(filters, maps)
    weights: Weights = {}
    for name, (rows, columns) in channels.items():
        scale = 0.0 if name == "maps" else np.sqrt(2.0 / rows)
        weights[f"{name}.w"] = (scale * rng.standard_normal((rows, columns))).astype(np.float32)
        weights[f"{name}.b"] = np.zeros(columns, np.float32)
    return weights


def shapes(filters: int, maps: int) -> dict[str, tuple[int, int]]:
    """Rows and columns of each layer's matrix."""
    channels = {
        "enter": (1, filters),
        "down": (filters, 2 * filters),
        "deep": (2 * filters, 2 * filters),
        "wide": (2 * filters, 2 * filters),
        "join": (3 * filters, filters),
        "maps": (filters, maps),
    }
    return {
        name: (_LAYERS[name][0] ** 2 * inner, outer) for name, (inner, outer) in channels.items()
    }


class Network:
    """Weights, and what is needed to run them forwards and backwards."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self._seen: dict[str, tuple[Array, tuple[int, ...], Array]] = {}

    def forward(self, images: Array) -> Array:
        """Maps of N x H/2 x W/2 x points for images of N x H x W x 1."""
        enter = self._layer("enter", images)
        down = self._layer("down", enter)
        deep = self._layer("deep", down)
        # Added, not replaced: gradients reach the first layers unweakened.
        wide = self._layer("wide", deep) + deep
        large = wide.repeat(2, axis=1).repeat(2, axis=2)
        join = self._layer("join", np.concatenate([enter, large], axis=-1))
        return self._layer("maps", join, rectify=False)

    def backward(self, gradient: Array) -> Weights:
        """Gradients of all weights for the images that :meth:`forward` saw last."""
        found: Weights = {}
        join = self._back("maps", gradient, found)
        both = self._back("join", join, found)
        filters = self.weights["enter.b"].size
        enter, large = both[..., :filters], both[..., filters:]
        n, h, w, c = large.shape
        wide = large.reshape(n, h // 2, 2, w // 2, 2, c).sum(axis=(2, 4))
        deep = self._back("wide", wide, found) + wide
        down = self._back("deep", deep, found)
        self._back("enter", enter + self._back("down", down, found), found, last=True)
        return found

    def _layer(self, name: str, images: Array, *, rectify: bool = True) -> Array:
        kernel, stride, spread = _LAYERS[name]
        columns = _columns(images, kernel, stride, spread)
        out = columns @ self.weights[f"{name}.w"] + self.weights[f"{name}.b"]
        if rectify:
            np.maximum(out, 0, out=out)
        self._seen[name] = (columns, images.shape, out)
        return np.asarray(out)

    def _back(self, name: str, gradient: Array, found: Weights, *, last: bool = False) -> Array:
        kernel, stride, spread = _LAYERS[name]
        columns, shape, out = self._seen.pop(name)
        if name != "maps":
            gradient = gradient * (out > 0)
        flat = gradient.reshape(-1, gradient.shape[-1])
        found[f"{name}.w"] = columns.reshape(-1, columns.shape[-1]).T @ flat
        found[f"{name}.b"] = flat.sum(axis=0)
        if last:
            return gradient
        return _uncolumns(gradient @ self.weights[f"{name}.w"].T, shape, kernel, stride, spread)


def _columns(images: Array, kernel: int, stride: int, spread: int) -> Array:
    """For each place its neighbourhood in one row, so that a convolution is one product."""
    if kernel == 1:
        return images
    h, w = images.shape[1:3]
    edge = spread * (kernel // 2)
    padded = np.pad(images, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    parts = [
        padded[:, y * spread : y * spread + h : stride, x * spread : x * spread + w : stride]
        for y in range(kernel)
        for x in range(kernel)
    ]
    return np.concatenate(parts, axis=-1)


def _uncolumns(
    columns: Array, shape: tuple[int, ...], kernel: int, stride: int, spread: int
) -> Array:
    """The reverse of :func:`_columns`: every neighbour's share is added where it came from."""
    if kernel == 1:
        return columns
    n, h, w, c = shape
    edge = spread * (kernel // 2)
    padded = np.zeros((n, h + 2 * edge, w + 2 * edge, c), np.float32)
    for index in range(kernel * kernel):
        y, x = divmod(index, kernel)
        part = columns[..., index * c : (index + 1) * c]
        padded[:, y * spread : y * spread + h : stride, x * spread : x * spread + w : stride] += (
            part
        )
    return padded[:, edge : edge + h, edge : edge + w]


class Adam:
    """The optimizer of that name (Kingma and Ba, 2015)."""

    def __init__(self, weights: Weights, *, rate: float) -> None:
        self.rate = rate
        self.steps = 0
        self.first = {name: np.zeros_like(value) for name, value in weights.items()}
        self.second = {name: np.zeros_like(value) for name, value in weights.items()}

    def step(self, weights: Weights, gradients: Weights) -> None:
        """Change the weights, in place."""
        self.steps += 1
        scale = self.rate * np.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
        for name, gradient in gradients.items():
            first, second = self.first[name], self.second[name]
            first += 0.1 * (gradient - first)
            second += 0.001 * (gradient * gradient - second)
            weights[name] -= (scale * first / (np.sqrt(second) + 1e-8)).astype(np.float32)


def loss_and_gradient(maps: Array, wanted: Array, known: Array) -> tuple[float, Array]:
    """Squared error, in which the few places near a point weigh as much as the many others.

    Args:
        maps: What the network says.
        wanted: What it should say.
        known: N x points; 0 for points that aren't labelled, which teach nothing.
    """
    weight = (1 + 20 * wanted) * known[:, None, None, :]
    difference = maps - wanted
    loss = float((weight * difference * difference).mean())
    return loss, (2.0 / maps.size) * weight * difference


def peaks(scores: Array, *, threshold: float, most: int) -> list[tuple[float, float, float]]:
    """Local maxima of one map, strongest first.

    Returns:
        (x, y, score) in map pixels, between pixels by the weight of their surroundings.
    """
    padded = np.pad(scores, 1, constant_values=-np.inf)
    h, w = scores.shape
    around = np.max(
        [padded[y : y + h, x : x + w] for y in range(3) for x in range(3) if (y, x) != (1, 1)],
        axis=0,
    )
    rows, columns = np.nonzero((scores >= around) & (scores > threshold))
    order = np.argsort(-scores[rows, columns], kind="stable")[:most]
    return [_refined(scores, int(rows[i]), int(columns[i])) for i in order]


def _refined(scores: Array, row: int, column: int) -> tuple[float, float, float]:
    top, left = max(0, row - 2), max(0, column - 2)
    window = np.clip(scores[top : row + 3, left : column + 3], 0, None)
    total = float(window.sum())
    ys, xs = np.mgrid[top : top + window.shape[0], left : left + window.shape[1]]
    x = float((window * xs).sum()) / total
    y = float((window * ys).sum()) / total
    return x, y, float(scores[row, column])
