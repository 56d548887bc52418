"""What doctor says of the library."""

from __future__ import annotations

import json

import pytest
from blake3 import blake3
from msgspec.structs import replace

from sleap_rtc.cli import library_checks
from sleap_rtc.domain.models import ModelFile


@pytest.fixture
def checked(cli, home):
    """What doctor says of the library."""

    def check():
        checks = json.loads(cli("doctor", "--json").out)["checks"]
        return [each for each in checks if each["name"] == "library"]

    return check


def test_a_good_library(home, checked):
    assert checked() == []
    home.alias("fly", home.model().id)
    (check,) = checked()
    assert (check["status"], check["hint"]) == ("ok", "")
    assert check["message"] == "1 model and the aliases are whole, and no file is missing"


def test_damage_is_told_with_what_mends_it(home, checked):
    entries = [home.model(f"fly-{n}") for n in range(5)]
    for entry in entries:
        (entry.directory / ".record" / "00000001.json").write_text("{")
    (check,) = checked()
    assert check["status"] == "broken"
    assert check["message"].startswith("records can't be read: ")
    assert check["message"].endswith(" and 2 more")
    assert check["hint"].startswith("sleap-rtc repair-model ")


def test_files_that_are_not_there_are_counted(home, checked):
    entries = [home.model(f"fly-{n}") for n in range(2)]
    (entries[0].directory / "best.ckpt").unlink()
    (check,) = checked()
    assert check["status"] == "broken"
    assert check["message"] == (f"1 file missing, or of another size: {entries[0].id}")
    assert check["hint"] == f"sleap-rtc repair-model {entries[0].id}"


def test_links_that_lead_nowhere_are_counted(home, checked, tmp_path):
    theirs = tmp_path / "drive" / "best.ckpt"
    theirs.parent.mkdir()
    theirs.write_bytes(b"weights")
    record = home.model("fly").record
    with home.library as library:
        folder = library.claims.new_folder()
        (folder / "best.ckpt").symlink_to(theirs)
        digest = blake3(b"weights").hexdigest()
        file = ModelFile(path="best.ckpt", size=7, blake3=digest, link=str(theirs.resolve()))
        linked = replace(record, id="0a1b2c3d", files=(file,), checkpoint="best.ckpt")
        library.place(folder, linked, links=True)
    assert checked()[0]["status"] == "ok"
    theirs.unlink()
    (check,) = checked()
    assert check["status"] == "warning"
    assert check["message"] == "1 file, linked to, not there: 0a1b2c3d"
    assert "sleap-rtc repair-model 0a1b2c3d --path" in check["hint"]


def test_an_alias_that_can_not_be_read(home, checked):
    home.alias("fly", home.model().id)
    (home.root / "models" / ".aliases" / "fly" / "00000001.json").write_text("{")
    (check,) = checked()
    assert (check["status"], check["message"]) == ("warning", "aliases can't be read: fly")
    assert "tag-model MODEL fly --force" in check["hint"]


def test_a_large_library_is_looked_at_for_a_while(home, checked, monkeypatch):
    home.model()
    monkeypatch.setattr(library_checks, "LOOK_S", -1.0)
    (check,) = checked()
    assert check["status"] == "ok"
    assert "as far as" in check["message"]
