import unicodedata
from difflib import SequenceMatcher

import pytest
from hypothesis import given, settings
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


def test_near_names_come_the_nearest_first() -> None:
    known = ["fly-centroid", "fly-instance", "mouse"]
    assert aliases.near("Fly-Centrod", known)[0] == "fly-centroid"
    assert aliases.near("zebra", known) == []
    assert len(aliases.near("a", ["a1", "a2", "a3", "a4"], most=2)) == 2
    assert aliases.near("/home/me/fly-centroid", known) == []
    assert aliases.near("", known) == []


def test_a_part_of_a_name_is_near_it_where_it_begins_the_name_first() -> None:
    known = ["old-beads", "beads_centroid", "beads_centered_instance", "mouse"]
    assert aliases.near("Beads", known)[:2] == ["beads_centroid", "beads_centered_instance"]
    assert "old-beads" in aliases.near("beads", known)
    assert aliases.near("be", ["a-long-name-with-be-in-it"]) == []


@pytest.fixture(scope="module")
def many() -> list[str]:
    """Names as people make them for thousands of models: nearly all of each is every other's."""
    animals = ("fly", "mouse", "gerbil", "zebrafish")
    made = [f"{animals[n % 4]}-rig{n % 37:02d}-v{n}" for n in range(1_500)]
    return [f"best-{n:06d}" for n in range(2_500)] + made


@given(data=st.data())
@settings(max_examples=10)
def test_among_thousands_a_mistyped_name_is_found(many: list[str], data: st.DataObject) -> None:
    meant = data.draw(st.sampled_from(many))
    at = data.draw(st.integers(1, len(meant) - 1))
    left_out = meant[:at] + meant[at + 1 :]
    swapped = meant[: at - 1] + meant[at] + meant[at - 1] + meant[at + 1 :]
    doubled = meant[:at] + meant[at] + meant[at:]
    for wrong in (left_out, swapped, doubled):
        near = aliases.near(wrong, many)
        best = max((SequenceMatcher(a=wrong, b=one).ratio() for one in near), default=0)
        assert len(near) == 3
        assert wrong in many or best >= SequenceMatcher(a=wrong, b=meant).ratio() - 0.05


@pytest.mark.parametrize(
    ("wrong", "meant"), [("fyl", "fly"), ("bees", "bee"), ("moose", "mouse"), ("cta", "cat")]
)
def test_among_thousands_a_short_name_is_found(many: list[str], wrong: str, meant: str) -> None:
    assert meant in aliases.near(wrong, [*many, "fly", "bee", "mouse", "cat"])


def test_what_is_like_nothing_is_near_nothing_among_thousands(many: list[str]) -> None:
    assert aliases.near("quokka", many) == []
    assert aliases.near("//", many) == []
    assert aliases.near("ø" * 5_000, many) == []
