"""``sleap-rtc demo`` is what people run first: it must work, twice, and tell the truth."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from sleap_rtc.testing import netns

pytestmark = [
    pytest.mark.slow,
    pytest.mark.webrtc,
    pytest.mark.timeout(900),
    pytest.mark.skipif(netns.inside() is None, reason="WebRTC needs an address besides loopback"),
]


def run_demo(folder, engine):
    command = [sys.executable, "-m", "sleap_rtc", "demo", "--engine", engine, "--dir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / "summary.json").read_text("utf-8")), done.stderr


def check(summary, engine, *, error_px):
    assert summary["outcome"] == "completed"
    assert summary["engine"] == engine
    assert len(summary["steps"]) == 6
    train, *tracked = summary["steps"][-3:]
    assert len(train["models"]) == 2
    for step in tracked:
        assert step["animals_found"] > 0.9
        assert step["mean_error_px"] < error_px
        assert step["frames"] == 100
    assert tracked[0]["mean_error_px"] == pytest.approx(tracked[1]["mean_error_px"], abs=0.01)


def test_with_the_tiny_engine_and_again(tmp_path):
    folder = tmp_path / "demo"
    first, told = run_demo(folder, "tiny")
    check(first, "tiny", error_px=3)
    for step in first["steps"]:
        assert step["step"] in told
    picture = (folder / "predictions" / "demo-tiny" / "local.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    second, _ = run_demo(folder, "tiny")
    check(second, "tiny", error_px=3)
    assert second["steps"][-3]["alias"] == "demo-tiny-v2"


@pytest.mark.engine
def test_with_sleap_nn(tmp_path):
    summary, _ = run_demo(tmp_path / "demo", "sleap-nn")
    check(summary, "sleap-nn", error_px=10)
