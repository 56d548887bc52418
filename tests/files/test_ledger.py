from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.files import ledger
from sleap_rtc.files.ledger import Told

STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["here", "gone"]), st.lists(st.integers(0, 5), max_size=4)),
        st.tuples(st.just("sync"), st.just([])),
    ),
    max_size=20,
)


def test_it_reads_as_it_is_drawn() -> None:
    assert ledger.here([17]) == [b"w 17"]
    assert ledger.gone([17, 3]) == [b"x 17", b"x 3"]
    assert ledger.synced(40) == b"s 40"


def test_nothing_was_written() -> None:
    assert ledger.read([], 9) == Told(entries=0, synced=[], unsynced=[])


def test_a_block_that_was_written_again_waits_for_the_disk_again() -> None:
    records = [b"w 1", b"w 2", b"s 2", b"x 1", b"w 1"]
    assert ledger.read(records, 9) == Told(entries=4, synced=[2], unsynced=[1])


def test_nonsense_counts_as_a_record_and_says_nothing() -> None:
    records = [b"w 99", b"w -1", b"x 7", b"q", b"", b"w 1", b"w x", b"w " + b"9" * 5000]
    assert ledger.read(records, 9) == Told(entries=8, synced=[], unsynced=[1])
    assert ledger.read([b"w 1", b"s 1000", b"s x", b"s"], 9) == Told(1, [1], [])


@given(STEPS)
def test_what_it_tells_is_what_was_done(steps: list[tuple[str, list[int]]]) -> None:
    records: list[bytes] = []
    entries = 0
    on_disk: set[int] = set()
    written: set[int] = set()
    for kind, numbers in steps:
        if kind == "sync":
            records.append(ledger.synced(entries))
            on_disk |= written
            written.clear()
            continue
        entries += len(numbers)
        records += ledger.here(numbers) if kind == "here" else ledger.gone(numbers)
        on_disk -= set(numbers)
        written = written | set(numbers) if kind == "here" else written - set(numbers)
    told = ledger.read(records, 6)
    assert told.entries == entries
    assert (set(told.synced), set(told.unsynced)) == (on_disk, written)
    assert len(told.synced) + len(told.unsynced) == len(on_disk) + len(written)
