import json
import os
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sleap_rtc.domain import values
from sleap_rtc.domain.values import Document
from sleap_rtc.errors import Damaged, NewerFormat
from sleap_rtc.library import chain


class Note(Document, frozen=True):
    text: str


def put(folder: Path, after: int, text: str) -> bool:
    return chain.append(folder, after, values.encode(Note(text=text)))


def numbers(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.iterdir())


def test_nothing_there(tmp_path: Path) -> None:
    assert chain.read(tmp_path, Note) is None
    assert chain.read(tmp_path / "none", Note) is None
    assert chain.top(tmp_path / "none") == 0


def test_each_number_is_made_once(tmp_path: Path) -> None:
    assert put(tmp_path, 0, "first")
    assert not put(tmp_path, 0, "late")
    assert put(tmp_path, 1, "second")
    found = chain.read(tmp_path, Note)
    assert found == chain.Revision(number=2, top=2, value=Note(text="second"))
    assert chain.top(tmp_path) == 2


def test_the_last_five_stay_and_other_files_are_told(tmp_path: Path) -> None:
    for name in ("x", ".tmp-0", "1.json", "000000001.json"):
        (tmp_path / name).mkdir()
    for number in range(9):
        assert put(tmp_path, number, str(number))
    found = chain.read(tmp_path, Note)
    assert found is not None
    assert found.others == (".tmp-0", "000000001.json", "1.json", "x")
    made = sorted(path.stem for path in tmp_path.iterdir() if path.is_file())
    assert made == [f"{number:08d}" for number in range(5, 10)]


@pytest.mark.parametrize("slept_since", [0, 1, 2])
def test_a_number_that_was_pruned_is_not_made_again(tmp_path: Path, slept_since: int) -> None:
    for number in range(slept_since, slept_since + 8):
        if number:
            put(tmp_path, number, str(number))
        else:
            put(tmp_path, 0, "0")
    assert not put(tmp_path, slept_since, "mine")
    found = chain.read(tmp_path, Note)
    assert found is not None
    assert found.value.text != "mine"


def test_a_later_format_is_never_passed_over(tmp_path: Path) -> None:
    put(tmp_path, 0, "old")
    (tmp_path / chain.file_name(2)).write_text('{"format": "2.0"}')
    with pytest.raises(NewerFormat, match=r"00000002\.json has format 2\.0"):
        chain.read(tmp_path, Note)


def test_what_killed_writers_left_is_removed_in_time(tmp_path: Path) -> None:
    old, young = tmp_path / ".tmp-old", tmp_path / ".tmp-young"
    for path, age in ((old, 3_700), (young, 10)):
        path.touch()
        os.utime(path, (time.time() - age, time.time() - age))
    put(tmp_path, 0, "x")
    assert not old.exists()
    assert young.exists()


def test_a_document_in_the_wrong_place_is_damage(tmp_path: Path) -> None:
    put(tmp_path, 0, "good")
    put(tmp_path, 1, "stray")

    def fault(note: Note) -> str:
        return "it is a stray" if note.text == "stray" else ""

    found = chain.read(tmp_path, Note, fault=fault)
    assert found is not None
    assert (found.number, found.top) == (1, 2)
    (tmp_path / chain.file_name(1)).unlink()
    with pytest.raises(Damaged, match="is damaged: it is a stray"):
        chain.read(tmp_path, Note, fault=fault)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["good", "damaged", "empty"]), min_size=1, max_size=8))
def test_the_highest_readable_is_the_document(kinds: list[str]) -> None:

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, kind in enumerate(kinds, 1):
            content = {"good": json.dumps({"text": str(number)}), "damaged": "{", "empty": ""}
            (folder / chain.file_name(number)).write_text(content[kind])
        good = [number for number, kind in enumerate(kinds, 1) if kind == "good"]
        if not good:
            with pytest.raises(Damaged):
                chain.read(folder, Note)
            return
        found = chain.read(folder, Note)
        assert found is not None
        assert (found.number, found.top, found.value.text) == (good[-1], len(kinds), str(good[-1]))
        assert put(folder, found.top, "next")
        assert numbers(folder)[-1] == len(kinds) + 1
