"""The measurements still run: what they use of the product changes under them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sleap_rtc.testing import netns

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.webrtc
def test_a_file_moves_and_questions_are_answered_beside_it(tmp_path: Path) -> None:
    if netns.inside() is None:
        pytest.skip("WebRTC needs an interface besides loopback; `make test` makes one")
    done = subprocess.run(
        [sys.executable, "-m", "bench.control", "--size=40", "--rounds=1", f"--dir={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines()]
    assert rows == ["round trip", "---", "idle", "saturated"]
    assert not list(tmp_path.iterdir())
