"""What doctor says of the library."""

from __future__ import annotations

import json

import pytest

from sleap_rtc.cli import library_checks


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
    assert check["message"] == "1 record and the aliases are whole"


def test_damage_is_told_with_what_mends_it(home, checked):
    entries = [home.model(f"fly-{n}") for n in range(5)]
    for entry in entries:
        (entry.directory / ".record" / "00000001.json").write_text("{")
    (check,) = checked()
    assert check["status"] == "broken"
    assert check["message"].startswith("records can't be read: ")
    assert check["message"].endswith(" and 2 more")
    assert check["hint"].startswith("sleap-rtc repair-model ")


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
