"""The demo's programs: run, started, stopped, and what is told when one fails."""

from __future__ import annotations

import pytest

from sleap_rtc.demo.machines import Machine
from sleap_rtc.errors import SleapRtcError


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path / "home", tmp_path / "logs")


def test_a_command_runs_with_a_home_of_its_own(machine):
    assert machine.run("--json", "room", "list").strip()
    assert machine.home.exists()


def test_a_command_that_fails_is_named(machine):
    with pytest.raises(SleapRtcError, match=r"`sleap-rtc no-such` ended with 2"):
        machine.run("no-such")


def test_a_program_goes_on_until_it_is_stopped(machine, tmp_path):
    arguments = ("server", "--data-dir", str(tmp_path / "data"), "--port", "0", "--stun-port", "0")
    server = machine.start("server", *arguments, until="http://127.0.0.1:")
    assert "http://127.0.0.1:" in server.said()
    server.stop()
    server.stop()


def test_a_program_that_ends_at_once_is_told_with_its_words(machine, tmp_path):
    (tmp_path / "file").write_text("")
    arguments = ("server", "--data-dir", str(tmp_path / "file"), "--port", "0")
    with pytest.raises(SleapRtcError, match=r"(?s)The server ended with \d.*It said:.*error:"):
        machine.start("server", *arguments, until="http://")
