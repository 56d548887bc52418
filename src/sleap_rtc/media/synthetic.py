"""A labelled data set that the product makes itself: moving animals on a textured ground.

::

    directory/
      labels.pkg.slp    labelled frames with their images inside: what people send to a worker
      labels.slp        the same labels, naming labelled.mp4
      labelled.mp4      the clip they were taken from
      video.mp4         a later clip of the same animals: nothing in it was labelled
      truth.slp         where every point is in every frame of video.mp4

Each animal is a bright head, a grey body and a dark tail that follow a smooth
path, bent where it turns, so that its points can be told apart by looks alone.
The same specification gives the same points and the same frames, wherever it is made.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import sleap_io as sio

from sleap_rtc.errors import UsageError
from sleap_rtc.media.readers import readers_closed

NODES: Final = ("head", "body", "tail")
_SPACING: Final = 0.075
"""Distance of neighbouring points, as a share of the frame's shorter side."""
_SETTLE: Final = 50
"""Steps before the first frame, in which the animals move apart."""


class SyntheticSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to make.

    Attributes:
        size: Height and width in pixels, multiples of 16, 64 to 1024.
        animals: 1 to 4.
        nodes: Names of an animal's points from head to tail, 2 to 6.
        labelled: Labelled frames, 2 to 2,000.
        frames: Frames of the unlabelled clip, 1 to 20,000.
        fps: Frames per second.
        seed: Chooses ground and paths.
    """

    size: tuple[int, int] = (192, 192)
    animals: int = 2
    nodes: tuple[str, ...] = NODES
    labelled: int = 40
    frames: int = 100
    fps: int = 15
    seed: int = 7

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: Out of range.
        """
        for name, value, low, high in (
            ("height", self.size[0], 64, 1024),
            ("width", self.size[1], 64, 1024),
            ("animals", self.animals, 1, 4),
            ("nodes", len(self.nodes), 2, 6),
            ("labelled", self.labelled, 2, 2_000),
            ("frames", self.frames, 1, 20_000),
            ("fps", self.fps, 1, 240),
        ):
            if not low <= value <= high:
                raise UsageError(message=f"A made data set has {name} {low} to {high}, not {value}")
        # Video encoders stretch frames to whole blocks, and that would move the known points.
        if self.size[0] % 16 or self.size[1] % 16:
            why = "A made data set has height and width that are multiples of 16"
            raise UsageError(message=f"{why}, not {self.size[0]} and {self.size[1]}")
        if len(set(self.nodes)) != len(self.nodes):
            raise UsageError(message="A made data set has nodes with different names")


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """Where it was written.

    Attributes:
        package: Labels with images inside.
        labels: Labels that name ``labelled_video``.
        labelled_video: The clip of the labelled frames.
        video: The clip to track.
        truth: The known points of ``video``.
        spec: What was made.
    """

    package: Path
    labels: Path
    labelled_video: Path
    video: Path
    truth: Path
    spec: SyntheticSpec


def make_dataset(directory: Path, spec: SyntheticSpec | None = None) -> Dataset:
    """Make a data set in ``directory``, which is created if need be; files there are replaced.

    Takes about 1 s per 100 frames of 192 x 192.

    Raises:
        UsageError: Something that is out of range.
    """
    spec = SyntheticSpec() if spec is None else spec
    directory.mkdir(parents=True, exist_ok=True)
    made = Dataset(
        package=directory / "labels.pkg.slp",
        labels=directory / "labels.slp",
        labelled_video=directory / "labelled.mp4",
        video=directory / "video.mp4",
        truth=directory / "truth.slp",
        spec=spec,
    )
    points = known_points(spec)
    ground = _ground(spec)
    labelled, later = points[: spec.labelled], points[spec.labelled :]
    _write_clip(made.labelled_video, ground, labelled, spec)
    _write_clip(made.video, ground, later, spec)

    with readers_closed():
        _save(_labels(made.labelled_video, labelled, spec), made.labels, made.package)
        _save(_labels(made.video, later, spec), made.truth, None)
    return made


