import hashlib
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.domain import ids
from sleap_rtc.domain.ids import ModelId
from sleap_rtc.errors import InvalidName

CONFIG = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def recipe(backbone: Any, **changes: str) -> ids.Recipe:
    given = {"model_type": "centroid", "run_name": "r", "dataset_hash": "0" * 64} | changes
    return ids.recipe(backbone=backbone, **given)


@given(st.dictionaries(st.text(max_size=5), CONFIG, max_size=4))
def test_the_order_of_keys_does_not_matter(backbone: dict[str, Any]) -> None:
    turned = dict(reversed(backbone.items()))
    assert recipe(backbone) == recipe(turned)


@given(st.dictionaries(st.text(max_size=5), CONFIG, max_size=4))
def test_the_canonical_text_is_strict_ascii_json_and_what_is_hashed(
    backbone: dict[str, Any],
) -> None:
    made = recipe(backbone)
    assert made.full_hash == hashlib.sha256(made.canonical.encode("ascii")).hexdigest()
    assert made.model_id == made.full_hash[:8]

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert set(json.loads(made.canonical, parse_constant=refuse)) == {
        "backbone",
        "dataset",
        "model_type",
        "run_name",
    }


def test_the_id_is_the_same_for_ever() -> None:
    made = recipe({"unet": {"filters": 16, "rate": 2.0}, "name": "Ü"}, run_name="fly")
    assert made.canonical == (
        '{"backbone":{"name":"\\u00dc","unet":{"filters":16,"rate":2}},'
        f'"dataset":"{"0" * 64}","model_type":"centroid","run_name":"fly"}}'
    )
    assert made.model_id == hashlib.sha256(made.canonical.encode()).hexdigest()[:8]


def test_whole_floats_are_integers_and_booleans_are_not() -> None:
    assert recipe({"a": 2.0}) == recipe({"a": 2})
    assert recipe({"a": -0.0}) == recipe({"a": 0})
    assert recipe({"a": True}) != recipe({"a": 1})
    assert recipe({"a": 0.5}) != recipe({"a": 0})


@pytest.mark.parametrize("change", ["model_type", "run_name", "dataset_hash"])
def test_every_ingredient_matters(change: str) -> None:
    assert recipe({}) != recipe({}, **{change: "other"})
    assert recipe({}) != recipe({"a": None})


def test_suffixes_count_from_the_bare_id() -> None:
    first = ModelId("3f2a9c01")
    assert [ids.with_suffix(first, n) for n in (1, 2, 3)] == [first, "3f2a9c01-2", "3f2a9c01-3"]
    assert ids.with_suffix(ModelId("3f2a9c01-7"), 2) == "3f2a9c01-2"


@given(st.integers(1, 9_999))
def test_every_suffix_gives_an_id(number: int) -> None:
    made = ids.with_suffix(ModelId("3f2a9c01"), number)
    assert ids.model_id(made) == made


@pytest.mark.parametrize(
    "text",
    ["", "3f2a9c0", "3F2A9C01", "3f2a9c011", "3f2a9c01-", "3f2a9c01-0", "3f2a9c01-1", "٣" * 8],
)
def test_what_is_no_model_id(text: str) -> None:
    assert not ids.is_model_id(text)
    with pytest.raises(InvalidName, match="8 hex digits"):
        ids.model_id(text)


def test_prefixes_have_4_or_more_digits() -> None:
    fitting = ["3f2a", "3f2a9c01", "3f2a9c01-", "3f2a9c01-2", "3f2a9c01-22"]
    assert all(map(ids.is_id_prefix, fitting))
    assert not any(map(ids.is_id_prefix, ["3f2", "", "3f2g", "3F2A", "3f2a9c011", "-2"]))


@pytest.mark.parametrize(
    ("check", "good"),
    [
        (ids.device_id, "a" * 64),
        (ids.package_id, "0c" * 32),
        (ids.room_id, "abcdefgh" * 4),
        (ids.job_id, "0190d1c5-3c1f-7a2b-8c3d-0123456789ab"),
    ],
)
def test_other_ids_are_checked(check: Callable[[str], str], good: str) -> None:
    assert check(good) == good
    for bad in ("", good.upper(), good[:-1], good + "a", good + "\n", "x" * 200):
        with pytest.raises(InvalidName) as caught:
            check(bad)
        assert len(caught.value.message) < 250


def test_a_room_has_the_id_of_its_key() -> None:
    made = ids.room_id_of(b"\x01" * 32)
    assert ids.room_id(made) == made
    assert made != ids.room_id_of(b"\x02" * 32)


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_uuids_hold_their_time_and_version(unix_ms: int, randomness: bytes) -> None:
    made = ids.make_uuid7(unix_ms=unix_ms, randomness=randomness)
    assert ids.is_uuid7(made)
    assert ids.job_id(made) == made
    parsed = uuid.UUID(made)
    assert (parsed.int >> 80, parsed.version, parsed.variant) == (unix_ms, 7, uuid.RFC_4122)


@given(st.integers(0, 2**48 - 2), st.binary(min_size=10, max_size=10))
def test_uuids_sort_by_time(unix_ms: int, randomness: bytes) -> None:
    later = ids.make_uuid7(unix_ms=unix_ms + 1, randomness=b"\0" * 10)
    assert ids.make_uuid7(unix_ms=unix_ms, randomness=randomness) < later


@pytest.mark.parametrize(("unix_ms", "randomness"), [(-1, 10), (2**48, 10), (0, 9), (0, 11)])
def test_uuids_refuse_what_does_not_fit(unix_ms: int, randomness: int) -> None:
    with pytest.raises(ValueError, match="48 bits"):
        ids.make_uuid7(unix_ms=unix_ms, randomness=b"\0" * randomness)


@given(st.integers(0, (1 << 48) - 1))
def test_a_uuid7_says_when_it_was_made(unix_ms: int) -> None:
    assert ids.unix_ms_of(ids.make_uuid7(unix_ms=unix_ms, randomness=b"\xff" * 10)) == unix_ms


def test_two_devices_of_one_name_are_told_apart() -> None:
    one, other = (ids.called("laptop", ids.DeviceId(digit * 64)) for digit in "12")
    assert one == "laptop (1111 1111 1111 1111)"
    assert other != one
