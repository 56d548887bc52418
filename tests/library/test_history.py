"""The losses of a model's epochs, from the log that its record lists."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sleap_rtc.library.history import Epoch, losses

OURS = "epoch,train/loss,val/loss\n0,,0.5\n1,0.4,0.3\n"
OLD = "epoch,loss,val_loss\n0,0.4,0.5\n1,0.2,nan\n"


@pytest.fixture
def with_log(registry, record_of, files_in):
    """Puts a model with a log into the library."""

    def place(text, name="training_log__csv"):
        folder = registry.incoming / "one"
        files = files_in(folder, **{"best_ckpt": "x", name.replace("__csv", ".csv"): text})
        return registry.place(folder, record_of("a", status="completed", files=files))

    return place


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (OURS, (Epoch(0, 0.4, 0.5), Epoch(1, None, 0.3))),
        (OLD, (Epoch(0, 0.4, 0.5), Epoch(1, 0.2, None))),
        ("nonsense", ()),
        ("", ()),
    ],
)
def test_losses_are_read(with_log, text, found):
    assert losses(with_log(text)) == found


def test_without_a_log_there_are_none(registry, record_of):
    assert losses(registry.register(record_of("a"))) == ()


def test_a_log_that_isn_t_as_recorded_is_not_read(with_log, tmp_path):
    entry = with_log(OURS)
    path = entry.directory / "training_log.csv"
    path.unlink()
    assert losses(entry) == ()
    (tmp_path / "other.csv").write_text(OURS)
    path.symlink_to(tmp_path / "other.csv")
    assert losses(entry) == ()


def test_only_a_listed_log_is_read(with_log):
    entry = with_log(OURS)
    others = tuple(f for f in entry.record.files if not f.path.endswith(".csv"))
    assert losses(replace(entry, record=replace(entry.record, files=others))) == ()
