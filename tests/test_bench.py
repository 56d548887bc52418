"""The measurements still run: what they use of the product changes under them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from bench.pairs import run_pair
from bench.transfer import made_file
from bench.wire import MB

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


@pytest.mark.slow
@pytest.mark.webrtc
@pytest.mark.parametrize("way", ["direct", "local", "tls"])
def test_a_file_moves_directly(tmp_path: Path, way: str) -> None:
    if netns.inside() is None:
        pytest.skip("WebRTC needs an interface besides loopback; `make test` makes one")
    file = made_file(tmp_path / "file.bin", 20 * MB)
    options = {"size": 20 * MB, "file": str(file), "into": str(tmp_path), "transport": way}
    used = run_pair("tls" if way == "tls" else "ours", **options)
    assert used["receiver"]["wall_s"] > 0
    assert used["sender"]["cpu_s"] > 0
    file.unlink()
    assert not list(tmp_path.iterdir())
