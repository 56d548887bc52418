from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sleap_rtc.library.importing.finding import Skipped
from sleap_rtc.library.importing.importer import Imported, Importer
from sleap_rtc.library.importing.wishes import Wishes
from sleap_rtc.library.registry import Registry
from sleap_rtc.testing import model_files


@pytest.fixture
def samples() -> ModuleType:
    """Makes models, and files of every format."""
    return model_files


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Where a person keeps models."""
    path = tmp_path / "disk"
    path.mkdir()
    return path


@pytest.fixture
def take_all(registry: Registry, clock: Any) -> Callable[..., list[Imported | Skipped]]:
    """Import paths: ``take_all(path, recursive=True)``."""

    def run(*paths: Path, **wishes: Any) -> list[Imported | Skipped]:
        more = {k: wishes.pop(k) for k in ("questions", "progress", "cache") if k in wishes}
        importer = Importer(registry, Wishes(**wishes), clock=clock, **more)
        return list(importer.run(paths))

    return run


@pytest.fixture
def take_one(take_all: Callable[..., list[Imported | Skipped]]) -> Callable[..., Imported]:
    """Import one path, which must go well."""

    def run(path: Path, **wishes: Any) -> Imported:
        (result,) = take_all(path, **wishes)
        if isinstance(result, Skipped):
            raise result.error
        return result

    return run
