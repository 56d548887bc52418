import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.errors import AlreadyExists, Damaged, FilesMissing, OutOfSpace, UnsafePath
from sleap_rtc.library import placing

RecordOf = Callable[..., ModelRecord]
FilesIn = Callable[..., tuple[ModelFile, ...]]


def file(path: str, size: int = 1, link: str | None = None) -> ModelFile:
    return ModelFile(path=path, size=size, blake3="0" * 64, link=link)


def test_files_as_listed_are_fine(tmp_path: Path, record_of: RecordOf, files_in: FilesIn) -> None:
    placing.check_files(
        tmp_path, record_of(files=files_in(tmp_path, a="1", b__c="22")), links=False
    )


def test_missing_files_are_named_and_many_are_counted(tmp_path: Path, record_of: RecordOf) -> None:
    (tmp_path / "file").touch()
    listed = (file("file/inside"), *(file(f"f{n}") for n in range(7)))
    with pytest.raises(FilesMissing, match="file/inside, f0, f1, f2, f3 and 3 more"):
        placing.check_files(tmp_path, record_of(files=listed), links=False)


def test_another_size_is_damage(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("12")
    with pytest.raises(Damaged, match="it has 2 bytes; its record says 1"):
        placing.check_file(tmp_path, file("a"), links=False)


@pytest.mark.parametrize(
    "path", ["../a", "/etc/hostname", "a/../../b", ".record/00000002.json", "model.json", "a\\b"]
)
def test_paths_that_lead_elsewhere_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(UnsafePath):
        placing.check_file(tmp_path, file(path), links=False)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(UnsafePath, match="not a file"):
        placing.check_file(tmp_path, file("a"), links=False)


def test_links_need_leave_and_the_records_word(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("x")
    (tmp_path / "a").symlink_to(target)
    listed = file("a", link=str(target))
    assert placing.check_file(tmp_path, listed, links=True)
    with pytest.raises(UnsafePath, match="only a local import"):
        placing.check_file(tmp_path, listed, links=False)
    with pytest.raises(UnsafePath, match="the record doesn't name"):
        placing.check_file(tmp_path, file("a"), links=True)
    with pytest.raises(UnsafePath, match="the record doesn't name"):
        placing.check_file(tmp_path, file("a", link="/etc/hostname"), links=True)
    target.unlink()
    assert not placing.check_file(tmp_path, listed, links=True)


def test_links_to_folders_are_never_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_text("x")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "sub").symlink_to(outside)
    with pytest.raises(UnsafePath, match="a folder in it is a link"):
        placing.check_file(inside, file("sub/x"), links=True)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    staged, directory = tmp_path / "staged", tmp_path / "model"
    staged.mkdir()
    directory.mkdir()
    return staged, directory


def test_listed_files_move_and_others_stay(
    two: tuple[Path, Path], record_of: RecordOf, files_in: FilesIn
) -> None:
    staged, directory = two
    files = files_in(staged, a="1", b__c__d="2")
    (staged / "extra").touch()
    placing.move_in(staged, directory, record_of(files=files), links=False)
    assert (directory / "b" / "c" / "d").read_text() == "2"
    assert [p.name for p in staged.rglob("*")] == ["extra"]
    (staged / "extra").unlink()
    placing.move_in(staged, directory, record_of(files=files), links=False)
    assert not staged.exists()
    placing.move_in(staged, directory, record_of(files=files), links=False)


def test_nothing_moves_when_something_is_wrong(
    two: tuple[Path, Path], record_of: RecordOf, files_in: FilesIn
) -> None:
    staged, directory = two
    files = files_in(staged, a="1")
    with pytest.raises(FilesMissing, match="b"):
        placing.move_in(staged, directory, record_of(files=(*files, file("b"))), links=False)
    assert list(directory.iterdir()) == []


def test_files_never_move_through_a_link(
    two: tuple[Path, Path], record_of: RecordOf, files_in: FilesIn, tmp_path: Path
) -> None:
    staged, directory = two
    (tmp_path / "outside").mkdir()
    (directory / "sub").symlink_to(tmp_path / "outside")
    with pytest.raises(UnsafePath, match="a folder in it is a link"):
        placing.move_in(
            staged, directory, record_of(files=files_in(staged, sub__x="1")), links=False
        )
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_folder_where_a_file_shall_be(
    two: tuple[Path, Path], record_of: RecordOf, files_in: FilesIn
) -> None:
    staged, directory = two
    (directory / "a").mkdir()
    with pytest.raises(AlreadyExists, match="the folder"):
        placing.move_in(staged, directory, record_of(files=files_in(staged, a="1")), links=False)


def test_a_full_disk_is_said(
    two: tuple[Path, Path],
    record_of: RecordOf,
    files_in: FilesIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    staged, directory = two

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    record = record_of(files=files_in(staged, a="1"))
    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OutOfSpace):
        placing.move_in(staged, directory, record, links=False)
    assert (staged / "a").read_text() == "1"


def test_moving_out_keeps_what_is_to_stay(two: tuple[Path, Path], tmp_path: Path) -> None:
    _, directory = two
    for name in ("a", ".record"):
        (directory / name).mkdir()
    placing.move_out(directory, tmp_path / "t" / "x", keep=lambda name: name == ".record")
    assert [p.name for p in directory.iterdir()] == [".record"]
    assert [p.name for p in (tmp_path / "t" / "x").iterdir()] == ["a"]
