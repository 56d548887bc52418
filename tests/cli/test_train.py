"""What is refused before anything is read."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Missing argument 'LABELS'"),
        (("a.slp",), "Missing option '--config'"),
        (("a.slp", "--resume", "x"), "--resume goes on"),
        (("--resume", "x", "-c", "c.yaml"), "--resume goes on"),
    ],
    ids=str,
)
def test_what_is_missing(cli, arguments, said):
    done = cli("train", *arguments, "--yes")
    assert done.code == 2
    assert said in done.err
    assert cli("train", *arguments, "--yes", "--json").document["error"]["code"] == "usage"


def test_a_zip_may_bring_its_configurations(cli):
    done = cli("train", "a.zip", "--yes")
    assert done.code == 3
    assert "is in no room" in done.err
