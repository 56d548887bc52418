"""The examples of the Python API, as the documentation has them, with real processes."""

from __future__ import annotations

import doctest
import shutil

import pytest

from sleap_rtc.client import synchronous
from sleap_rtc.client.synchronous import Client

pytestmark = [pytest.mark.slow, pytest.mark.webrtc]


def test_the_examples(lab, data, tmp_path, monkeypatch) -> None:
    lab.worker.begin()
    folder = tmp_path / "examples"
    folder.mkdir()
    shutil.copyfile(data.package, folder / "flies.pkg.slp")
    shutil.copyfile(data.video, folder / "video.mp4")
    shutil.copyfile(lab.config(epochs=2), folder / "centroid.yaml")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SLEAP_RTC_HOME", str(lab.client.home))
    monkeypatch.setenv("SLEAP_RTC_INSECURE", "1")
    (examples,) = (
        test
        for test in doctest.DocTestFinder(recurse=False).find(
            Client, "Client", module=synchronous, globs={}
        )
        if test.examples
    )
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.FAIL_FAST).run(examples, out=said.append)
    assert result.attempted > 10
    assert not result.failed, "".join(said)
