from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from sleap_rtc.domain.models import STATUSES, Interruption, Metrics, ModelRecord, Status
from sleap_rtc.errors import IllegalTransition
from sleap_rtc.library import changes
from sleap_rtc.library.status import TRANSITIONS

RecordOf = Callable[..., ModelRecord]
NOW = datetime(2026, 4, 1, tzinfo=UTC)


def test_a_lineage_grows_with_each_resumption(record_of: RecordOf) -> None:
    record = record_of()
    for epoch in (3, 7):
        record = changes.interrupted(record, Interruption(epoch=epoch, checkpoint="last.ckpt"))
        record = changes.trained(record)
    assert record.training.resumed_from == ("epoch 3", "epoch 7")
    assert changes.trained(record) == record


def test_completing_twice_keeps_the_first_time(record_of: RecordOf) -> None:
    first = changes.completed(record_of(), Metrics(epochs=1), NOW, {"checkpoint": "best.ckpt"})
    second = changes.completed(first, Metrics(epochs=2), NOW.replace(year=2027), {})
    assert second == replace(first, metrics=Metrics(epochs=2))


def test_completing_ends_an_interruption(record_of: RecordOf) -> None:
    stopped = changes.interrupted(record_of(), Interruption(epoch=3))
    done = changes.completed(stopped, Metrics(), NOW, {})
    assert (done.status, done.interruption) == ("completed", None)


@pytest.mark.parametrize("to", STATUSES)
@pytest.mark.parametrize("now", STATUSES)
def test_arriving_files_bring_a_status_that_is_possible(
    record_of: RecordOf, now: Status, to: Status
) -> None:
    old, new = record_of(status=now), record_of(status=to)
    possible = now == to or any(
        after == to and before == now for (before, _), after in TRANSITIONS.items()
    )
    if possible:
        assert changes.arrived(old, new, NOW).status == to
    else:
        with pytest.raises(IllegalTransition):
            changes.arrived(old, new, NOW)


def test_unknown_fields_of_both_sides_are_kept(record_of: RecordOf) -> None:
    old, new = record_of(unknown={"a": 1, "b": 1}), record_of(unknown={"b": 2, "c": 2})
    assert changes.arrived(old, new, NOW).unknown == {"a": 1, "b": 1, "c": 2}


def test_what_was_trained_here_was_never_downloaded(record_of: RecordOf) -> None:
    done = record_of(status="completed")
    trained = changes.arrived(record_of(source="worker-training"), done, NOW)
    pulled = changes.arrived(record_of(source="worker-pull"), done, NOW)
    assert (trained.downloaded_at, pulled.downloaded_at) == (None, NOW)
