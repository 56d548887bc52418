from __future__ import annotations

from pathlib import Path

import pytest

from sleap_rtc import errors
from sleap_rtc.cli import reference
from sleap_rtc.cli.main import EPILOG, ROWS

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", ["cli.md", "json.md"])
def test_the_pages_are_current(name):
    assert (FOLDER / name).read_text("utf-8") == reference.files()[name], "run: make docs"


def test_every_command_is_there():
    page = reference.commands_page()
    for row in ROWS.values():
        assert (f"### sleap-rtc {row.name}\n" in page) is not row.hidden
    for below in ("jobs attach", "jobs stop", "room invite", "engine install"):
        assert f"### sleap-rtc {below}\n" in page


def test_every_exit_code_is_explained():
    used = {error.exit_code for error in errors.BY_CODE.values()} | {0}
    assert used == set(reference.EXIT_CODES)
    for code in used:
        assert f" {code} " in EPILOG
