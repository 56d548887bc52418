from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.library import index as index_module
from sleap_rtc.library.outgrown import KEPT_S, remove_outgrown
from sleap_rtc.library.registry import Registry

ONE, TWO = "0" * 32, "f" * 32


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    """Makes an index's folder, whose files were last written some seconds ago."""

    def make(name: str, *, age_s: float = KEPT_S + 60, newest_s: float | None = None) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        ages = {
            "current": age_s,
            "0123456789abcdef.sqlite": age_s if newest_s is None else newest_s,
        }
        for file, age in ages.items():
            (folder / file).write_bytes(b"x")
            os.utime(folder / file, (time.time() - age,) * 2)
        os.utime(folder, (time.time() - age_s,) * 2)
        return folder

    return make


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_nobody_used_for_a_month_goes_and_all_else_stays(
    made: Callable[..., Path], tmp_path: Path
) -> None:
    own = made(f"{ONE}-5")
    for name in (f"{ONE}-4", f"{TWO}-1", f"{ONE}-3.gone"):
        made(name)
    # Another library's, a later version's, one that is in use, and what is no index.
    kept = [own, made(f"{TWO}-5"), made(f"{ONE}-6"), made("notes-1"), made(f"{ONE}-4.old")]
    kept.append(made(f"{TWO}-4", newest_s=60))
    kept.append(made(f"{TWO}-3", age_s=KEPT_S - 60))
    remove_outgrown(own)
    assert names(tmp_path) == sorted(path.name for path in kept)


def test_what_a_link_leads_to_stays(made: Callable[..., Path], tmp_path: Path) -> None:
    other = made("somewhere")
    (tmp_path / f"{ONE}-4").symlink_to(other)
    (tmp_path / f"{ONE}-3.gone").symlink_to(other)
    (tmp_path / f"{ONE}-2").write_text("a file")
    before = names(tmp_path)
    remove_outgrown(tmp_path / f"{ONE}-5")
    assert names(tmp_path) == before
    assert names(other) == ["0123456789abcdef.sqlite", "current"]


def test_a_folder_that_is_none_removes_nothing(made: Callable[..., Path], tmp_path: Path) -> None:
    made(f"{ONE}-4")
    remove_outgrown(tmp_path / "index")
    remove_outgrown(tmp_path / "no" / f"{ONE}-5")
    assert names(tmp_path) == [f"{ONE}-4"]


def test_a_later_version_removes_what_an_earlier_one_left(
    tmp_path: Path, record_of: Callable[..., ModelRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until an earlier version is used again: then it has an index again."""
    folder = tmp_path / "index"

    def listed(schema: int) -> list[str]:
        with monkeypatch.context() as patched:
            patched.setattr(index_module, "SCHEMA", schema)
            with Registry(tmp_path / "models", index_dir=folder) as registry:
                return [entry.record.name for entry in registry.list().entries]

    with Registry(tmp_path / "models", index_dir=tmp_path / "other") as registry:
        registry.register(record_of("a"))
    assert listed(3) == ["a"]
    assert listed(4) == ["a"]
    assert len(names(folder)) == 2  # it may well be in use
    (old,) = folder.glob("*-3")
    for path in (*old.iterdir(), old):
        os.utime(path, (time.time() - KEPT_S - 60,) * 2)
    assert listed(5) == ["a"]
    assert [name[-2:] for name in names(folder)] == ["-4", "-5"]
    assert listed(3) == ["a"]
