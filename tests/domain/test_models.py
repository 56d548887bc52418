from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from sleap_rtc.domain import values
from sleap_rtc.domain.ids import ModelId
from sleap_rtc.domain.models import (
    Interruption,
    Location,
    Metrics,
    ModelFile,
    ModelRecord,
    Safety,
    Training,
    Trust,
    safety_of,
)
from sleap_rtc.errors import DataError

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
MINIMAL = {
    "id": "3f2a9c01",
    "name": "run",
    "model_type": "centroid",
    "status": "training",
    "source": "worker-training",
    "created_at": "2026-03-01T12:30:15Z",
}


def full() -> ModelRecord:
    return ModelRecord(
        id=ModelId("3f2a9c01-2"),
        name="run",
        model_type="centroid",
        status="interrupted",
        source="worker-pull",
        created_at=NOW,
        full_hash="a" * 64,
        canonical="{}",
        completed_at=NOW,
        downloaded_at=NOW,
        checkpoint="best.ckpt",
        config="training_config.yaml",
        files=(
            ModelFile(path="best.ckpt", size=10, blake3="b" * 64, sha256="c" * 64),
            ModelFile(path="sub/x", size=5, blake3="b" * 64, link="/data/x"),
        ),
        metrics=Metrics(best_val_loss=0.5, epochs=3, evaluation={"val.mean_error_px": 2.5}),
        training=Training(job="j", hyperparameters={"max_epochs": 50, "x": [1, {"y": None}]}),
        tags=("a", "b"),
        notes="n",
        locations=(Location(kind="worker", name="gpu", last_seen=NOW, path="/m"),),
        interruption=Interruption(epoch=3, checkpoint="last.ckpt", reason="killed"),
        skeleton=("head", "tail"),
    )


def test_a_record_survives_writing_and_reading() -> None:
    record = full()
    assert values.decode(ModelRecord, values.encode(record), what="x") == record


def test_unknown_fields_of_every_part_survive() -> None:
    plain = values.to_plain(full())
    plain["later"] = {"a": [1]}
    parts: list[dict[str, Any]] = [
        *plain["files"],
        plain["metrics"],
        plain["training"],
        *plain["locations"],
        plain["interruption"],
    ]
    for number, part in enumerate(parts):
        part["later"] = number
    record = values.from_plain(ModelRecord, plain, what="x")
    assert values.to_plain(record) == plain
    assert record.files[1].unknown == {"later": 1}


def test_directory_and_size_follow_from_the_rest() -> None:
    assert full().directory == "centroid_3f2a9c01-2"
    assert full().size == 15


def test_little_is_needed() -> None:
    record = values.from_plain(ModelRecord, MINIMAL, what="x")
    assert record.files == ()
    assert record.metrics == Metrics()


def test_times_are_kept_to_the_microsecond_and_to_the_zone() -> None:
    east = NOW.astimezone(timezone(timedelta(hours=9)))
    record = msgspec.structs.replace(full(), created_at=east)
    assert values.decode(ModelRecord, values.encode(record), what="x").created_at == NOW


@pytest.mark.parametrize(
    "change",
    [
        {"created_at": "2026-03-01T12:30:15"},
        {"status": "done"},
        {"source": "elsewhere"},
        {"model_type": "../etc"},
        {"model_type": "Centroid"},
        {"full_hash": "A" * 64},
        {"full_hash": "a" * 63},
        {"full_hash": "a" * 64 + "\n"},
        {"model_type": "centroid\n"},
        {"package": "a"},
        {"parent": "../x"},
        {"same_recipe_as": "x"},
        {"checkpoint": ""},
        {"notes": "x" * 1_001},
        {"tags": ["x" * 65]},
        {"tags": [""]},
        {"files": [{"path": "a", "size": -1, "blake3": "a" * 64}]},
        {"files": [{"path": "a", "size": 1}]},
        {"files": [{"path": "a", "size": 1, "blake3": "a" * 64, "link": "x" * 4_097}]},
        {"interruption": {"epoch": -1}},
        {"metrics": {"epochs": -1}},
        {"training": {"duration_s": -0.5}},
        {"locations": [{"kind": "moon", "name": "x", "last_seen": "2026-03-01T12:30:15Z"}]},
        {"id": None},
    ],
)
def test_what_breaks_the_rules_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        values.from_plain(ModelRecord, MINIMAL | change, what="x")


