from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.domain import aliases as rules
from sleap_rtc.domain.ids import ModelId
from sleap_rtc.library.naming import suggestions

TODAY = date(2026, 3, 1)
MODEL = ModelId("3f2a9c01")


def near(name: str, *taken: str, model: ModelId | None = MODEL) -> tuple[str, ...]:
    return suggestions(name, taken=set(taken).__contains__, today=TODAY, model=model)


def test_a_version_the_month_and_the_id_are_proposed() -> None:
    assert near("fly") == ("fly-v2", "fly-2026-03", "fly-3f2a")


def test_what_is_taken_is_not_proposed() -> None:
    assert near("fly", "fly-v2", "fly-v3", "fly-2026-03") == ("fly-v4", "fly-3f2a")


def test_a_version_is_followed_by_the_next() -> None:
    assert near("fly-v7") == ("fly-v8", "fly-2026-03", "fly-3f2a")


def test_a_pair_has_no_id() -> None:
    assert near("pair", model=None) == ("pair-v2", "pair-2026-03")


def test_a_long_name_is_cut() -> None:
    name = "a" * 60 + "-bcd"
    assert len(name) == rules.MAX_LENGTH
    assert near(name) == ("a" * 60 + "-v2", "a" * 56 + "-2026-03", "a" * 59 + "-3f2a")


def test_what_would_look_like_an_id_is_not_proposed() -> None:
    assert near("cafe", model=ModelId("12345678")) == ("cafe-v2", "cafe-2026-03")


@given(st.text(max_size=70), st.sampled_from(["3f2a9c01", "12345678", None]))
def test_every_suggestion_is_valid_and_new(name: str, model: ModelId | None) -> None:
    if rules.fault(name):
        return
    for free in near(name, name, model=model):
        assert not rules.fault(free)
        assert free != name
