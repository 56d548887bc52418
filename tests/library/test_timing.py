from collections.abc import Callable
from typing import Any

import pytest

from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.errors import (
    UnknownModel,
)
from sleap_rtc.library.registry import Registry

RecordOf = Callable[..., ModelRecord]
FilesIn = Callable[..., tuple[ModelFile, ...]]


def test_every_operation_logs_its_duration(
    registry: Registry, record_of: RecordOf, logged: list[Any]
) -> None:
    model = registry.register(record_of()).id
    registry.get(model)
    with pytest.raises(UnknownModel):
        registry.get("nobody")
    timed = [line["extra"] for line in logged if line["message"] == "library operation"]
    assert [extra["operation"] for extra in timed] == ["register", "get", "get"]
    assert all(0 <= extra["ms"] < 60_000 for extra in timed)


def test_every_operation_is_counted(registry: Registry, record_of: RecordOf) -> None:
    model = registry.register(record_of()).id
    registry.get(model)
    with pytest.raises(UnknownModel):
        registry.get("nobody")
    counted = registry.latencies.all()
    assert {name: (one.count, one.failed) for name, one in counted.items()} == {
        "get": (2, 1),
        "register": (1, 0),
    }
    assert 0 < counted["register"].longest_s <= counted["register"].total_s < 60
