"""The first page of help is the one that click makes, without its cost."""

from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest

from sleap_rtc.cli.app import App
from sleap_rtc.cli.commands import cli
from sleap_rtc.cli.overview import OPTIONS, overview


@pytest.mark.parametrize("width", range(40, 101))
def test_it_is_clicks_own_page(width):
    with click.Context(
        cli,
        info_name="sleap-rtc",
        obj=App(),
        terminal_width=width,
        help_option_names=["-h", "--help"],
    ) as ctx:
        assert overview(width) == cli.get_help(ctx) + "\n"


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_click_is_not_imported_for_it(flag):
    code = (
        "import sys\nfrom sleap_rtc.cli.main import run\n"
        "assert run([sys.argv[1]]) == 0\nprint(*sys.modules, file=sys.stderr)"
    )
    # What measures coverage imports much of its own.
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, flag],
        capture_output=True,
        text=True,
        check=True,
        env=unmeasured,
    )
    assert done.stdout.startswith("Usage: sleap-rtc ")
    assert {"click", "importlib.util", "inspect", "datetime"} & set(done.stderr.split()) == set()


def test_its_options_are_those_of_the_program():
    with click.Context(cli, obj=App(), help_option_names=["-h", "--help"]) as ctx:
        params = cli.get_params(ctx)
    assert {option for param in params for option in param.opts} - {"-q", "-h"} == set(OPTIONS)


def test_a_reader_that_has_read_enough_is_no_error():
    writer = subprocess.Popen(
        [sys.executable, "-m", "sleap_rtc", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    writer.stdout.close()
    _, said = writer.communicate(timeout=60)
    assert said == b""