def _save(labels: Any, plain: Path, package: Path | None) -> None:
    labels.save(str(plain), embed=False, verbose=False)
    if package is not None:
        labels.save(str(package), embed="user", verbose=False)
    for video in labels.videos:
        video.close()


def known_points(spec: SyntheticSpec) -> np.ndarray:
    """Where every point is, labelled frames first.

    Labelled frames are eight steps apart, so that they show many poses; those of the video are
    one step apart.

    Returns:
        Array of (labelled + frames, animals, nodes, 2), x before y, in pixels.
    """
    rng = np.random.default_rng([spec.seed, 1])
    steps = 8 * spec.labelled + spec.frames
    paths = _walk(rng, spec, steps)
    chosen = [*range(0, 8 * spec.labelled, 8), *range(8 * spec.labelled, steps)]
    return paths[chosen]


def _walk(rng: np.random.Generator, spec: SyntheticSpec, steps: int) -> np.ndarray:
    """Smooth walks that turn away from the border and from each other."""
    height, width = spec.size
    side = min(height, width)
    spacing = _SPACING * side
    margin = spacing * (len(spec.nodes) - 1)
    centre = np.array([width / 2, height / 2])
    ring = 2 * np.pi * np.arange(spec.animals) / spec.animals + rng.uniform(0, 2 * np.pi)
    position = centre + 0.25 * side * np.stack([np.cos(ring), np.sin(ring)], axis=-1)
    if spec.animals == 1:
        position = centre[None] + rng.uniform(-0.1, 0.1, (1, 2)) * side
    heading = rng.uniform(-np.pi, np.pi, spec.animals)
    turn = np.zeros(spec.animals)
    speed = 0.012 * side
    found = np.empty((steps, spec.animals, len(spec.nodes), 2))
    for step in range(-_SETTLE, steps):
        turn = 0.9 * turn + rng.normal(0.0, 0.035, spec.animals)
        away = _pushes(position, np.array([width, height]), margin, spacing)
        ahead = np.stack([np.cos(heading), np.sin(heading)], axis=-1)
        side_push = ahead[:, 0] * away[:, 1] - ahead[:, 1] * away[:, 0]
        front_push = (ahead * away).sum(axis=-1)
        # Pushed straight back it must turn one way, and always the same, or it would stand still.
        sharp = np.where((front_push < 0) & (np.abs(side_push) < 0.2), 0.2, side_push)
        bend = np.clip(turn + 0.35 * sharp, -0.3, 0.3)
        heading = heading + bend
        ahead = np.stack([np.cos(heading), np.sin(heading)], axis=-1)
        position = position + speed * ahead + 0.5 * speed * away
        low = np.full(2, 0.6 * margin)
        position = np.clip(position, low, np.array([width, height]) - 1 - low)
        if step >= 0:
            found[step] = _body(position, heading, bend, spacing, len(spec.nodes))
    return np.clip(found, 1, np.array([width - 2, height - 2]))


def _pushes(position: np.ndarray, extent: np.ndarray, margin: float, spacing: float) -> np.ndarray:
    """How hard borders and neighbours push each animal, at most about 1 each."""
    near_low = np.clip(1.8 - position / margin, 0, 1)
    near_high = np.clip(1.8 - (extent - 1 - position) / margin, 0, 1)
    apart = position[:, None] - position[None]
    distance = np.linalg.norm(apart, axis=-1, keepdims=True) + 1e-9
    strength = np.clip(2.2 - distance / (2.2 * spacing), 0, 1.5)
    pushed: np.ndarray = near_low - near_high + (strength * apart / distance).sum(axis=1)
    return pushed


def _body(
    position: np.ndarray, heading: np.ndarray, bend: np.ndarray, spacing: float, nodes: int
) -> np.ndarray:
    """Points from head to tail around ``position``, curved by how much the animal turns."""
    along = (nodes - 1) / 2 - np.arange(nodes)
    angle = heading[:, None] + 1.2 * bend[:, None] * along[None]
    points: np.ndarray = position[:, None] + spacing * along[None, :, None] * np.stack(
        [np.cos(angle), np.sin(angle)], axis=-1
    )
    return points