@pytest.mark.parametrize(
    "model_id", ["", "../x", "3F2A9C01", "3f2a9c0", "3f2a9c01-1", "3f2a9c01/", "3f2a9c01\n"]
)
def test_an_id_that_could_leave_its_directory_is_refused(model_id: str) -> None:
    with pytest.raises(DataError):
        values.from_plain(ModelRecord, MINIMAL | {"id": model_id}, what="x")


def of_files(*files: tuple[str, str | None, str], trusted: tuple[str, ...] = ()) -> ModelRecord:
    listed = tuple(
        ModelFile(path=path, size=1, blake3="0" * 64, safety=tier, found=found)
        for path, tier, found in files
    )
    trust = Trust(at=NOW, files=trusted, why="it would import os.system") if trusted else None
    return msgspec.structs.replace(full(), files=listed, trust=trust)


def test_a_model_is_as_safe_as_its_worst_file() -> None:
    clean = of_files(("best.ckpt", "scanned", ""), ("model.onnx", "safe", ""), ("a.png", None, ""))
    assert safety_of(clean) == Safety(tier="scanned")
    bad = of_files(("best.ckpt", "scanned", ""), ("old.pt", "flagged", "it would import os.system"))
    assert safety_of(bad) == Safety(tier="flagged", why="old.pt: it would import os.system")


def test_what_nobody_looked_into_is_unknown() -> None:
    assert safety_of(of_files(("best.ckpt", None, ""))).tier == "unknown"
    assert safety_of(msgspec.structs.replace(full(), files=())).tier == "unknown"
    assert safety_of(of_files(("notes.txt", None, ""))).tier == "safe"


def test_a_yes_counts_for_the_files_that_it_was_given_for() -> None:
    files = (("a.pt", "flagged", "x"), ("b.pt", "unknown", "y"))
    assert safety_of(of_files(*files, trusted=("a.pt", "b.pt"))).trusted
    assert not safety_of(of_files(*files, trusted=("a.pt",))).trusted


def test_trust_keeps_fields_that_this_version_does_not_know() -> None:
    plain = values.to_plain(of_files(("a.pt", "flagged", "x"), trusted=("a.pt",)))
    plain["trust"]["later"] = 1
    assert values.to_plain(values.from_plain(ModelRecord, plain, what="x")) == plain


def test_a_record_is_read_without_a_look_at_its_hashes_where_that_is_asked_for() -> None:
    record = ModelRecord(
        id=ModelId("3f2a9c01"),
        name="run",
        model_type="centroid",
        status="completed",
        source="hub",
        created_at=datetime(2026, 3, 1, tzinfo=UTC),
        full_hash="0" * 64,
        files=(ModelFile(path="best.ckpt", size=1, blake3="a" * 64),),
        training=Training(dataset_hash="b" * 64),
    )
    for digit in (b"0", b"a", b"b"):
        data = values.encode(record).replace(digit * 64, b"Z" * 64)
        with pytest.raises(DataError, match="regex"):
            values.decode(ModelRecord, data, what="x")
        found = msgspec.json.decode(data, type=ModelRecord[str])
        assert type(found) is ModelRecord
        assert type(found.files[0]) is ModelFile
    assert msgspec.json.decode(values.encode(record), type=ModelRecord[str]) == record
    with pytest.raises(msgspec.ValidationError):  # whatever costs little is checked all the same
        msgspec.json.decode(values.encode(record).replace(b"best.ckpt", b""), type=ModelRecord[str])
