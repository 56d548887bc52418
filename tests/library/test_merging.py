from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from msgspec.structs import replace

from sleap_rtc.domain.ids import ModelId
from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.errors import OutOfSpace
from sleap_rtc.library import merging
from sleap_rtc.library.merging import Outcome, Report
from sleap_rtc.library.registry import Registry

RecordOf = Callable[..., ModelRecord]
ID = ModelId("3f2a9c01")


def test_a_report_counts_all_and_keeps_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "MAX_OUTCOMES", 2)
    report = Report("m.json")
    for name in ("a", "b", "x" * 1_000):
        report.add("model", name, "added", now=ID)
    report.add("alias", "fly", "refused", why="no")
    assert (report.count("model", "added"), report.count("alias", "added", "refused")) == (3, 1)
    assert [each.name for each in report.outcomes] == ["a", "b"]
    assert report.ids == {"a": ID, "b": ID, "x" * 1_000: ID}


def test_files_come_in_with_their_record(
    registry: Registry, record_of: RecordOf, files_in: Any
) -> None:
    folder = registry.claims.new_folder()
    record = replace(record_of(status="completed"), files=files_in(folder))
    report = Report("x")
    merging.take_in(registry, report, record, folder)
    assert report.outcomes == [Outcome(kind="model", name=record.id, fate="added", now=record.id)]
    assert (registry.get(record.id).directory / "best.ckpt").read_text() == "weights"

    again = registry.claims.new_folder()
    files_in(again)
    merging.take_in(registry, report, record, again)
    assert report.outcomes[-1].fate == "known"
    assert list(registry.incoming.iterdir()) == []


def test_a_model_without_its_files_is_refused_whole(
    registry: Registry, record_of: RecordOf, files_in: Any
) -> None:
    folder = registry.claims.new_folder()
    record = replace(record_of(), files=files_in(folder))
    (folder / "best.ckpt").write_text("cut")
    report = Report("x")
    merging.take_in(registry, report, record, folder)
    assert report.outcomes[0].fate == "refused"
    assert "3 bytes; its record says 7" in report.outcomes[0].why
    assert list(registry.incoming.iterdir()) == []
    assert list(registry.walk()) == []


def test_a_full_disk_is_no_outcome(
    registry: Registry, record_of: RecordOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "full")

    report = Report("x")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutOfSpace):
        merging.take_in(registry, report, record_of())
    assert report.outcomes == []


def test_content_is_compared_and_nothing_else_is_read(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"weights")
    right = ModelFile(path="f", size=7, blake3=blake3(b"weights").hexdigest())
    assert merging.has_content(path, right)
    assert not merging.has_content(path, replace(right, size=8))
    assert not merging.has_content(path, replace(right, blake3="0" * 64))
    assert not merging.has_content(tmp_path / "none", right)
    assert not merging.has_content(Path("with\0nul"), right)
    folder = tmp_path / "folder"
    folder.mkdir()
    assert not merging.has_content(folder, replace(right, size=folder.stat().st_size))
    link = tmp_path / "link"
    link.symlink_to(path)
    assert not merging.has_content(link, replace(right, size=link.lstat().st_size))


def test_differences_are_named(record_of: RecordOf) -> None:
    record = record_of()
    assert merging.differences(record, record) == ()
    assert merging.differences(record, replace(record, notes="x", name="y")) == ("name", "notes")
    file = ModelFile(path="f", size=7, blake3="0" * 64)
    there, linked = replace(record, files=(file,)), replace(file, link="/f", safety="unknown")
    assert merging.differences(there, replace(record, files=(linked,))) == ()
    assert merging.differences(there, record) == ("files",)
