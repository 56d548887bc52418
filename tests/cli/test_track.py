from __future__ import annotations

import click
import pytest

from sleap_rtc.cli.track import FrameRange


def test_frames():
    assert FrameRange().convert("0-99", None, None) == (0, 99)
    for wrong in ("9-3", "3", "-1-3", "a-b", "1-", "²-³", "0-99999999999"):
        with pytest.raises(click.BadParameter):
            FrameRange().convert(wrong, None, None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("v.mp4",), "Missing option '--model'"),
        (("--model", "x"), "Missing argument 'VIDEO…'"),
        (("v.mp4", "--model", "x", "--worker", "w"), "--worker goes with --remote"),
        (("v.mp4", "--model", "x", "--frames", "9-3"), "is not of the form 0-99"),
    ],
    ids=str,
)
def test_what_is_missing(cli, arguments, said):
    done = cli("track", *arguments)
    assert done.code == 2
    assert said in done.err
