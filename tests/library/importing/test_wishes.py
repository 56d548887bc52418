"""What a person may wish for, and the names that come of folders and archives."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.domain import aliases
from sleap_rtc.errors import InvalidName, UsageError
from sleap_rtc.library.importing import wishes
from sleap_rtc.library.importing.wishes import Wishes


@pytest.mark.parametrize(
    ("name", "alias"),
    [
        ("flies 'n' \"bees\"", "flies-n-bees"),
        ("240613_143522.centroid.n=100", "240613_143522.centroid.n-100"),
        ("🪰", ""),
        ("Mäuse_v2", "Mäuse_v2"),
        ("all", ""),
        ("deadbeef", ""),
        ("x" * 300, "x" * 64),
        ("a\nb", "a-b"),
        ("--help", "help"),
    ],
)
def test_an_alias_is_made_of_any_name(name, alias):
    assert wishes.proposed_alias(name) == alias


@given(st.text(max_size=200))
def test_whatever_is_proposed_is_an_alias(name):
    made = wishes.proposed_alias(name)
    assert not made or aliases.fault(made) == ""


@pytest.mark.parametrize(
    ("fields", "paths", "error"),
    [
        ({}, [], UsageError),
        ({"model_type": "Centroid!"}, ["a"], UsageError),
        ({"alias": "no spaces"}, ["a"], InvalidName),
        ({"alias": "x", "recursive": True}, ["a"], UsageError),
        ({"alias": "x"}, ["a", "b", "c"], UsageError),
        ({}, ["hf://org/model"], UsageError),
        ({}, ["wandb://org/model"], UsageError),
        ({}, ["https://example.org/m.ckpt"], UsageError),
    ],
)
def test_wishes_that_can_not_be_fulfilled_are_said_first(fields, paths, error):
    with pytest.raises(error):
        wishes.check_wishes(Wishes(**fields), [Path(path) for path in paths])


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a.zip", "a"), ("a.b.tar.gz", "a.b"), ("A.TGZ", "A"), ("a.tar", "a"), ("a.bin", "a")],
)
def test_an_archive_is_called_without_its_endings(name, stem):
    assert wishes.archive_stem(Path(name)) == stem
