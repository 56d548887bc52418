"""Which ways are taken: what holds for every situation, and the ones that people meet."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.cli.options import TRANSPORTS
from sleap_rtc.config import Transport
from sleap_rtc.transfer.choice import (
    KINDS,
    LARGE,
    SMALL,
    Data,
    Reach,
    Situation,
    Wish,
    plan,
    plan_data,
)

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
    if situation.wish == "webrtc" or situation.reach in ("old", "refused", "failed"):
        assert not direct


@given(SITUATIONS, st.integers(0, LARGE))
def test_more_content_never_takes_a_direct_way_out(situation, more):
    larger = Situation(
        size=situation.size + more,
        wish=situation.wish,
        online=situation.online,
        reach=situation.reach,
        same_machine=situation.same_machine,
        sends=situation.sends,
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


def test_what_is_sent_may_be_read_where_it_is_however_little_it_is():
    assert order(size=1, sends=True) == ("local", "webrtc")
    assert order(size=1, sends=True, same_machine=False) == ("webrtc",)
    assert order(size=1, sends=True, wish="webrtc") == ("webrtc",)


def test_storage_helps_with_large_files_and_when_nobody_is_online():
    assert order(size=LARGE, stored=LARGE, reach="failed") == ("s3", "webrtc")
    assert order(size=SMALL, stored=SMALL, reach="failed") == ("webrtc", "s3")
    assert order(size=SMALL, stored=SMALL, online=False) == ("s3",)
    assert order(size=SMALL, stored=0, online=False, sends=True) == ("s3",)


def test_who_asks_for_storage_has_the_quickest_way_after_it():
    asked = {"wish": "s3", "reach": "open"}
    assert order(size=SMALL, stored=SMALL, same_machine=False, **asked) == (
        "s3",
        "direct",
        "webrtc",
    )
    assert order(size=SMALL, stored=SMALL, same_machine=True, **asked) == ("s3", "local", "webrtc")
    assert order(size=SMALL, stored=0, sends=True, **asked)[0] == "s3"
    assert order(size=SMALL, stored=0, same_machine=False, **asked) == ("direct", "webrtc")
    # What is little has come over the link before another way is made.
    assert order(size=SMALL - 1, stored=SMALL - 1, wish="s3") == ("s3", "webrtc")


def test_the_setting_knows_the_same_words():
    assert set(get_args(Transport)) == set(get_args(Wish)) == set(TRANSPORTS)


DATA = st.builds(
    Data,
    size=st.integers(0, 1000),
    wish=st.sampled_from(get_args(Wish)),
    threshold=st.integers(0, 1000),
    stored=st.none() | st.integers(0, 1000),
    here=st.none() | st.integers(0, 1000),
    seen=st.none() | st.integers(0, 1000),
    leaves=st.booleans(),
    reach=st.sampled_from(get_args(Reach)),
)


def data_order(**told: object) -> tuple[str, ...]:
    return tuple(way.kind for way in plan_data(Data(**told)).ways)


@given(DATA)
def test_a_jobs_data_has_every_way_on_one_list_and_can_always_take_the_link(data):
    made = plan_data(data)
    assert sorted(way.kind for way in (*made.ways, *made.without)) == sorted(KINDS)
    assert all(way.why for way in (*made.ways, *made.without))
    assert made.uses("webrtc")
    if data.wish != "auto" and made.uses(data.wish):
        assert made.ways[0].kind == data.wish
        assert "asked for" in made.ways[0].why


@given(DATA)
def test_nobody_stores_where_there_is_no_storage_or_it_isnt_wanted(data):
    if data.stored is None or data.wish not in ("auto", "s3"):
        assert not plan_data(data).uses("s3")


@given(DATA)
def test_what_the_worker_has_or_sees_isnt_counted_as_to_be_sent(data):
    whole = data.here is not None and data.here >= data.size
    if data.wish == "auto" and whole:
        assert not plan_data(data).uses("s3")
        assert not plan_data(data).uses("local")


def test_data_from_the_threshold_on_is_stored():
    assert data_order(size=99, threshold=100, stored=0) == ("webrtc",)
    assert data_order(size=100, threshold=100, stored=0) == ("s3", "webrtc")
    assert data_order(size=1, threshold=100, stored=0, leaves=True) == ("s3", "webrtc")
    assert data_order(size=1, threshold=100, stored=0, wish="s3") == ("s3", "webrtc")
    assert data_order(size=LARGE, stored=0, wish="webrtc") == ("webrtc",)
    assert data_order(size=LARGE, stored=0) == ("s3", "direct", "webrtc")
    assert data_order(size=LARGE, stored=None) == ("direct", "webrtc")


def test_a_disk_that_both_see_comes_first():
    assert data_order(size=LARGE, stored=0, seen=LARGE) == ("local", "direct", "webrtc")
    assert data_order(size=LARGE, stored=0, seen=9) == ("local", "direct", "webrtc")
    assert data_order(size=2 * LARGE, stored=0, seen=9) == ("local", "s3", "direct", "webrtc")
    assert data_order(size=LARGE, stored=0, seen=LARGE, wish="s3")[0] == "s3"


def test_worker_and_storage_are_asked_where_it_matters():
    assert not Data(size=99, threshold=100).asks
    assert Data(size=100, threshold=100).asks
    assert Data(size=1, threshold=100, leaves=True).asks
    assert Data(size=1, threshold=100, wish="local").asks
    assert not Data(size=LARGE, threshold=100, wish="webrtc").asks


def test_a_plan_for_data_says_what_is_known():
    text = plan_data(Data(size=100, threshold=10, stored=100, here=0, seen=0)).explain()
    assert "1. s3: storage has all of it already" in text
    assert "local: not used, the worker doesn't see the files where they are" in text
    text = plan_data(Data(size=100, threshold=10, stored=0, here=100, seen=0)).explain()
    assert "1. webrtc: the worker has all of it: nothing is sent" in text
    assert "s3: not used, the worker has all of it" in text
    text = plan_data(Data(size=100, threshold=10, stored=40)).explain()
    assert "40 B of it is there already" in text
