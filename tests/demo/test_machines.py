"""The demo's programs: run, started, stopped, and what is told when one fails."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import pytest

from sleap_rtc.demo import machines
from sleap_rtc.demo.interrupts import Interrupts
from sleap_rtc.demo.machines import Machine, end_trainings
from sleap_rtc.domain.values import encode_pretty
from sleap_rtc.engines.process import identify
from sleap_rtc.errors import SleapRtcError
from sleap_rtc.worker.job_directory import JobDirectory
from sleap_rtc.worker.runner.plan import RunnerFile


@pytest.fixture
def interrupts():
    return Interrupts()


@pytest.fixture
def machine(tmp_path, interrupts):
    return Machine(tmp_path / "home", tmp_path / "logs", interrupts)


@pytest.fixture
def started(monkeypatch):
    """Processes that were started; an interrupt comes before anybody knows of each."""
    found: list[subprocess.Popen] = []

    class Interrupted(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            found.append(self)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(machines.subprocess, "Popen", Interrupted)
    return found


def serving(tmp_path):
    return ("server", "--data-dir", str(tmp_path / "data"), "--port", "0", "--stun-port", "0")


def test_a_command_runs_with_a_home_of_its_own(machine):
    assert machine.run("--json", "room", "list").strip()
    assert machine.home.exists()


def test_a_command_that_fails_is_named(machine):
    with pytest.raises(SleapRtcError, match=r"`sleap-rtc no-such` ended with 2"):
        machine.run("no-such")


def test_a_program_goes_on_until_it_is_stopped(machine, tmp_path):
    server = machine.start("server", *serving(tmp_path), until="http://127.0.0.1:")
    assert "http://127.0.0.1:" in server.said()
    server.stop()
    server.stop()


def test_a_program_that_ends_at_once_is_told_with_its_words(machine, tmp_path):
    (tmp_path / "file").write_text("")
    arguments = ("server", "--data-dir", str(tmp_path / "file"), "--port", "0")
    with pytest.raises(SleapRtcError, match=r"(?s)The server ended with \d.*It said:.*error:"):
        machine.start("server", *arguments, until="http://")


def test_a_command_does_not_outlive_an_interrupt_that_comes_while_it_is_started(
    machine, interrupts, started, tmp_path
):
    with interrupts, pytest.raises(KeyboardInterrupt):
        machine.run(*serving(tmp_path))
    assert [process.poll() for process in started] == [-signal.SIGKILL]


def test_a_program_does_not_outlive_an_interrupt_that_comes_while_it_is_started(
    machine, interrupts, started, tmp_path
):
    with interrupts:
        with pytest.raises(KeyboardInterrupt):
            machine.start("server", *serving(tmp_path), until="http://127.0.0.1:")
        machine.stop()
    (process,) = started
    assert process.poll() is not None


def test_whoever_interrupts_twice_waits_for_nobody(machine, interrupts, tmp_path, monkeypatch):
    monkeypatch.setattr(machines, "STOP_S", 3_600.0)

    def stop_twice():
        with interrupts.held():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            machine.stop()

    with interrupts:
        server = machine.start("server", *serving(tmp_path), until="http://127.0.0.1:")
        server._process.send_signal(signal.SIGSTOP)  # it does not hear that it is to end
        with pytest.raises(KeyboardInterrupt):
            stop_twice()
    assert server._process.poll() == -signal.SIGKILL


def test_trainings_that_go_on_without_their_worker_are_ended(tmp_path):
    job = JobDirectory(root=tmp_path / "jobs" / "one")
    job.root.mkdir(parents=True)
    (tmp_path / "jobs" / "ended").mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as runner:
        known = RunnerFile(process=identify(runner.pid), socket=str(tmp_path / "socket"))
        job.runner.write_bytes(encode_pretty(known))
        end_trainings(tmp_path)
        assert runner.wait(60) == -signal.SIGTERM
    end_trainings(tmp_path)


KILLED = """
import os, signal, sys
from pathlib import Path
from sleap_rtc.demo.interrupts import Interrupts
from sleap_rtc.demo.machines import Machine, end_trainings
from sleap_rtc.domain.values import encode_pretty
from sleap_rtc.engines.process import identify

root = Path(sys.argv[1])
machine = Machine(root / "home", root / "logs", Interrupts())
server = machine.start("server", *sys.argv[2:], until="http://127.0.0.1:")
print(server._process.pid, flush=True)
input()
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process of its parent's end"
)
def test_a_program_does_not_outlive_a_demo_that_is_killed(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path), *serving(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as demo:
        server = os.pidfd_open(int(demo.stdout.readline()))
        demo.kill()
    try:
        assert select.select([server], [], [], 60)[0] == [server], "the server goes on"
    finally:
        os.close(server)
