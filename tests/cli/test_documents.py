"""The shapes of --json: declared, described, and the same as the schemas that are published."""

from __future__ import annotations

import inspect
import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from sleap_rtc.cli import (
    care_documents,
    documents,
    import_documents,
    job_documents,
    keep_documents,
    machine_documents,
    model_documents,
    moving_documents,
    room_documents,
    storage_documents,
)
from sleap_rtc.cli.model_documents import best_loss, is_local, model_shown, plain_record
from sleap_rtc.cli.reference import ALL, CSV, schema
from sleap_rtc.domain.models import Location, Metrics, ModelFile, ModelRecord
from sleap_rtc.library.entries import Entry

SCHEMAS = Path(__file__).parents[2] / "docs" / "reference" / "schemas"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def record(**changes) -> ModelRecord:
    return ModelRecord(
        id="0123abcd",
        name="run",
        model_type="centroid",
        status="completed",
        source="worker-pull",
        created_at=NOW,
        **changes,
    )


@pytest.mark.parametrize("name", ALL)
def test_the_published_schema_is_that_of_the_code(name):
    assert (SCHEMAS / f"{name}.json").read_text("utf-8") == schema(ALL[name])


def test_there_is_no_other_schema():
    assert {path.stem for path in SCHEMAS.glob("*")} == {*ALL, *(f"{name}.csv" for name in CSV)}


@pytest.mark.parametrize("name", ALL)
def test_a_schema_demands_every_field_and_allows_later_ones(name):
    plain = json.loads(schema(ALL[name]))
    top = plain["$defs"][plain["$ref"].rpartition("/")[2]]
    assert set(top["required"]) == set(top["properties"])
    assert "additionalProperties" not in top


def test_every_field_is_explained_or_explains_itself():
    for module in (
        documents,
        care_documents,
        import_documents,
        job_documents,
        keep_documents,
        machine_documents,
        model_documents,
        moving_documents,
        room_documents,
        storage_documents,
    ):
        for name, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, documents.Shown):
                assert kind.__doc__, name


def test_a_model_as_lists_show_it(tmp_path):
    shown = model_shown(
        Entry(
            record=record(
                files=(ModelFile(path="best.ckpt", size=7, blake3="0" * 64),),
                metrics=Metrics(best_val_loss=0.5, final_val_loss=0.7, epochs=3),
                locations=(Location(kind="worker", name="gpu-1", last_seen=NOW),),
            ),
            alias="flies",
            folder=str(tmp_path),
        )
    )
    plain = msgspec.to_builtins(shown)
    assert plain["locations"] == ("worker:gpu-1",)
    assert (plain["local"], plain["size"], plain["best_val_loss"]) == (True, 7, 0.5)
    assert plain["created_at"] == "2026-03-01T12:00:00Z"


def test_losses_and_places():
    assert best_loss(record(metrics=Metrics(final_val_loss=0.7))) == 0.7
    assert best_loss(record()) is None
    assert not is_local(record())
    assert plain_record(record(unknown={"later": 1}))["later"] == 1
