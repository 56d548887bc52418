"""``clean-models`` on a library in this process."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest

from sleap_rtc.cli.care_documents import CleanDocument
from sleap_rtc.cli.clean import KINDS
from sleap_rtc.library import cleaning


def folder(path: Path, *, days: float = 2) -> Path:
    path.mkdir(parents=True)
    (path / "data").write_bytes(b"x" * 4096)
    then = time.time() - days * 86_400
    for each in (path / "data", path):
        os.utime(each, (then, then))
    return path


@pytest.fixture
def mess(home):
    """One thing of each of four kinds, and a model that is well."""
    home.model("kept")
    lost = home.model("lost")
    (lost.directory / "best.ckpt").unlink()
    models = lost.directory.parent
    return {
        "partial": folder(home.root / "incoming" / f"{'a' * 64}-{'b' * 16}"),
        "abandoned": folder(models / ".incoming" / ".tmp-0123"),
        "records": lost.directory,
        "files": folder(models / "centroid_0badcafe"),
    }


def found(done) -> dict[str, tuple[bool, str | None]]:
    document = msgspec.convert(done.document, CleanDocument)
    return {one.kind: (one.removed, one.trash) for one in document.found}


def test_the_kinds_are_the_librarys():
    assert KINDS == cleaning.KINDS


def test_nothing_to_clean(cli, home):
    home.model("kept")
    done = cli("clean-models")
    assert (done.code, done.out) == (0, "")
    assert "Nothing to clean." in done.err


def test_a_dry_run_only_shows(cli, mess):
    done = cli("clean-models", "--dry-run", "--yes", environment={"COLUMNS": "200"})
    assert done.code == 0
    for path in mess.values():
        assert str(path) in done.out
        assert path.exists()
    assert "4 found" in done.err
    assert "Nothing was removed." in done.err
    assert set(found(cli("clean-models", "--dry-run", "--json"))) == set(mess)


def test_without_a_person_nothing_is_asked_and_nothing_removed(cli, mess):
    done = cli("clean-models")
    assert done.code == 0
    assert "add --yes" in done.err
    assert all(path.exists() for path in mess.values())


def test_yes_leaves_what_may_be_somebodys(cli, mess, home):
    done = cli("clean-models", "--yes", "--json")
    assert found(done) == {
        "partial": (True, None),
        "abandoned": (True, None),
        "records": (True, found(done)["records"][1]),
        "files": (False, None),
    }
    assert found(done)["records"][1] is not None
    assert mess["files"].exists()
    assert not mess["partial"].exists()
    with home.library as library:
        assert [entry.record.name for entry in library.list().entries] == ["kept"]
    done = cli("clean-models", "--yes", "--kind", "files", "--json")
    assert Path(found(done)["files"][1]).is_dir()
    assert not mess["files"].exists()


def test_each_kind_is_asked_for(cli, mess):
    done = cli("clean-models", terminal=True, stdin="n\ny\n\n\n")
    assert done.code == 0
    assert done.err.count("Remove it?") == 4
    assert mess["partial"].exists()
    assert not mess["abandoned"].exists()
    assert mess["files"].exists()  # its default is no
    assert "Removed 2" in done.err
    assert "1 of them are in the trash" in done.err


def test_one_kind_alone(cli, mess):
    done = cli("clean-models", "--kind", "partial", "--yes", "-q")
    assert done.out == f"{mess['partial']}\n"
    assert mess["abandoned"].exists()
    assert cli("clean-models", "--kind", "dust").code == 2


def test_many_things_are_not_listed_one_by_one(cli, home):
    for number in range(25):
        folder(home.root / "models" / f"centroid_{number:08x}")
    done = cli("clean-models", "--dry-run")
    assert len(done.out.splitlines()) == 22
    assert "5 more." in done.err
