from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from loguru import logger
from msgspec.structs import replace

from sleap_rtc.domain.ids import recipe
from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.library.registry import Registry


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def go_on(self, **by: float) -> None:
        self.now += timedelta(**by)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def open_registry(models: Path, tmp_path: Path, clock: Clock) -> Iterator[Callable[[], Registry]]:
    """Opens the same library again and again, as other processes would."""
    opened: list[Registry] = []

    def open_one(index_dir: str = "index") -> Registry:
        opened.append(Registry(models, clock=clock, index_dir=tmp_path / index_dir))
        return opened[-1]

    yield open_one
    for registry in opened:
        registry.close()


@pytest.fixture
def registry(open_registry: Callable[[], Registry]) -> Registry:
    return open_registry()


@pytest.fixture
def record_of(clock: Clock) -> Callable[..., ModelRecord]:
    """Makes a record with the id of its recipe."""

    def make(name: str = "run", model_type: str = "centroid", **changes: Any) -> ModelRecord:
        made = recipe(
            model_type=model_type, backbone={}, run_name=name, dataset_hash=changes.pop("of", "0")
        )
        given = {
            "id": made.model_id,
            "name": name,
            "model_type": model_type,
            "status": "training",
            "source": "worker-training",
            "created_at": clock(),
            "full_hash": made.full_hash,
            "canonical": made.canonical,
        }
        return ModelRecord(**given | changes)

    return make


@pytest.fixture
def files_in() -> Callable[..., tuple[ModelFile, ...]]:
    """Writes files into a folder and lists them."""

    def write(folder: Path, **contents: str) -> tuple[ModelFile, ...]:
        listed = []
        for name, text in (contents or {"best_ckpt": "weights"}).items():
            path = name.replace("__", "/").replace("_ckpt", ".ckpt")
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            digest = blake3(text.encode()).hexdigest()
            listed.append(ModelFile(path=path, size=len(text), blake3=digest))
        return tuple(listed)

    return write


@pytest.fixture
def logged() -> Any:
    lines: list[Any] = []
    sink = logger.add(lambda message: lines.append(message.record), level="DEBUG")
    yield lines
    logger.remove(sink)


@pytest.fixture
def arrive(
    registry: Registry,
    record_of: Callable[..., ModelRecord],
    files_in: Callable[..., tuple[ModelFile, ...]],
) -> Callable[..., Any]:
    """Puts a model together and places it."""

    def place(name: str = "run", content: str = "weights", **changes: Any) -> Any:
        folder = registry.incoming / f"{name}-{content}"
        files = files_in(folder, best_ckpt=content, sub__config="c")
        given = {"status": "completed", "source": "worker-pull", "checkpoint": "best.ckpt"}
        return registry.place(folder, replace(record_of(name, **given | changes), files=files))

    return place
