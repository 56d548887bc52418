"""Tracking: models over a video, predictions to a ``.slp``."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import imageio.v3 as iio
import numpy as np
import sleap_io as sio

from sleap_rtc.engines.tiny import checkpoint, samples, words
from sleap_rtc.engines.tiny.predict import Animal, Predictor
from sleap_rtc.errors import DataError, FilesMissing, InvalidConfig

_FILMS: Final = frozenset({".mp4", ".avi", ".mov", ".mkv", ".m4v", ".mpg", ".mpeg", ".webm"})
_REACH: Final = 0.15
"""How far an animal may move from frame to frame, as a share of the image's longer side."""


def track(
    models: list[Path],
    video: Path,
    output: Path,
    *,
    frames: tuple[int, int] | None = None,
    linked: bool = False,
    provenance: Mapping[str, str] | None = None,
) -> None:
    """Find animals in every frame of a video and write a ``.slp``.

    Args:
        models: Directories of models that go together.
        video: The video.
        output: Where to write.
        frames: First and last frame, both included; None is every frame.
        linked: Whether identities are linked over time.
        provenance: Facts to write along, for example the models' ids.

    Raises:
        FilesMissing: A model or the video isn't there.
        InvalidConfig: The models don't make a whole, or the video has no such frames.
        DataError: The video can't be read.
    """
    predictor = Predictor([checkpoint.load(path / checkpoint.BEST) for path in models])
    if not predictor.is_complete:
        why = "a centered_instance model needs a centroid model beside it"
        raise InvalidConfig(where="models", why=why)
    if not video.is_file():
        raise FilesMissing(name=video.name, files=str(video))
    skeleton = sio.Skeleton(
        nodes=list(predictor.nodes), edges=[tuple(edge) for edge in predictor.edges]
    )
    links = _Links() if linked else None
    found = []
    total, source = _open(video, frames)
    words.tell("began", epochs=None, first_epoch=0, batches=total)
    begun = time.monotonic()
    for done, (index, image) in enumerate(source, start=1):
        animals = predictor.animals(samples.grey(image))
        tracks = [None] * len(animals) if links is None else links.follow(animals, image.shape)
        instances = [
            sio.PredictedInstance.from_numpy(
                animal.points,
                skeleton=skeleton,
                point_scores=animal.scores,
                score=animal.score,
                track=link,
            )
            for animal, link in zip(animals, tracks, strict=True)
        ]
        found.append((index, instances))
        rate = done / max(1e-9, time.monotonic() - begun)
        words.tell("step", done=done, total=total, rate=rate)
    if not found:
        raise InvalidConfig(where=str(video), why=f"it has no frames {frames}")
    _write(output, video, skeleton, found, provenance or {})
    words.tell("result", metrics={"frames": len(found), "animals": sum(len(i) for _, i in found)})


def _write(
    output: Path,
    video: Path,
    skeleton: Any,
    found: list[tuple[int, list[Any]]],
    provenance: Mapping[str, str],
) -> None:
    film = sio.Video.from_filename(str(video))
    labels = sio.Labels(
        labeled_frames=[
            sio.LabeledFrame(video=film, frame_idx=index, instances=instances)
            for index, instances in found
        ],
        videos=[film],
        skeletons=[skeleton],
    )
    labels.provenance.update(provenance)
    labels.provenance["engine"] = "tiny"
    part = output.with_name(f".part-{output.name}")
    labels.save(str(part), embed=False, verbose=False)
    part.replace(output)


def _open(
    video: Path, frames: tuple[int, int] | None
) -> tuple[int | None, Iterator[tuple[int, Any]]]:
    """How many frames are to come, and the frames with their indices."""
    first, last = (0, None) if frames is None else frames
    try:
        film = sio.Video.from_filename(str(video))
        count = int(film.shape[0])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            what=str(video), why=f"it is no video that can be read ({error})"
        ) from error
    stop = count if last is None else min(count, last + 1)
    if video.suffix.lower() in _FILMS:
        # In order: finding each frame anew, as sleap-io does, takes 100 ms a frame.
        stream = enumerate(iio.imiter(video, plugin="FFMPEG"))
        return max(0, stop - first), itertools.islice(stream, first, stop)
    return max(0, stop - first), ((index, film[index]) for index in range(first, stop))


class _Links:
    """Gives animals the identity of the nearest one in the frame before."""

    def __init__(self) -> None:
        self._last: list[tuple[Any, np.ndarray]] = []
        self._made = 0

    def follow(self, animals: list[Animal], shape: tuple[int, ...]) -> list[Any]:
        """A track for each animal."""
        places = [np.nanmean(animal.points, axis=0) for animal in animals]
        reach = _REACH * max(shape[:2])
        pairs = sorted(
            (float(np.linalg.norm(place - before)), new, old)
            for new, place in enumerate(places)
            for old, (_, before) in enumerate(self._last)
        )
        given: dict[int, Any] = {}
        taken: set[int] = set()
        for distance, new, old in pairs:
            if distance <= reach and new not in given and old not in taken:
                given[new] = self._last[old][0]
                taken.add(old)
        for new in range(len(animals)):
            if new not in given:
                given[new] = sio.Track(name=f"track_{self._made}")
                self._made += 1
        # An animal that isn't seen in a frame is remembered where it was.
        unseen = [entry for old, entry in enumerate(self._last) if old not in taken]
        self._last = [(given[new], place) for new, place in enumerate(places)]
        self._last += unseen[: max(0, 50 - len(self._last))]
        return [given[new] for new in range(len(animals))]
