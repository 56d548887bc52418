from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sleap_rtc import errors
from sleap_rtc.cli import reference
from sleap_rtc.cli.commands import cli as cli_itself
from sleap_rtc.cli.table import EPILOG, ROWS
from sleap_rtc.domain.models import Location, Metrics

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


TYPES = {
    "boolean": lambda text: text in ("True", "False"),
    "integer": lambda text: int(text) >= 0,
    "number": lambda text: float(text) >= 0,
    "datetime": lambda text: datetime.fromisoformat(text).tzinfo is not None,
    "string": lambda text: True,
}


@pytest.fixture
def two(home):
    now = datetime(2026, 3, 1, tzinfo=UTC)
    gpu = Location(kind="worker", name="gpu-1", last_seen=now)
    one = home.model("a", locations=(gpu,), tags=("x", "y"))
    two = home.model("b", metrics=Metrics(best_val_loss=0.5, epochs=3))
    return one.id, two.id


@pytest.mark.parametrize(
    ("name", "command"),
    [("list-models", ("list-models",)), ("compare-models", ("compare-models", "--all"))],
)
def test_csv_is_as_its_schema_says(cli, two, name, command):
    published = json.loads((FOLDER / "schemas" / f"{name}.csv.json").read_text("utf-8"))
    assert published == json.loads(reference.csv_schema(name))
    fields = {field["name"]: field for field in published["fields"]}
    assert all(field["description"] for field in fields.values())
    which = two if name == "compare-models" else ()
    lines = list(csv.DictReader(io.StringIO(cli(*command, *which, "--format", "csv").out)))
    assert list(lines[0]) == [*fields, *which]
    assert len(lines) >= 2
    for line in lines:
        for column, field in fields.items():
            assert line[column] in published["missingValues"] or TYPES[field["type"]](line[column])


def test_of_what_is_in_csv_nothing_is_without_a_schema():
    with_csv = {
        ctx.command_path.removeprefix("sleap-rtc ").replace(" ", "-")
        for row in ROWS.values()
        for ctx in commands(row.name)
        if any("csv" in getattr(param.type, "choices", ()) for param in ctx.command.params)
    }
    assert with_csv == set(reference.CSV)


def commands(name):
    """A command and those below it."""
    with reference._context(cli_itself, "sleap-rtc") as ctx:
        command = cli_itself.get_command(ctx, name)
        yield from reference._family(command, name, ctx)
