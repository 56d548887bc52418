"""Training: samples in batches, epochs with validation, checkpoints, early end and going on.

Everything random follows from the seed and the epoch's number, so that a run that
was interrupted and went on ends with the same weights as one that wasn't.
"""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from sleap_rtc.engines import configs
from sleap_rtc.engines.tiny import checkpoint, samples, words
from sleap_rtc.engines.tiny.checkpoint import BEST, LAST, About, Checkpoint
from sleap_rtc.engines.tiny.network import (
    GRID,
    STRIDE,
    Adam,
    Network,
    loss_and_gradient,
    new_weights,
)
from sleap_rtc.engines.tiny.predict import Predictor
from sleap_rtc.engines.tiny.settings import Read, Settings, hyperparameters
from sleap_rtc.errors import InvalidConfig
from sleap_rtc.files.durable import write_replacing

LOG: Final = "training_log.csv"
CONFIG: Final = "training_config.yaml"
METRICS: Final = "metrics.json"
_COLUMNS: Final = ("epoch", "train/loss", "val/loss", "learning_rate")


class Sample(msgspec.Struct, frozen=True):
    """What the network is shown once: an image, what to say to it, and which maps are known."""

    image: samples.Array
    points: samples.Array
    known: samples.Array


class Trainer:
    """Trains one model in one directory."""

    def __init__(
        self,
        read: Read,
        labels: Path,
        directory: Path,
        *,
        val_labels: Path | None = None,
        resume_from: Path | None = None,
    ) -> None:
        self._settings = read.settings
        self._directory = directory
        self._rate = read.settings.learning_rate
        labelled = samples.read_frames(labels)
        if read.ignored:
            words.say(f"tiny: {len(read.ignored)} settings ignored: {', '.join(read.ignored)}")
        self._train, self._val = _split(labelled.frames, read.settings)
        if val_labels is not None:
            self._train, self._val = labelled.frames, samples.read_frames(val_labels).frames
        self._about = _about(read.settings, labelled, self._train)
        self._history: list[tuple[int, float, float, float]] = []
        self._held: list[Sample] = []
        start = None if resume_from is None else self._take_over(resume_from)
        if start is None:
            maps = self._about.maps
            rng = np.random.default_rng([read.settings.seed, 1])
            self._network = Network(new_weights(read.settings.filters, maps, rng))
            self._adam = Adam(self._network.weights, rate=self._rate)
        else:
            self._about, self._network = start.about, Network(start.weights)
            self._adam = start.adam or Adam(start.weights, rate=self._rate)
        self._write_config()

    def run(self, ears: words.Ears) -> None:
        """Train until the epochs are done, nothing improves any more, or ``stop`` is said."""
        settings, begun = self._settings, time.monotonic()
        order = _samples(self._train, self._about)
        self._held = _samples(self._val, self._about)
        steps = settings.steps or max(settings.min_steps, -(-len(order) // settings.batch_size))
        first = self._about.epochs
        words.tell("began", epochs=settings.max_epochs, first_epoch=first, batches=steps)
        for epoch in range(first, settings.max_epochs):
            losses = self._epoch(epoch, order, steps, ears)
            if losses is None:
                words.say(f"tiny: stopped in epoch {epoch}")
                break
            self._finish_epoch(epoch, losses)
            if ears.stop_asked() or self._is_plateau(epoch):
                words.say(f"tiny: ends early after epoch {epoch}")
                break
        self._conclude(time.monotonic() - begun)

    def _epoch(
        self, epoch: int, order: list[Sample], steps: int, ears: words.Ears
    ) -> list[float] | None:
        """The losses of all steps; None when it was stopped and an earlier epoch is there."""
        rng = np.random.default_rng([self._settings.seed, 2, epoch])
        size = min(self._settings.batch_size, len(order))
        queue: list[int] = []
        losses: list[float] = []
        for step in range(steps):
            while len(queue) < size:
                queue.extend(int(i) for i in rng.permutation(len(order)))
            chosen, queue = queue[:size], queue[size:]
            batch = [order[i] for i in chosen]
            images, wanted, known = self._batch(batch, rng if self._settings.augment else None)
            maps = self._network.forward(images)
            loss, gradient = loss_and_gradient(maps, wanted, known)
            if not np.isfinite(loss):
                raise InvalidConfig(
                    where="trainer_config.optimizer.lr",
                    why=f"the loss is no number any more in epoch {epoch}",
                    hint="Try a smaller learning rate.",
                )
            self._adam.step(self._network.weights, self._network.backward(gradient))
            losses.append(loss)
            words.tell("step", epoch=epoch, done=step + 1, total=steps, loss=loss)
            if ears.stop_asked() and self._about.epochs > 0:
                return None
        return losses

    def _batch(
        self, chosen: list[Sample], rng: np.random.Generator | None
    ) -> tuple[samples.Array, samples.Array, samples.Array]:
        """Images, wanted maps and known points; varied by chance where ``rng`` is given."""
        about = self._about
        images, wanted = [], []
        quarter = 0 if rng is None else int(rng.integers(4))
        for sample in chosen:
            image, points = sample.image, sample.points
            if about.crop:
                most = about.crop // 8
                shift = np.zeros(2) if rng is None else rng.integers(-most, most + 1, 2)
                image, points = _shifted(image, points, shift, about)
            small = samples.shrink(image, about.factor)
            shape = (small.shape[0] // STRIDE, small.shape[1] // STRIDE)
            maps = samples.heatmaps(samples.to_map(points, about.factor), shape, about.sigma)
            small, maps = samples.turned(small, maps, quarter)
            images.append(small)
            wanted.append(maps)
        known = np.stack([sample.known for sample in chosen])
        return samples.standardize(np.stack(images)), np.stack(wanted), known

    def _finish_epoch(self, epoch: int, losses: list[float]) -> None:
        val_loss = self._validate()
        train_loss = float(np.mean(losses))
        best = self._about.best_loss
        is_best = best is None or val_loss < best - self._settings.min_delta
        self._about = msgspec.structs.replace(
            self._about,
            epochs=epoch + 1,
            steps=self._adam.steps,
            best_loss=val_loss if is_best else best,
            best_epoch=epoch if is_best else self._about.best_epoch,
        )
        self._history.append((epoch, train_loss, val_loss, self._rate))
        # The log first: an epoch is done when it is in last.npz, and its line is there by then.
        write_replacing(self._directory / LOG, _csv(self._history))
        if is_best:
            checkpoint.save(self._directory / BEST, self._about, self._network.weights)
        words.tell(
            "epoch",
            epoch=epoch,
            train_loss=train_loss,
            val_loss=val_loss,
            learning_rate=self._rate,
        )
        checkpoint.save(self._directory / LAST, self._about, self._network.weights, self._adam)
        words.tell("checkpoint", epochs=epoch + 1)

    def _validate(self) -> float:
        losses = []
        for sample in self._held:
            images, wanted, known = self._batch([sample], None)
            losses.append(loss_and_gradient(self._network.forward(images), wanted, known)[0])
        return float(np.mean(losses))

    def _is_plateau(self, epoch: int) -> bool:
        patience, best = self._settings.patience, self._about.best_epoch
        return patience is not None and best is not None and epoch - best > patience

    def _conclude(self, duration_s: float) -> None:
        best = checkpoint.load(self._directory / BEST)
        errors, wanted = Predictor([best]).errors(self._val)
        evaluation = {
            "val.mean_error_px": float(np.mean(errors)) if errors else None,
            "val.found": len(errors) / wanted if wanted else None,
        }
        last = self._history[-1] if self._history else None
        metrics = {
            "final_val_loss": None if last is None else last[2],
            "best_val_loss": self._about.best_loss,
            "final_train_loss": None if last is None else last[1],
            "epochs": self._about.epochs,
            "best_epoch": self._about.best_epoch,
            "evaluation": evaluation,
        }
        write_replacing(self._directory / METRICS, msgspec.json.encode(metrics))
        words.tell("result", metrics=metrics)
        words.say(f"tiny: {self._about.epochs} epochs done, {duration_s:.1f} s in this run")

    def _take_over(self, previous: Path) -> Checkpoint | None:
        """Go on from another attempt: its log and its best model count as this one's."""
        start = checkpoint.load(previous / LAST, rate=self._rate)
        same = ("model_type", "nodes", "maps", "filters", "factor", "sigma", "crop", "anchor")
        changed = [n for n in same if getattr(start.about, n) != getattr(self._about, n)]
        if changed:
            why = f"the checkpoint was trained with another {', '.join(changed)}"
            raise InvalidConfig(where="the checkpoint to go on from", why=why)
        write_replacing(self._directory / LAST, (previous / LAST).read_bytes())
        if (previous / BEST).is_file():
            write_replacing(self._directory / BEST, (previous / BEST).read_bytes())
        self._history = [row for row in read_log(previous / LOG) if row[0] < start.about.epochs]
        write_replacing(self._directory / LOG, _csv(self._history))
        words.say(f"tiny: goes on after {start.about.epochs} epochs")
        return start

    def _write_config(self) -> None:
        about, settings = self._about, self._settings
        unet = {"filters": settings.filters, "output_stride": STRIDE}
        head = {
            "sigma": settings.sigma,
            "output_stride": STRIDE,
            "anchor_part": settings.anchor_part,
            "part_names": list(about.nodes),
        }
        if settings.model_type == "centroid":
            del head["part_names"]
        elif settings.model_type == "single_instance":
            del head["anchor_part"]
        edges = [[about.nodes[a], about.nodes[b]] for a, b in about.edges]
        document = {
            "engine": "tiny",
            "data_config": {
                "preprocessing": {"scale": 1 / about.factor, "crop_size": about.crop or None},
                "validation_fraction": settings.validation_fraction,
                "use_augmentations_train": settings.augment,
                "skeletons": [{"nodes": list(about.nodes), "edges": edges}],
            },
            "model_config": {
                "backbone_config": {"unet": unet},
                "head_configs": {settings.model_type: {"confmaps": head}},
                "total_params": sum(v.size for v in self._network.weights.values()),
            },
            "trainer_config": {
                "run_name": settings.run_name,
                "max_epochs": settings.max_epochs,
                "train_data_loader": {"batch_size": settings.batch_size},
                "optimizer": {"lr": settings.learning_rate},
                "seed": settings.seed,
            },
            "hyperparameters": hyperparameters(settings),
        }
        write_replacing(self._directory / CONFIG, configs.dump_config(document).encode())


def _split(
    frames: list[samples.Frame], settings: Settings
) -> tuple[list[samples.Frame], list[samples.Frame]]:
    """Frames to train on and to validate on; with too few, the same ones."""
    held = round(settings.validation_fraction * len(frames))
    held = max(held, 1 if settings.validation_fraction > 0 and len(frames) > 1 else 0)
    order = np.random.default_rng([settings.seed, 0]).permutation(len(frames))
    val = [frames[i] for i in order[:held]]
    train = [frames[i] for i in order[held:]]
    return (train, val) if train and val else (frames, frames)


def _about(settings: Settings, labelled: samples.Labelled, train: list[samples.Frame]) -> About:
    anchor = None
    if settings.anchor_part is not None:
        if settings.anchor_part not in labelled.nodes:
            why = f"the labels have no point {settings.anchor_part!r}"
            where = f"model_config.head_configs.{settings.model_type}.confmaps.anchor_part"
            raise InvalidConfig(where=where, why=why)
        anchor = labelled.nodes.index(settings.anchor_part)
    crop = 0
    if settings.model_type == "centered_instance":
        step = GRID * settings.factor
        crop = settings.crop_size or samples.fitting_crop(train, settings.factor)
        crop = -(-crop // step) * step
    return About(
        model_type=settings.model_type,
        nodes=labelled.nodes,
        edges=labelled.edges,
        maps=1 if settings.model_type == "centroid" else len(labelled.nodes),
        filters=settings.filters,
        factor=settings.factor,
        # A bump narrower than a map pixel would fall between pixels.
        sigma=max(0.8, settings.sigma / STRIDE),
        crop=crop,
        anchor=anchor,
    )


def _samples(frames: list[samples.Frame], about: About) -> list[Sample]:
    """One sample per frame, or per animal where there are crops."""
    height = max(frame.image.shape[0] for frame in frames)
    width = max(frame.image.shape[1] for frame in frames)
    found = []
    for frame in frames:
        room = ((0, height - frame.image.shape[0]), (0, width - frame.image.shape[1]))
        image = np.pad(frame.image, room, mode="edge")
        if about.model_type == "centroid":
            points = samples.centres(frame.animals, about.anchor)[None]
            found.append(Sample(image, points, np.ones(1, np.float32)))
        elif about.model_type == "single_instance":
            found.append(_instance(image, frame.animals[0]))
        else:
            found.extend(_instance(image, animal) for animal in frame.animals)
    return found


def _instance(image: samples.Array, animal: samples.Array) -> Sample:
    known = np.isfinite(animal).all(axis=-1).astype(np.float32)
    return Sample(image, animal[:, None], known)


def _shifted(
    image: samples.Array, points: samples.Array, shift: samples.Array, about: About
) -> tuple[samples.Array, samples.Array]:
    """A crop around an animal, not quite centred, and its points in the crop."""
    centre = samples.centres(points[:, 0][None], about.anchor)[0]
    cut, corner = samples.crop(image, centre + shift, about.crop)
    return cut, points - corner


def _csv(history: list[tuple[int, float, float, float]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(history)
    return text.getvalue().encode()


def read_log(path: Path) -> list[tuple[int, float, float, float]]:
    """The rows of a log; one that can't be read is as good as none."""
    rows: list[tuple[int, float, float, float]] = []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                values: list[Any] = [float(row[name]) for name in _COLUMNS]
                rows.append((int(values[0]), values[1], values[2], values[3]))
    except (OSError, ValueError, KeyError, TypeError, UnicodeError):
        return rows
    return rows
