import errno
import fcntl
import os
import time
from pathlib import Path
from typing import Any

import pytest

from sleap_rtc.errors import OutOfSpace
from sleap_rtc.library import marks

A, B = "centroid_3f2a9c01", "bottomup_00000000-2"


def found(models: Path) -> list[tuple[str, bool]]:
    parsed = [marks.parse(name) for name in marks.names(models)]
    return sorted((mark.directory, mark.done) for mark in parsed if mark)


def test_a_mark_is_there_before_and_renamed_after(tmp_path: Path) -> None:
    assert marks.names(tmp_path) == set()
    assert marks.stamp(tmp_path) == 0
    with marks.changing(tmp_path, [A, B]):
        before = marks.names(tmp_path)
        assert found(tmp_path) == [(B, False), (A, False)]
    assert found(tmp_path) == [(B, True), (A, True)]
    assert not before & marks.names(tmp_path)
    assert marks.stamp(tmp_path) > 0


def test_one_mark_tells_of_a_great_many(tmp_path: Path) -> None:
    with marks.changing(tmp_path, [marks.ALL]):
        assert found(tmp_path) == [(marks.ALL, False)]
    assert found(tmp_path) == [(marks.ALL, True)]


def test_many_changes_are_over_when_their_writer_died(tmp_path: Path) -> None:
    with marks.changing(tmp_path, [marks.ALL]):
        (name,) = marks.names(tmp_path)
        mark = marks.parse(name)
        assert mark is not None
        assert not marks.is_over(tmp_path, mark)
    assert not marks.is_over(tmp_path, mark)  # it has its other name now
    (tmp_path / ".changes" / name).touch()  # as it is when nobody holds its lock any more
    assert marks.is_over(tmp_path, mark)


def test_one_model_may_be_changed_by_a_writer_that_died(tmp_path: Path) -> None:
    with marks.changing(tmp_path, [A]):
        (name,) = marks.names(tmp_path)
        mark = marks.parse(name)
        assert mark is not None
        assert not marks.is_over(tmp_path, mark)  # it is read each time, which costs nothing


def test_without_locks_nobody_is_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "none")

    monkeypatch.setattr(fcntl, "flock", none)
    with marks.changing(tmp_path, [marks.ALL]):
        (name,) = marks.names(tmp_path)
        mark = marks.parse(name)
        assert mark is not None
        assert not marks.is_over(tmp_path, mark)
    assert found(tmp_path) == [(marks.ALL, True)]


def test_a_change_of_more_than_an_hour_is_told_when_it_is_done(tmp_path: Path) -> None:
    with marks.changing(tmp_path, [marks.ALL, A]):
        past = time.time() - marks.KEPT_S - 60
        for name in marks.names(tmp_path):
            os.utime(tmp_path / ".changes" / name, (past, past))
        all_of_them = next(n for n in marks.names(tmp_path) if n.endswith(marks.ALL))
        (tmp_path / ".changes" / all_of_them).rename(tmp_path / "aside")
        marks.prune(tmp_path)
        assert found(tmp_path) == []
        (tmp_path / "aside").rename(tmp_path / ".changes" / all_of_them)
    marks.prune(tmp_path)
    assert found(tmp_path) == [(marks.ALL, True), (A, True)]


def test_a_change_that_failed_is_over_too(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), marks.changing(tmp_path, [A]):
        raise RuntimeError
    assert found(tmp_path) == [(A, True)]


@pytest.mark.parametrize("name", ["x", f"0123456789abcdef_{A}", "0123456789abcdef-x", ".tmp-1"])
def test_other_names_are_no_marks(name: str) -> None:
    assert marks.parse(name) is None


def test_old_marks_are_pruned(tmp_path: Path) -> None:
    for directory in (A, B):
        with marks.changing(tmp_path, [directory]):
            pass
    old = next(name for name in marks.names(tmp_path) if name.endswith(A))
    past = time.time() - marks.KEPT_S - 60
    os.utime(tmp_path / ".changes" / old, (past, past))
    marks.prune(tmp_path)
    assert found(tmp_path) == [(B, True)]


def test_one_writer_in_many_prunes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pruned: list[Path] = []
    monkeypatch.setattr(marks, "prune", pruned.append)
    monkeypatch.setattr(marks.secrets, "token_hex", lambda n: "00" * n)
    with marks.changing(tmp_path, [A]):
        assert pruned == [tmp_path]


def test_without_room_for_a_mark_the_change_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "open", full)
    begun = []
    with pytest.raises(OutOfSpace), marks.changing(tmp_path, [A]):
        begun.append(True)
    assert not begun
