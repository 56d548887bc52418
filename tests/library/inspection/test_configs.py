from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.errors import InvalidConfig
from sleap_rtc.library.inspection import configs

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=20)
    | st.sampled_from(["1e4", "1_0", "010", "yes", "null", "~", "1:30", "2020-01-01", "=", "<<"])
)
_PLAIN = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(alphabet="abcdef_", min_size=1, max_size=6), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text(alphabet="abcdef_", min_size=1), _PLAIN, max_size=5))
def test_what_is_written_is_read_again(plain: dict[str, Any]) -> None:
    assert configs.load_config(configs.dump_config(plain), where="c") == plain


@given(st.text(max_size=200) | st.text(alphabet="{}[]:,&*!|>-'\"#%@`?\n ab1.e", max_size=200))
def test_any_text_is_a_mapping_or_one_clear_error(text: str) -> None:
    with contextlib.suppress(InvalidConfig):
        assert isinstance(configs.load_config(text, where="c"), dict)


def test_json_is_read_too() -> None:
    text = '{"trainer_config": {"max_epochs": 3, "optimizer": {"lr": 1e-4}}}'
    read = configs.load_config(text, where="c")
    assert read == {"trainer_config": {"max_epochs": 3, "optimizer": {"lr": 1e-4}}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.0e-06", 1e-6),
        ("010", 10),
        ("0x10", 16),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("'1e4'", "1e4"),
        ("on", True),
        ("~", None),
        ("1_000", 1000),
    ],
)
def test_numbers_mean_what_people_mean(text: str, value: object) -> None:
    assert configs.load_config(f"a: {text}", where="c") == {"a": value}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: &x [1]\nb: *x", "line 1: anchors"),
        ("a: 1\nb: *x", "line 2: anchors"),
        ("a: !!python/object/apply:os.system [ls]", "line 1: the tag"),
        ("a: !!binary aGk=", "line 1: the tag"),
        ("a: 1\na: 2", "line 2: 'a' is there twice"),
        ("a: 1\n2: 3", "line 2: the key 2 is not text"),
        ("- 1", "not a mapping"),
        ("", "not a mapping"),
        ("a: .nan", "not a finite number"),
        ("a: -.inf", "not a finite number"),
        ("a: 1e999", "not a finite number"),
        ("a: 99999999999999999999", "too large a number"),
        ("a: [1", "line 1"),
        ("a: 1\n b: 2: 3", "line 2"),
        ("a: \x07", "not YAML"),
        ("[" * 40, "nested more than 32 deep"),
        ("a: [" + "1," * 30_000 + "]", "more than 20000 values"),
        ("a: " + "x" * 300_000, "more than the 262144 allowed"),
    ],
)
def test_what_is_not_taken_is_said_with_its_line(text: str, why: str) -> None:
    with pytest.raises(InvalidConfig, match=why):
        configs.load_config(text, where="c")


def test_leaves_are_every_value_with_its_path() -> None:
    plain = {"a": {"b": 1, "c": {}}, "d": [1]}
    assert dict(configs.leaves(plain)) == {("a", "b"): 1, ("a", "c"): {}, ("d",): [1]}
