"""``sleap-rtc demo`` is what people run first: it must work, again too, and tell the truth."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from sleap_rtc.library.importing.importer import Imported, Importer
from sleap_rtc.library.importing.wishes import Wishes
from sleap_rtc.library.registry import Registry
from sleap_rtc.testing import model_files, netns
from sleap_rtc.testing.programs import running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.webrtc,
    pytest.mark.timeout(900),
    pytest.mark.skipif(netns.inside() is None, reason="WebRTC needs an address besides loopback"),
]


def run_demo(folder, engine):
    command = [sys.executable, "-m", "sleap_rtc", "demo", "--engine", engine, "--dir", str(folder)]
    with running(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as demo:
        _, said = demo.communicate(timeout=840)
    assert demo.returncode == 0, said[-4000:]
    return json.loads((folder / "summary.json").read_text("utf-8")), said


def interrupt_demo(folder, engine, *, at):
    command = [sys.executable, "-m", "sleap_rtc", "demo", "--engine", engine, "--dir", str(folder)]
    with running(command, stderr=subprocess.PIPE) as demo:
        for line in demo.stderr:
            if line.startswith(at):
                break
        demo.send_signal(signal.SIGINT)
        _, rest = demo.communicate(timeout=240)
    assert demo.returncode == 130, rest
    assert not (folder / "predictions").exists()


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


def test_with_the_tiny_engine(tmp_path):
    folder = tmp_path / "demo"
    # It was here before and left in the middle: room and server are there, and models keep names.
    interrupt_demo(folder, "tiny", at="[4/")
    library = folder / "laptop" / "models"
    with Registry(library, index_dir=tmp_path / "index") as registry:
        (imported,) = Importer(registry, Wishes(alias="demo-tiny")).run(
            [model_files.folder(tmp_path / "before")]
        )
    assert isinstance(imported, Imported), imported
    summary, told = run_demo(folder, "tiny")
    check(summary, "tiny", error_px=3)
    for step in summary["steps"]:
        assert step["step"] in told
    assert summary["steps"][-3]["alias"] == "demo-tiny-v2"
    picture = (folder / "predictions" / "demo-tiny-v2" / "local.png").read_bytes()
    assert picture.startswith(b"\x89PNG")


@pytest.mark.engine
def test_with_sleap_nn(tmp_path):
    summary, _ = run_demo(tmp_path / "demo", "sleap-nn")
    check(summary, "sleap-nn", error_px=10)
