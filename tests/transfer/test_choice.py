"""Which ways are taken: what holds for every situation, and the ones that people meet."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.cli.options import TRANSPORTS
from sleap_rtc.config import Transport
from sleap_rtc.transfer.choice import KINDS, LARGE, SMALL, Reach, Situation, Wish, plan

SITUATIONS = st.builds(
    Situation,
    size=st.integers(0, 4 * LARGE) | st.sampled_from((0, 1, SMALL - 1, SMALL, LARGE - 1, LARGE)),
    wish=st.sampled_from(get_args(Wish)),
    online=st.booleans(),
    reach=st.sampled_from(get_args(Reach)),
    same_machine=st.sampled_from((None, True, False)),
    stored=st.none() | st.integers(0, 4 * LARGE),
    sends=st.booleans(),
)


def order(**told: object) -> tuple[str, ...]:
    return tuple(way.kind for way in plan(Situation(**told)).ways)


@given(SITUATIONS)
def test_every_way_is_on_one_list_with_its_reason(situation):
    made = plan(situation)
    assert sorted(way.kind for way in (*made.ways, *made.without)) == sorted(KINDS)
    assert all(way.why for way in (*made.ways, *made.without))
    text = made.explain()
    assert all(f"{kind}: " in text for kind in KINDS)
    assert text.startswith("No way leads there.") == (not made.ways)


@given(SITUATIONS)
def test_whoever_is_online_can_always_be_reached_over_the_link(situation):
    assert plan(situation).uses("webrtc") == situation.online


@given(SITUATIONS)
def test_nobody_offline_is_reached_but_through_storage(situation):
    if not situation.online:
        assert {way.kind for way in plan(situation).ways} <= {"s3"}


@given(SITUATIONS)
def test_what_was_asked_for_is_first_where_it_is_possible(situation):
    made = plan(situation)
    if situation.wish != "auto" and made.uses(situation.wish):
        assert made.ways[0].kind == situation.wish
        assert "asked for" in made.ways[0].why


@given(SITUATIONS)
def test_nothing_is_fetched_from_storage_that_it_lacks(situation):
    lacks = situation.stored is None or (not situation.sends and situation.stored < situation.size)
    if lacks:
        assert not plan(situation).uses("s3")


@given(SITUATIONS)
def test_who_wants_no_direct_way_gets_none(situation):
    direct = plan(situation).uses("direct") or plan(situation).uses("local")
    if situation.wish in ("webrtc", "s3") or situation.reach in ("old", "refused", "failed"):
        assert not direct


@given(SITUATIONS, st.integers(0, LARGE))
def test_more_content_never_takes_a_direct_way_out(situation, more):
    larger = Situation(
        size=situation.size + more,
        wish=situation.wish,
        online=situation.online,
        reach=situation.reach,
        same_machine=situation.same_machine,
    )
    for kind in ("direct", "local"):
        assert plan(situation).uses(kind) <= plan(larger).uses(kind)


def test_a_large_file_between_peers_that_reach_each_other():
    assert order(size=LARGE) == ("local", "direct", "webrtc")
    assert order(size=LARGE, same_machine=False) == ("direct", "webrtc")
    assert order(size=LARGE, same_machine=True) == ("local", "webrtc")


def test_a_small_one_goes_over_the_link_alone():
    made = plan(Situation(size=SMALL - 1, what="the labels"))
    assert [way.kind for way in made.ways] == ["webrtc"]
    assert "the labels are over the link sooner than it is made" in made.explain()


def test_storage_helps_with_large_files_and_when_nobody_is_online():
    assert order(size=LARGE, stored=LARGE, reach="failed") == ("s3", "webrtc")
    assert order(size=SMALL, stored=SMALL, reach="failed") == ("webrtc", "s3")
    assert order(size=SMALL, stored=SMALL, online=False) == ("s3",)
    assert order(size=SMALL, stored=0, online=False, sends=True) == ("s3",)


def test_the_setting_knows_the_same_words():
    assert set(get_args(Transport)) == set(get_args(Wish)) == set(TRANSPORTS)
