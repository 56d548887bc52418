from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from sleap_rtc.cli.machine_documents import EngineDocument, EnginesDocument
from sleap_rtc.engines.base import Installation
from sleap_rtc.engines.sleap_nn import environment


@pytest.fixture(autouse=True)
def no_engines(tmp_path, monkeypatch):
    monkeypatch.setenv("SLEAP_RTC_ENGINES", str(tmp_path / "engines"))


def test_the_list(cli):
    found = msgspec.convert(cli("engine", "list", "--json").document, EnginesDocument).engines
    assert [one.name for one in found] == ["sleap-nn", "tiny"]
    assert found[0].version is None
    assert found[1].python == sys.executable
    assert "not installed" in cli("engine", "list").out


def test_what_comes_with_this_program(cli):
    found = msgspec.convert(cli("engine", "install", "tiny", "--json").document, EngineDocument)
    assert found.engine.version


def test_an_engine_that_there_is_not(cli):
    done = cli("engine", "install", "gigantic")
    assert done.code == 1
    assert "This version knows sleap-nn, tiny" in done.err


def test_a_python_that_there_is_not(cli, tmp_path):
    done = cli("engine", "install", "--python", tmp_path / "none")
    assert done.code == 1
    assert "hint: " in done.err


def test_an_environment_that_is_named(cli, monkeypatch):
    monkeypatch.setenv("SLEAP_RTC_SLEAP_NN_PYTHON", sys.executable)
    # The one that runs this has no sleap-nn, and that is said instead of making another.
    done = cli("engine", "install")
    assert done.code == 1
    assert "sleap-nn" in done.err


def test_the_size_is_said_before_it_begins(cli, monkeypatch):
    told = []

    def install(plan, tell, *, index_url):
        told.append((plan.directory, index_url))
        for line in ("Downloading torch (200 MB)", "Installing"):
            tell(line)
        marked = plan.directory / "bin" / "python"
        marked.parent.mkdir(parents=True)
        marked.symlink_to(sys.executable)
        (plan.directory / environment.MARKER).write_text("{}")
        return Installation(python=Path(sys.executable), version="0.3.5")

    # The real one fetches gigabytes; it has tests of its own, and a whole run in `make engine`.
    monkeypatch.setattr(environment, "install", install)
    done = cli("engine", "install", "--index-url", "http://127.0.0.1/simple")
    assert done.code == 0
    size, first = done.err.splitlines()[:2]
    assert "Installing sleap-nn 0.3.5" in size
    assert " GB in " in size
    assert first == "Downloading torch (200 MB)"
    assert told[0][1] == "http://127.0.0.1/simple"
    assert "sleap-nn 0.3.5" in done.out
    # A second time there is nothing to announce.
    assert "Installing sleap-nn" not in cli("engine", "install", "--json").err.splitlines()[:1]
