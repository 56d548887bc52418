"""A worker, started by its command."""

from __future__ import annotations

import signal

import msgspec
import pytest

from sleap_rtc.cli.machine_documents import WorkerDocument, WorkersDocument

pytestmark = pytest.mark.slow


@pytest.fixture
def room(host, cli):
    cli("login", host.url, "--code", host.code)
    cli("room", "create", "lab")
    return cli("room", "invite", "--role", "worker").out.strip()


def test_it_joins_tells_what_it_has_and_is_seen(room, cli, start, tmp_path):
    where = ("--room", "-", "--name", "gpu-1", "--dir", tmp_path / "worker", "--json")
    process = start(tmp_path / "machine", "worker", *where)
    process.popen.stdin.write(room + "\n")
    process.popen.stdin.close()
    told = msgspec.convert(process.first_document(), WorkerDocument).worker
    assert (told.name, told.room) == ("gpu-1", "lab")
    assert told.cpus > 0
    (seen,) = msgspec.convert(cli("workers", "--json").document, WorkersDocument).workers
    assert (seen.name, seen.device, seen.cpus) == ("gpu-1", told.device, told.cpus)
    line = cli("workers", environment={"COLUMNS": "80"}).out.splitlines()[1]
    assert line.startswith("gpu-1")
    assert len(line) <= 80
    assert cli("workers", "-q").out == "gpu-1\n"
    # A name is one worker's.
    link = cli("room", "invite", "--role", "worker").out.strip()
    other = ("--room", link, "--name", "gpu-1", "--dir", tmp_path / "other")
    second = start(tmp_path / "machine", "worker", *other).end()
    assert second.code == 4
    assert process.terminate() == 0
    assert "The worker has stopped." in "".join(process.said)
    assert (tmp_path / "worker" / "logs" / "worker.log").exists()


def test_an_owner_needs_no_invite_and_ctrl_c_stops_it(room, own_home, start, tmp_path):
    process = start(own_home / ".sleap-rtc", "worker", "--name", "here", "--dir", tmp_path / "w")
    first = process.popen.stdout.readline()
    assert "here, online in room lab" in first, process.end().err
    process.interrupt()
    assert process.end().code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_is_stopped_while_no_server_can_be_reached(room, host, start, tmp_path, number):
    where = ("--name", "gpu-1", "--dir", tmp_path / "w")
    first = start(tmp_path / "machine", "worker", "--room", room, *where, "--json")
    first.first_document()
    assert first.terminate() == 0
    assert host.process.terminate() == 0
    process = start(tmp_path / "machine", "worker", "--room", "lab", *where)
    process.until("cannot be reached")
    process.popen.send_signal(number)
    assert process.end().code == 0
    assert "The worker has stopped." in "".join(process.said)


def test_a_room_that_it_is_not_in(cli, tmp_path):
    done = cli("worker", "--room", "lab", "--dir", tmp_path / "w", "--name", "w")
    assert done.code == 3
    assert cli("worker", "--room", "lab", "--name", "a b", "--dir", tmp_path / "w").code == 2
