import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.domain import aliases
from sleap_rtc.errors import InvalidName

NAMES = st.text(st.characters(categories=["L", "Nd"], include_characters="._-"), max_size=70)


@pytest.mark.parametrize(
    "name", ["a", "fly-centroid-v2", "Mouse_3.1", "мышь", "ハエ", "x" * 64, "Ω", "2026-run", "abc"]
)
def test_valid(name: str) -> None:
    assert aliases.check(name) == name
    assert aliases.fault(name) == ""


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        ("x" * 65, "65 characters"),
        ("a b", "' '"),
        ("a/b", "'/'"),
        ("a:b", "':'"),
        ("a\n", r"'\\n'"),
        ("-a", "starts with '-'"),
        (".a", "starts with '.'"),
        ("Latest", "reserved"),
        ("NONE", "reserved"),
        ("3f2a9c01", "looks like an id"),
        ("3F2A9C01", "looks like an id"),
        ("3f2a9c01-2", "looks like an id"),
        ("beef", "looks like an id"),
        ("f" * 64, "looks like an id"),
        ("0190d1c5-3c1f-7a2b-8c3d-0123456789ab", "looks like an id"),
        ("𐐷" * 64, "more than 200 bytes"),
    ],
)
def test_invalid_says_why_in_one_line(name: str, why: str) -> None:
    with pytest.raises(InvalidName, match=why) as caught:
        aliases.check(name)
    assert "\n" not in caught.value.message


@given(NAMES)
def test_a_valid_alias_is_a_safe_file_name(name: str) -> None:
    if aliases.fault(name):
        return
    key = aliases.key(name)
    assert len(key.encode()) <= 200
    assert key[0] not in ".-"
    assert not set(key) & set("/\\\0:")


@given(NAMES)
def test_spellings_that_differ_by_composition_have_one_key(name: str) -> None:
    key = aliases.key(name)
    assert aliases.key(key) == key
    assert aliases.key(unicodedata.normalize("NFD", name)) == key


@pytest.mark.parametrize(("a", "b"), [("Fly", "fLY"), ("STRASSE", "straße"), ("Ärger", "äRGER")])
def test_spellings_that_differ_by_case_have_one_key(a: str, b: str) -> None:
    assert aliases.key(a) == aliases.key(b)


def test_near_names_are_given_as_spelled_the_nearest_first() -> None:
    known = ["Fly-Centroid", "fly-instance", "mouse"]
    assert aliases.near("fly-centrod", known)[0] == "Fly-Centroid"
    assert aliases.near("zebra", known) == []
    assert len(aliases.near("a", ["a1", "a2", "a3", "a4"], most=2)) == 2


def test_a_part_of_a_name_is_near_it_where_it_begins_the_name_first() -> None:
    known = ["old-beads", "Beads_centroid", "beads_centered_instance", "mouse"]
    assert aliases.near("beads", known)[:2] == ["Beads_centroid", "beads_centered_instance"]
    assert "old-beads" in aliases.near("beads", known)
    assert aliases.near("be", ["a-long-name-with-be-in-it"]) == []
