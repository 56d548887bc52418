"""The product's own registry. Its models are written by its own code, without waiting for the disk.

What is waited for is the same whoever asks, so a library of 100,000 models is
made without it, by one process for each core, and synced once at the end.
"""

from __future__ import annotations

import multiprocessing
import os
import secrets
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest import mock

from blake3 import blake3
from loguru import logger
from msgspec.structs import replace

from bench import made
from bench.subject import Operation
from sleap_rtc.domain import values
from sleap_rtc.domain.aliases import key
from sleap_rtc.domain.ids import ModelId, recipe
from sleap_rtc.domain.models import Metrics, ModelFile, ModelRecord, Training
from sleap_rtc.files.durable import write_new
from sleap_rtc.library import chain, layout, records
from sleap_rtc.library.aliases import Alias
from sleap_rtc.library.entries import Query
from sleap_rtc.library.registry import Registry

NODES: Final = ("head", "thorax", "abdomen", "wing_l", "wing_r", "leg_1", "leg_2", "leg_3")
FILES: Final = (
    *("best.ckpt", "training_config.yaml", "initial_config.yaml", "training_log.csv"),
    *("labels_train_gt_0.slp", "labels_val_gt_0.slp", "metrics_val_0.npz"),
)
_BATCH: Final = 500


class Subject:
    """A library below a folder."""

    def __init__(self, folder: Path) -> None:
        logger.remove()
        self._folder = folder
        self._models = folder / "models"
        self._count = 0
        self._ids: list[ModelId] = []
        self._registry: Registry | None = None
        self._mine = secrets.token_hex(4)

    def grow(self, to: int) -> dict[str, float]:
        """Write the files of more models, and build a new index."""
        if self._registry is not None:
            self._registry.close()
        started = time.monotonic()
        # Marks tell indexes of changes; the new index needs none.
        shutil.rmtree(self._models / layout.CHANGES, ignore_errors=True)
        self._ids += write_models(self._models, self._count, to)
        self._count = to
        built = time.monotonic()
        os.sync()
        synced = time.monotonic()
        self._registry = Registry(self._models, index_dir=self._folder / f"index-{to}")
        self._registry.list()
        indexed = time.monotonic()
        return {"build": built - started, "sync": synced - built, "index": indexed - synced}

    def operations(self) -> dict[str, Operation]:
        """What can be measured."""
        wanted = made.FILTER
        filtered = Query(
            statuses=(wanted["status"],),  # type: ignore[arg-type]
            types=(wanted["type"],),
            tags=(wanted["tag"],),
            limit=made.PAGE,
        )
        word = Query(text=made.WORD, sort="rank", limit=made.PAGE)
        newest = Query(text=made.PREFIX, limit=made.PAGE)
        return {
            "register": self._register,
            "get": lambda n: partial(self._get, self._ids[n * 7919 % self._count]),
            "get by alias": lambda n: partial(self._get, made.alias(self._named(n))),
            "set alias": self._set_alias,
            "list a page": lambda _: partial(self._list, Query(limit=made.PAGE)),
            "list filtered": lambda _: partial(self._list, filtered),
            "list after a change": self._list_after_a_change,
            "search a word": lambda _: partial(self._list, word),
            "search another word": lambda n: partial(self._finds, replace(word, text=made.word(n))),
            "search a name": self._search_a_name,
            "search a prefix, newest": lambda _: partial(self._list, newest),
            "search a prefix, best": lambda _: partial(self._list, replace(newest, sort="rank")),
        }

    @property
    def _open(self) -> Registry:
        if self._registry is None:
            raise RuntimeError("there are no models yet")
        return self._registry

    def _named(self, number: int) -> int:
        """The number of a model that has an alias."""
        return number * 7919 % (self._count // made.ALIASED) * made.ALIASED

    def _list(self, query: Query) -> int:
        return len(self._open.list(query).entries)

    def _finds(self, query: Query) -> int:
        """Whether it finds any: how many they are differs from word to word."""
        return self._list(query) > 0

    def _get(self, name: str) -> int:
        return bool(self._open.get(name).record.name)

    def _search_a_name(self, number: int) -> Callable[[], int]:
        name = f"run{number * 7919 % self._count:06d}"
        return partial(self._list, Query(text=name, sort="rank", limit=made.PAGE))

    def _set_alias(self, number: int) -> Callable[[], int]:
        model = self._ids[self._named(number) + 1]
        return lambda: bool(self._open.set_alias(f"new-{number}", model))

    def _register(self, number: int) -> Callable[[], int]:
        # Another run name for each, so that no id is taken.
        record = _record(made.another(number), run=f"{self._mine}-{number}")
        return lambda: bool(self._open.register(record))

    def _list_after_a_change(self, number: int) -> Callable[[], int]:
        register = self._register(number)
        return lambda: register() and self._list(Query(limit=made.PAGE))


def _record(known: dict[str, Any], *, run: str) -> ModelRecord:
    """A record as a training leaves it: about 3 kB."""
    backbone = {"unet": {"filters": 32, "filters_rate": 1.5, "max_stride": 16, "output_stride": 2}}
    digest = blake3(run.encode()).hexdigest()
    given = recipe(model_type=known["type"], backbone=backbone, run_name=run, dataset_hash=digest)
    completed = known["status"] == "completed"
    files = tuple(ModelFile(path=name, size=31_000_000, blake3=digest) for name in FILES)
    return ModelRecord(
        id=given.model_id,
        name=known["name"],
        model_type=known["type"],
        status=known["status"],
        source="worker-pull",
        created_at=known["created"],
        completed_at=known["created"] if completed else None,
        full_hash=given.full_hash,
        canonical=given.canonical,
        checkpoint=FILES[0],
        config=FILES[1],
        files=() if known["status"] == "training" else files,
        metrics=Metrics(
            best_val_loss=known["loss"], final_val_loss=known["loss"], epochs=known["epochs"]
        ),
        training=Training(
            engine="sleap-nn",
            engine_version="0.3.5",
            dataset_name="labels.v003.slp",
            dataset_hash=digest,
            hyperparameters={
                "backbone": "unet",
                "batch_size": 4,
                "learning_rate": 0.0001,
                "max_epochs": 200,
                "optimizer": "Adam",
                "scale": 0.5,
                "sigma": 2.5,
            },
            duration_s=known["duration_s"],
            device="NVIDIA RTX A5000",
            worker="box",
        ),
        tags=tuple(known["tags"]),
        notes=known["notes"],
        skeleton=NODES,
    )


def write_models(models: Path, first: int, end: int) -> list[ModelId]:
    """Write the files of made models.

    Args:
        models: The library.
        first: Number of the first.
        end: Number after the last.

    Returns:
        Their ids, in order.
    """
    pieces = [(models, n, min(n + _BATCH, end)) for n in range(first, end, _BATCH)]
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        return [each for ids in pool.imap(_write, pieces) for each in ids]


def _write(piece: tuple[Path, int, int]) -> list[ModelId]:
    """Write some models as `Registry` would; a process of its own."""
    models, first, end = piece
    aliases = models / layout.ALIASES
    aliases.mkdir(parents=True, exist_ok=True)
    ids: list[ModelId] = []
    with mock.patch("os.fsync"):
        for number in range(first, end):
            known = made.model(number)
            record, directory = _claimed(models, known)
            records.create(directory, record)
            ids.append(record.id)
            if known["alias"] is not None:
                _name(aliases, known["alias"], record, directory)
    return ids


def _claimed(models: Path, known: dict[str, Any]) -> tuple[ModelRecord, Path]:
    """A record whose directory was made; among 100,000 ids of 8 digits there may be a pair."""
    run = known["name"]
    while True:
        record = _record(known, run=run)
        directory = models / record.directory
        try:
            directory.mkdir()
        except FileExistsError:
            run += " again"
        else:
            return record, directory


def _name(aliases: Path, name: str, record: ModelRecord, directory: Path) -> None:
    (aliases / key(name)).mkdir()
    alias = Alias(name=name, models=(record.id,), sequence=1, changed_at=datetime.now(UTC))
    write_new(aliases / key(name) / chain.file_name(1), values.encode(alias))
    (directory / layout.RECORD / f"{records.HINT}{key(name)}").touch()
