from __future__ import annotations

import msgspec
import pytest

from sleap_rtc.cli.doctor import STYLES
from sleap_rtc.cli.machine_documents import CheckShown, DoctorDocument
from sleap_rtc.cli.output import STYLES as KNOWN


@pytest.fixture
def found(monkeypatch):
    checks = []
    monkeypatch.setattr("sleap_rtc.cli.checks.examine", lambda app: iter(checks))
    return checks


def check(status, name="disk"):
    return CheckShown(name=name, status=status, message="as it is", hint="do this")


def test_all_is_well(cli, found):
    found += [check("ok"), check("note"), check("warning", "clock")]
    done = cli("doctor")
    assert done.code == 0
    assert "warning  clock: as it is" in done.out
    assert done.out.count("do this") == 2  # what is well needs no hint
    assert "Nothing is broken." in done.err
    told = msgspec.convert(cli("doctor", "--json").document, DoctorDocument)
    assert (told.ok, len(told.checks)) == (True, 3)
    assert cli("doctor", "-q").out.splitlines()[0].startswith("warning")


def test_something_is_broken(cli, found):
    found += [check("ok"), check("broken")]
    done = cli("doctor")
    assert done.code == 1
    assert "broken   disk: as it is" in done.out
    assert "1 thing to mend." in done.err
    done = cli("doctor", "--json")
    assert done.code == 1
    assert done.document["ok"] is False


def test_long_lines_fit_the_terminal(cli, found):
    path = "/home/ada/" + "x" * 70
    found += [
        CheckShown(name="clock", status="warning", message="it is off " * 12, hint="set it " * 20),
        CheckShown(name="home", status="ok", message=f"it is {path} and well", hint=""),
    ]
    lines = cli("doctor", environment={"COLUMNS": "60"}).out.splitlines()
    assert [line for line in lines if len(line) > 60] == [f"{' ' * 9}{path}"]
    assert len(lines) > 6
    assert all(line.startswith((" " * 9, "warning  ", "ok       ")) for line in lines)


def test_styles():
    assert set(STYLES.values()) <= set(KNOWN)
