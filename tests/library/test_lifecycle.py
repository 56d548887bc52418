from collections.abc import Callable
from typing import Any

import pytest

from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.models import Metrics, ModelFile, ModelRecord, Training
from sleap_rtc.errors import (
    FilesMissing,
    IllegalTransition,
)
from sleap_rtc.library.registry import Registry

RecordOf = Callable[..., ModelRecord]
FilesIn = Callable[..., tuple[ModelFile, ...]]


def test_changes_of_status(registry: Registry, record_of: RecordOf, clock: Any) -> None:
    model = registry.register(record_of()).id
    stopped = registry.mark_interrupted(model, "last.ckpt", 4, reason="killed").record
    assert stopped.interruption is not None
    assert (stopped.interruption.epoch, stopped.interruption.reason) == (4, "killed")
    assert [entry.id for entry in registry.get_interrupted()] == [model]
    resumed = registry.mark_training(model).record
    assert (resumed.interruption, resumed.training.resumed_from) == (None, ("epoch 4",))
    assert registry.get_interrupted() == ()
    failed = registry.mark_failed(model, "x" * 9_000 + "!").record
    assert failed.failure is not None
    assert (len(failed.failure), failed.failure[-1]) == (8_000, "!")
    registry.mark_training(model)
    clock.go_on(days=1)
    done = registry.mark_completed(model, Metrics(epochs=9)).record
    assert (done.status, done.completed_at, done.failure) == ("completed", clock(), None)
    with pytest.raises(IllegalTransition, match=f"model {model} is completed"):
        registry.mark_failed(model, "too late")


def test_completing_lists_the_files(
    registry: Registry, record_of: RecordOf, files_in: FilesIn
) -> None:
    entry = registry.register(record_of())
    with pytest.raises(FilesMissing, match="checkpoint, which is not here yet"):
        registry.checkpoint_path(entry.id)
    files = files_in(entry.directory, best_ckpt="w", training_config="c")
    done = registry.mark_completed(
        entry.id,
        Metrics(),
        files=files,
        checkpoint="best.ckpt",
        config="training_config",
        package=PackageId("a" * 64),
        training=Training(duration_s=1.5),
    ).record
    assert (done.files, done.config, done.package) == (files, "training_config", "a" * 64)
    assert done.training.duration_s == 1.5
    again = registry.mark_completed(entry.id, Metrics(epochs=1)).record
    assert (again.files, again.completed_at) == (files, done.completed_at)


def test_completing_without_its_files_is_refused(registry: Registry, record_of: RecordOf) -> None:
    model = registry.register(record_of()).id
    missing = ModelFile(path="best.ckpt", size=1, blake3="0" * 64)
    with pytest.raises(FilesMissing, match=r"best\.ckpt"):
        registry.mark_completed(model, Metrics(), files=[missing])
    assert registry.get(model).record.status == "training"
