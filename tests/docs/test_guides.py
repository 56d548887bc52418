"""The guides' commands, run as they stand there: each works, and says what the guide shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sleap_rtc.testing import model_files

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FAILS = "error: "
"""A command fails if the guide says so."""


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """Each command of a page with the lines that are shown below it."""
    found: list[tuple[str, list[str]]] = []
    for block in BLOCK.findall(page.read_text("utf-8")):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def is_said(shown: list[str], said: str) -> bool:
    """Whether the shown lines were said, in their order; ``…`` and blanks stand for anything."""
    place = 0
    lines = said.splitlines()
    for line in shown:
        if line.strip() == "…":
            continue
        form = r"\s+".join(
            ".*".join(map(re.escape, word.split("…"))) for word in line.strip().split()
        ).replace(r"\s+.*\s+", r"\s.*\s")
        while place < len(lines) and not re.search(form, lines[place]):
            place += 1
        if place == len(lines):
            return False
    return True


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A home, a folder of models, and the program in the path."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "sleap-rtc"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sleap_rtc "$@"\n')
    program.chmod(0o755)
    (tmp_path / "home").mkdir()
    models = tmp_path / "work" / "models"
    for number, (name, head) in enumerate(
        {
            "flies/flies_centroid": "centroid",
            "flies/flies_instance": "centered_instance",
            "flies/flies2_centroid": "centroid",
            "mice/mice_single": "single_instance",
            "mice/stopped": "centroid",
        }.items()
    ):
        model_files.folder(models / name, head, seed=number)
    (models / "mice" / "stopped" / "best.ckpt").unlink()
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(GUIDES.glob("*.md")), ids=lambda page: page.name)
def test_the_commands_of_a_guide_do_what_it_says(page: Path, place: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("the guides are for bash, which isn't here")
    environment = {
        "HOME": str(place / "home"),
        "PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
        "LANG": "C.UTF-8",
    }
    found = commands(page)
    assert found
    for command, shown in found:
        done = subprocess.run(
            [bash, "-c", f"set -o pipefail; {command}"],
            cwd=place / "work",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        fails = any(line.startswith(FAILS) for line in shown)
        assert bool(done.returncode) is fails, f"{command}\n{done.stdout}"
        assert is_said(shown, done.stdout), f"{command}\n{done.stdout}"


def test_what_is_shown_is_compared() -> None:
    said = "model  type\nflies  centroid  3 KB\n4 models imported.\n"
    assert is_said(["flies centroid …", "…", "4 models imported."], said)
    assert not is_said(["4 models imported.", "flies centroid …"], said)
    assert not is_said(["5 models imported."], said)
