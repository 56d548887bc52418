"""What the shell proposes, quickly and from files alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sleap_rtc.auth.store import DeviceStore
from sleap_rtc.cli import completing
from sleap_rtc.cli.completing import BY_OPTION, MOST, models, places, rooms, workers

HEAVY = {"msgspec", "loguru", "sqlite3", "cryptography", "asyncio", "sleap_rtc.library.registry"}


@pytest.fixture
def names(home):
    """A library with two models, a pair and two aliases."""
    one = home.model("a")
    two = home.model("b", model_type="centered_instance")
    home.alias("Fly-night", one.id)
    home.alias("fly", one.id, two.id)
    return one.id, two.id


def test_models_are_proposed_by_alias_and_by_id(home, names):
    root = str(home.root)
    assert list(models(root, "")) == [("fly", "pair"), ("Fly-night", "")]
    assert list(models(root, "Fl")) == [("Fly-night", "")]
    assert list(models(root, "fl")) == [("fly", "pair")]
    _, two = names
    assert list(models(root, two[:4])) == [(two, "centered_instance")]
    assert list(models(root, "zzz")) == []


def test_what_is_gone_is_not_proposed(home, names):
    one, two = names
    with home.library as library:
        library.remove_alias("Fly-night")
        library.delete(two)
    assert list(models(str(home.root), "")) == []
    assert list(models(str(home.root), two[:5])) == []
    assert list(models(str(home.root), one[:5])) == [(one, "centroid")]


def test_what_can_t_be_read_is_left_out(home, names, tmp_path):
    for path in (home.root / "models").rglob("*.json"):
        path.write_bytes(b"{" * 100)
    assert list(models(str(home.root), "f")) == []
    assert list(models(str(tmp_path / "nowhere"), "f")) == []


def test_rooms_and_workers_that_were_met(tmp_path, monkeypatch):
    folder = tmp_path / "devices" / "host" / "rooms" / ("a" * 32)
    (folder / "workers").mkdir(parents=True)
    (folder / "room.json").write_text(json.dumps({"name": "lab"}))
    (folder / "workers" / "1.json").write_text(json.dumps({"name": "gpu-1"}))
    (folder / "workers" / "2.json").write_text("[]")
    assert list(rooms(str(tmp_path), "l")) == [("lab", "")]
    assert list(workers(str(tmp_path), "")) == [("gpu-1", "")]
    assert list(places(str(tmp_path), "")) == [("gpu-1", ""), ("lab", "")]


def test_what_the_store_keeps_is_what_is_read(tmp_path):
    store = DeviceStore(tmp_path)
    room = "a" * 32
    store.remember_worker(room, "gpu-1", "b" * 64)
    assert list(workers(str(tmp_path), "gpu")) == [("gpu-1", "")]


def proposals(home: Path, *words: str) -> list[str]:
    """What a shell is told after these words, the last of which is being typed."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("COV")},
        "_SLEAP_RTC_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["sleap-rtc", *words]),
        "COMP_CWORD": str(len(words)),
        "SLEAP_RTC_HOME": str(home),
    }
    done = subprocess.run(
        [sys.executable, "-m", "sleap_rtc"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["list-al"], ["list-aliases"]),
        (["model-info", "fl"], ["fly"]),
        (["model-info", "Fl"], ["Fly-night"]),
        (["tag-model", "Fl"], ["Fly-night"]),
        (["compare-models", "fly", "Fly"], ["Fly-night"]),
        (["delete-model", "--fi"], ["--files"]),
        (["list-models", "--sort-by", "lo"], ["loss"]),
        (["track", "--model", "Fl"], ["Fly-night"]),
    ],
    ids=" ".join,
)
def test_the_shell_is_told(home, names, words, expected):
    assert proposals(home.root, *words) == expected


def test_another_home_is_looked_into(home, names, tmp_path):
    assert proposals(tmp_path, "--home", str(home.root), "model-info", "Fl") == ["Fly-night"]


def test_a_crowd_is_cut(home):
    model = home.model("a")
    folder = home.root / "models" / ".aliases"
    home.alias("fly", model.id)
    for number in range(MOST + 5):
        shutil.copytree(folder / "fly", folder / f"fly{number:03}")
        path = folder / f"fly{number:03}" / "00000001.json"
        path.write_text(path.read_text().replace('"fly"', f'"fly{number:03}"'))
    assert len(proposals(home.root, "model-info", "fly")) == MOST


def test_proposing_imports_nothing_heavy(home, names):
    code = (
        "import os, sys\nfrom sleap_rtc.cli.main import run\n"
        "try: run([])\nexcept SystemExit: print(*sys.modules, file=sys.stderr)"
    )
    environment = {
        "_SLEAP_RTC_COMPLETE": "bash_complete",
        "COMP_WORDS": "sleap-rtc model-info f",
        "COMP_CWORD": "2",
        "SLEAP_RTC_HOME": str(home.root),
    }
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "plain,fly\n"
    assert HEAVY & set(done.stderr.split()) == set()


def test_every_option_that_names_something_is_proposed_for():
    assert set(BY_OPTION) == {"--at", "--model", "--resume", "--room", "--worker"}
    assert re.fullmatch(completing._MODEL, "centered_instance_0123abcd-2")
