"""``--benchmark``: how long the library's operations took."""

from __future__ import annotations

import pytest

from sleap_rtc.cli.latencies import _ms


@pytest.mark.parametrize("place", [0, 1])
def test_each_operation_is_told_beside_the_result(cli, home, place):
    home.model("a")
    arguments = ["list-models", "--json"]
    arguments.insert(place, "--benchmark")
    done = cli(*arguments)
    assert done.code == 0
    assert len(done.document["models"]) == 1
    (told,) = [line for line in done.err.splitlines() if line.startswith("list: ")]
    assert told.startswith("list: 1 call, half within ")
    assert "longest " in told
    assert "list: " not in cli("list-models").err


def test_what_failed_is_told_too(cli, home):
    done = cli("model-info", "nobody", "--benchmark")
    assert done.code == 3
    assert "resolve: 1 call, 1 failed, half within" in done.err


def test_a_library_that_cannot_be_opened_is_told_once(cli, home):
    home.root.mkdir(parents=True, exist_ok=True)
    (home.root / "models").write_text("a file in its place")
    done = cli("list-models", "--benchmark")
    assert done.code != 0
    assert done.err.count("error: ") == 1


def test_times():
    assert (_ms(0.00025), _ms(0.25), _ms(2.5)) == ("0.25 ms", "250 ms", "2.5 s")
