from __future__ import annotations

import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.errors import OutOfSpace
from sleap_rtc.files.journal import MAX_RECORD, Journal, frame, read

records = st.lists(st.binary(max_size=40).filter(lambda record: b"\n" not in record), max_size=6)


@given(records)
def test_what_is_written_is_read(wanted: list[bytes]) -> None:
    data = b"".join(map(frame, wanted))
    assert read(data) == (wanted, len(data))


@given(records, st.data())
def test_torn_at_every_byte(wanted: list[bytes], data: st.DataObject) -> None:
    lines = [frame(record) for record in wanted]
    whole = b"".join(lines)
    for cut in range(len(whole) + 1):
        found, length = read(whole[:cut])
        assert found == wanted[: len(found)]
        assert length == sum(len(line) for line in lines[: len(found)])
        assert cut - length < (len(lines[len(found)]) if len(found) < len(lines) else 1)


@given(records.filter(bool), st.data())
def test_a_changed_byte_hides_its_line_and_the_rest(
    wanted: list[bytes], data: st.DataObject
) -> None:
    lines = [frame(record) for record in wanted]
    whole = bytearray(b"".join(lines))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    found, _ = read(bytes(whole))
    hit = next(i for i in range(len(lines)) if at < sum(map(len, lines[: i + 1])))
    assert found == wanted[:hit]


@given(st.binary(max_size=200))
def test_any_bytes_are_read(data: bytes) -> None:
    found, length = read(data)
    assert b"".join(map(frame, found)) == data[:length]


@pytest.mark.parametrize("head", ["-0000001", "+0000000", "0x000000", "0000_000", "  000000"])
def test_other_spellings_of_a_length_are_no_line(head: str) -> None:
    assert read(f"{head} {zlib.crc32(b''):08x} \n".encode()) == ([], 0)


def test_several_are_appended_at_once(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        journal.append(b"a", b"b")
        journal.append()
        journal.append(b"c")
    assert Journal(tmp_path / "journal").records == [b"a", b"b", b"c"]


@pytest.mark.parametrize("record", [b"a\nb", b"x" * (MAX_RECORD + 1)])
def test_records_that_cant_be_read_again_are_refused(record: bytes) -> None:
    with pytest.raises(ValueError, match="1 MiB"):
        frame(record)


def test_a_torn_end_is_cut_before_more_is_written(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(frame(b"one") + frame(b"two")[:-3])
    with Journal(path) as journal:
        assert journal.records == [b"one"]
        journal.append(b"three")
        journal.sync()
    with Journal(path) as journal:
        assert journal.records == [b"one", b"three"]
    journal.close()


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("x")
    (tmp_path / "journal").symlink_to("other")
    with pytest.raises(OSError, match="symbolic links"):
        Journal(tmp_path / "journal")


def test_a_full_disk_leaves_whole_lines(small_disk: Path) -> None:
    filler = small_disk / "filler"
    with Journal(small_disk / "journal") as journal:
        journal.append(b"before")
        filler.write_bytes(bytes(8 * 1024 * 1024 - 3 * 4096))
        with pytest.raises(OutOfSpace):
            journal.append(b"x" * 100_000)
        filler.unlink()
        journal.append(b"after")
    with Journal(small_disk / "journal") as journal:
        assert journal.records == [b"before", b"after"]
