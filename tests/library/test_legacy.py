from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.domain import values
from sleap_rtc.domain.models import Location, ModelRecord
from sleap_rtc.errors import DataError
from sleap_rtc.library import legacy

MADE = datetime(2026, 1, 1, tzinfo=UTC)
EAST = timezone(timedelta(hours=2))

CLIENT = {
    "id": "3f2a9c01",
    "model_type": "centroid",
    "source": "local-import",
    "local_path": "/home/me/.sleap-rtc/models/centroid_3f2a9c01",
    "checkpoint_path": "/home/me/.sleap-rtc/models/centroid_3f2a9c01/best.ckpt",
    "on_worker": True,
    "worker_last_seen": "2025-11-10T14:30:45Z",
    "worker_path": "/data/models/x",
    "size_bytes": 7,
    "import_mode": "symlink",
    "original_path": "/home/me/runs/fly",
    "imported_at": "2025-11-10T16:00:00.5",
    "alias": "fly",
    "notes": "good",
    "tags": ["b", "a", "a", 3, ""],
    "metrics": {"best_val_loss": 0.001, "val_loss": 0.002, "epochs": 50, "oks": 0.9, "x": "y"},
    "training_hyperparameters": {"lr": 0.001, "optimizer": "adam", "deep": {"no": 1}},
}
WORKER = {
    "id": "77aa01bc",
    "full_hash": "A" * 64,
    "run_name": "run 7",
    "model_type": "centered_instance",
    "training_job_hash": "abc",
    "status": "interrupted",
    "checkpoint_path": "models/centered_instance_77aa01bc/last.ckpt",
    "config_path": "models/centered_instance_77aa01bc/training_config.yaml",
    "created_at": "2025-11-10T16:00:00+00:00",
    "metrics": None,
    "metadata": {"gpu_model": "RTX", "dataset": "flies.slp"},
    "last_epoch": 12,
    "interrupted_at": "2025-11-10T17:00:00",
}


def read(entry: object, name: str = "3f2a9c01") -> legacy.Old:
    return legacy.read(name, entry, local=EAST, otherwise=MADE)


def test_a_clients_entry() -> None:
    old = read(CLIENT)
    record = old.record
    assert (record.id, record.name, record.model_type) == ("3f2a9c01", "fly", "centroid")
    assert (record.status, record.source) == ("imported", "local-import")
    assert record.created_at == datetime(2025, 11, 10, 14, 0, 0, 500_000, tzinfo=UTC)
    assert (record.tags, record.notes) == (("a", "b"), "good")
    metrics = record.metrics
    assert (metrics.final_val_loss, metrics.best_val_loss, metrics.epochs) == (0.002, 0.001, 50)
    assert metrics.evaluation == {"oks": 0.9}
    assert record.training.hyperparameters == {"lr": 0.001, "optimizer": "adam"}
    seen = datetime(2025, 11, 10, 14, 30, 45, tzinfo=UTC)
    place = Location(kind="worker", name="worker", last_seen=seen, path="/data/models/x")
    assert record.locations == (place,)
    assert record.unknown[legacy.KEPT_AS]["import_mode"] == "symlink"
    assert (old.alias, old.places) == (
        "fly",
        ("/home/me/.sleap-rtc/models/centroid_3f2a9c01", "/home/me/runs/fly"),
    )


def test_a_workers_entry() -> None:
    old = read(WORKER, "77aa01bc")
    record = old.record
    assert (record.name, record.full_hash) == ("run 7", "a" * 64)
    assert (record.status, record.source) == ("interrupted", "worker-training")
    assert record.interruption is not None
    assert record.interruption.epoch == 12
    assert (record.training.device, record.training.dataset_name) == ("RTX", "flies.slp")
    assert old.places == ("models/centered_instance_77aa01bc",)
    assert old.checkpoint == "models/centered_instance_77aa01bc/last.ckpt"


@pytest.mark.parametrize(
    ("status", "source", "becomes"),
    [
        ("completed", "worker-training", "completed"),
        ("failed", "worker-training", "failed"),
        ("training", "worker-training", "interrupted"),
        ("checkpoint_missing", "local-import", "imported"),
        ("broken_symlink", "worker-pull", "completed"),
        (None, "client-upload", "completed"),
        (None, "elsewhere", "imported"),
    ],
)
def test_statuses(status: Any, source: str, becomes: str) -> None:
    assert read(CLIENT | {"status": status, "source": source}).record.status == becomes


def test_an_id_of_another_form_becomes_one_and_always_the_same() -> None:
    old = read(CLIENT, "my model")
    assert old.renamed_from == "my model"
    assert old.record.id == read(CLIENT, "my model").record.id
    assert read(CLIENT, "3f2a9c01-2").record.id == "3f2a9c01-2"


@pytest.mark.parametrize("entry", [None, 3, [], {}, {"model_type": 3}, {"model_type": "../x"}])
def test_what_has_no_type_is_no_model(entry: Any) -> None:
    with pytest.raises(DataError):
        read(entry)


def test_a_time_that_can_not_be_is_left_out() -> None:
    for time in ("0001-01-01T00:00:00", "9999-12-31T23:59:59-14:00", "soon", 7, None):
        assert read(CLIENT | {"imported_at": time}).record.created_at == MADE


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(CLIENT | WORKER, plain)), st.text())
def test_whatever_it_says_the_record_can_be_kept(entry: dict[str, Any], name: str) -> None:
    record = read(entry | {"model_type": "centroid"}, name).record
    again = values.decode(ModelRecord, values.encode(record), what="record")
    assert again.id == record.id


# YAML


def test_yaml_is_read() -> None:
    text = b"version: '1.0'\nmodels:\n  3f2a9c01:\n    created_at: 2025-11-10T16:00:00\n"
    plain = legacy.parse_yaml(text, what="m.yaml")
    assert plain["models"]["3f2a9c01"]["created_at"].isoformat() == "2025-11-10T16:00:00"


LAUGHS = b"a: &a [x, x]\nb: &b [*a, *a]\nmodels: [*b, *b]\n"


@pytest.mark.parametrize(
    "data",
    [LAUGHS, b"[1, 2]", b"a: [", b"\xff\xfe\xff", b"!!python/object:os.system x", b"[" * 9_999],
)
def test_other_yaml_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match=r"m\.yaml"):
        legacy.parse_yaml(data, what="m.yaml")


def test_much_yaml_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(legacy, "MAX_YAML", 4)
    with pytest.raises(DataError, match="it has more than"):
        legacy.parse_yaml(b"a: b\n", what="m.yaml")
