from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.engines import rules

_SCHEMA: rules.Schema = {
    "epochs": rules.Number(1, 10, integer=True),
    "rate": rules.Number(0, 1),
    "sizes": rules.Numbers(rules.Number(0, 9, integer=True), most=3),
    "flag": rules.Flag(),
    "choice": rules.Choice(("a", "b")),
    "word": rules.Word(),
    "name": rules.Name(),
    "names": rules.Names(most=2),
    "pairs": rules.Names(pairs=True),
    "workers": rules.Either((rules.Number(0, 4, integer=True), rules.Choice(("auto",)))),
    "path": rules.ByWorker(),
    "weights": rules.Nothing("it is dangerous"),
    "inner": {"flag": rules.Flag()},
}


@pytest.mark.parametrize(
    ("key", "value", "taken"),
    [
        ("epochs", 3, 3),
        ("epochs", 4.0, 4),
        ("rate", 1, 1),
        ("sizes", [1, 2.0], [1, 2]),
        ("flag", False, False),
        ("choice", "b", "b"),
        ("word", "min-max_1.0", "min-max_1.0"),
        ("name", "left ear (tip)", "left ear (tip)"),
        ("names", ["a", "b"], ["a", "b"]),
        ("pairs", [["a", "b"]], [["a", "b"]]),
        ("workers", "auto", "auto"),
        ("workers", 2, 2),
        ("inner", {"flag": True}, {"flag": True}),
        ("epochs", None, None),
        ("inner", None, None),
    ],
)
def test_what_fits_is_taken(key: str, value: object, taken: object) -> None:
    checked = rules.check({key: value}, _SCHEMA)
    assert checked.allowed == {key: taken}
    assert not checked.refused


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("epochs", 0, "a whole number from 1 to 10"),
        ("epochs", 2.5, "a whole number"),
        ("epochs", True, "a whole number"),
        ("epochs", "3", "a whole number"),
        ("rate", 1.1, "a number from 0 to 1"),
        ("sizes", [1, 2, 3, 4], "up to 3 numbers"),
        ("sizes", [10], "a whole number"),
        ("sizes", 1, "a list"),
        ("flag", 1, "true or false"),
        ("choice", "c", "one of a, b"),
        ("word", "../etc/passwd", "a short name"),
        ("word", "/abs", "a short name"),
        ("word", "${oc.env:HOME}", "a short name"),
        ("name", "${oc.env:HOME}", "a name"),
        ("name", "???", "a name"),
        ("name", "a\nb", "a name"),
        ("name", "", "a name"),
        ("names", ["a", "b", "c"], "up to 2 names"),
        ("names", [1], "hold names"),
        ("names", ["${x}"], "hold names"),
        ("pairs", ["ab"], "pairs of names"),
        ("pairs", [["a"]], "pairs of names"),
        ("workers", "many", "a whole number from 0 to 4, or one of auto"),
        ("weights", "model.ckpt", "it is dangerous"),
        ("inner", 3, "a mapping"),
        ("other", 0, "not known to this worker"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(key: str, value: object, why: str) -> None:
    checked = rules.check({key: value}, _SCHEMA)
    assert checked.allowed == {}
    assert why in checked.refused[key]


def test_every_refused_key_is_named_with_its_path() -> None:
    plain = {"inner": {"flag": 3, "deep": {"x": 1}}, "rate": -1, "x": 1, "unset": None}
    checked = rules.check(plain, _SCHEMA)
    assert set(checked.refused) == {"inner.flag", "inner.deep", "rate", "x"}
    assert checked.allowed == {"inner": {}}


def test_what_the_worker_sets_is_told_if_it_said_something() -> None:
    checked = rules.check({"path": "/home/me/labels.slp", "weights": ""}, _SCHEMA)
    assert (checked.allowed, checked.replaced) == ({}, ["path"])
    assert rules.check({"path": {"a": [], "b": {"c": None}}}, _SCHEMA).replaced == []


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from([*_SCHEMA, "other"]), _ANY))
def test_nothing_unnamed_ever_comes_through(plain: dict[str, Any]) -> None:
    checked = rules.check(plain, _SCHEMA)
    assert set(checked.allowed) <= set(_SCHEMA) - {"path", "weights"}
    again = rules.check(checked.allowed, _SCHEMA)
    assert (again.allowed, again.refused) == (checked.allowed, {})
