"""The documents say what the code does: made parts are fresh, links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").glob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
MAKE = re.compile(r"`make ([a-z]+)|^make ([a-z]+)", re.MULTILINE)
FILE = re.compile(r"`((?:src|tests|docs|tools|bench)/[\w./-]+)`")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads}


def test_made_parts_are_fresh() -> None:
    command = [sys.executable, str(ROOT / "tools" / "docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(page.read_text("utf-8")):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_are_named_exist(page: Path) -> None:
    named = FILE.findall(page.read_text("utf-8"))
    assert [one for one in named if not (ROOT / one).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_make_targets_that_are_named_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):.* ## ", makefile, re.MULTILINE))
    named = {a or b for a, b in MAKE.findall(page.read_text("utf-8"))}
    assert named - targets == set()


COMMANDS = sorted(
    {
        tuple(words.split())
        for page in PAGES
        for words in re.findall(
            # Words after the program's name are commands as far as they are written small.
            r"(?:^|`)sleap-rtc((?: [a-z]+(?:-[a-z]+)*(?![\w.]))+)",
            page.read_text("utf-8"),
            re.MULTILINE,
        )
    }
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_that_are_named_exist(command: tuple[str, ...]) -> None:
    # An argument may follow, as in `sleap-rtc room create lab`: one word less must be a command.
    for words in (command, command[:-1]):
        program = [sys.executable, "-m", "sleap_rtc", *words, "--help"]
        done = subprocess.run(program, capture_output=True, text=True, check=False)
        if words and done.returncode == 0 and f"sleap-rtc {' '.join(words)}" in done.stdout:
            return
    pytest.fail(done.stderr)


def test_every_decision_is_short_and_whole() -> None:
    pages = sorted((ROOT / "docs" / "adr").glob("0*.md"))
    assert [page.name[:4] for page in pages] == [f"{n:04}" for n in range(1, len(pages) + 1)]
    for page in pages:
        text = page.read_text("utf-8")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [
            "Context",
            "Decision",
            "Consequences",
        ]
        assert len(text.split()) < 450, page.name
        assert f"({page.name})" in (page.parent / "README.md").read_text("utf-8")