def _ground(spec: SyntheticSpec) -> np.ndarray:
    """A still texture of patches and grains, values 60 to 140."""
    rng = np.random.default_rng([spec.seed, 2])
    height, width = spec.size
    texture = np.zeros((height, width))
    for cell, weight in ((32, 0.5), (8, 0.3), (1, 0.2)):
        coarse = rng.uniform(-1, 1, (height // cell + 2, width // cell + 2))
        texture += weight * _stretch(coarse, height, width, cell)
    ground: np.ndarray = 100 + 40 * texture
    return ground


def _stretch(coarse: np.ndarray, height: int, width: int, cell: int) -> np.ndarray:
    """Bilinear enlargement of a grid by ``cell``."""
    rows, columns = np.arange(height) / cell, np.arange(width) / cell
    y, x = rows.astype(int), columns.astype(int)
    v, u = (rows - y)[:, None], (columns - x)[None]
    grid: np.ndarray = (
        coarse[y][:, x] * (1 - v) * (1 - u)
        + coarse[y + 1][:, x] * v * (1 - u)
        + coarse[y][:, x + 1] * (1 - v) * u
        + coarse[y + 1][:, x + 1] * v * u
    )
    return grid


def draw_frame(
    ground: np.ndarray, animals: np.ndarray, spec: SyntheticSpec, rng: np.random.Generator
) -> np.ndarray:
    """One frame.

    Args:
        ground: Height x width.
        animals: Animals x nodes x 2, x before y.
        spec: What is being made.
        rng: Makes the camera's noise.

    Returns:
        Height x width, 8 bits.
    """
    frame = ground.copy()
    spacing = _SPACING * min(spec.size)
    # From a bright head to a dark tail; the head is the thickest.
    brightness = np.linspace(250, 10, len(spec.nodes))
    radius = spacing * np.linspace(0.46, 0.3, len(spec.nodes))
    for animal in animals:
        for first, second in itertools.pairwise(animal):
            for share in (0.25, 0.5, 0.75):
                _disc(frame, first * (1 - share) + second * share, 0.22 * spacing, 165.0)
        for point, size, value in zip(animal, radius, brightness, strict=True):
            _disc(frame, point, size, value)
    noisy = frame + rng.normal(0.0, 3.0, frame.shape)
    drawn: np.ndarray = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    return drawn


def _disc(frame: np.ndarray, point: np.ndarray, radius: float, value: float) -> None:
    """Blend a disc with a soft edge into the frame, in place."""
    reach = int(np.ceil(radius)) + 2
    x, y = (round(float(v)) for v in point)
    top, left = max(0, y - reach), max(0, x - reach)
    window = frame[top : y + reach + 1, left : x + reach + 1]
    rows, columns = np.mgrid[0 : window.shape[0], 0 : window.shape[1]]
    distance = np.hypot(columns + left - point[0], rows + top - point[1])
    cover = np.clip(radius + 0.5 - distance, 0, 1)
    window += cover * (value - window)


def _write_clip(path: Path, ground: np.ndarray, points: np.ndarray, spec: SyntheticSpec) -> None:
    rng = np.random.default_rng([spec.seed, 3, len(points)])
    with sio.VideoWriter(path, fps=spec.fps, crf=12, preset="veryfast") as writer:
        for animals in points:
            frame = draw_frame(ground, animals, spec, rng)
            writer(np.repeat(frame[..., None], 3, axis=-1))


def _labels(video: Path, points: np.ndarray, spec: SyntheticSpec) -> Any:
    skeleton = sio.Skeleton(
        nodes=list(spec.nodes),
        edges=list(itertools.pairwise(spec.nodes)),
        name="animal",
    )
    source = sio.Video.from_filename(str(video), grayscale=True)
    frames = [
        sio.LabeledFrame(
            video=source,
            frame_idx=index,
            instances=[sio.Instance.from_numpy(animal, skeleton=skeleton) for animal in animals],
        )
        for index, animals in enumerate(points)
    ]
    labels = sio.Labels(labeled_frames=frames, videos=[source], skeletons=[skeleton])
    labels.provenance["made_by"] = "sleap-rtc made data"
    return labels
