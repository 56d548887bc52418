"""How many processor threads an engine gets."""

from __future__ import annotations

import pytest

from sleap_rtc.engines.threads import default_threads, usable_cpus


@pytest.mark.parametrize(("given", "threads"), [("3", 3), ("0", None), ("many", None), ("", None)])
def test_the_persons_choice_counts_if_it_is_a_number(monkeypatch, given, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert default_threads() == (threads or usable_cpus())


def test_there_is_at_least_one():
    assert usable_cpus() >= 1
