"""The filters of list-models are those that the library knows."""

from __future__ import annotations

from typing import get_args

import pytest

from sleap_rtc.cli import models
from sleap_rtc.domain.models import SOURCES, STATUSES
from sleap_rtc.library.entries import Sort, Where


def test_the_choices_are_the_librarys():
    assert models.STATUSES == STATUSES
    assert models.SOURCES == SOURCES
    assert set(models.PLACES) == set(get_args(Where))
    assert set(models.SORTS) == set(get_args(Sort))


@pytest.mark.parametrize("option", ["--status", "--location", "--sort-by", "--source", "--format"])
def test_a_wrong_choice_lists_the_right_ones(cli, option):
    done = cli("list-models", option, "nonsense")
    assert done.code == 2
    assert "is not one of" in done.err


def test_a_model_that_is_none(cli, home):
    home.alias("flies", home.model().id)
    done = cli("model-info", "flis")
    assert done.code == 3
    assert "There is no model 'flis' here." in done.err
    assert "flies" in done.err
