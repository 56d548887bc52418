"""Routers: what they do with the addresses of whoever is behind them."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sleap_rtc.errors import NotPermitted
from sleap_rtc.testing import nat, netns
from sleap_rtc.testing.nat import Router

pytestmark = [pytest.mark.webrtc]

NUMBERS = itertools.count(1)

SPEAK = """
import socket, sys
ours = socket.socket(type=socket.SOCK_DGRAM)
for port in sys.argv[2:]:
    ours.sendto(b"hello", (sys.argv[1], int(port)))
print(flush=True)
ours.settimeout(0.5)
try:
    while True:
        print(ours.recvfrom(100)[0].decode(), flush=True)
except TimeoutError:
    pass
"""
DIAL = """
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2).close()
"""


@pytest.fixture
def machine() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a network of its own."""
    if netns.inside() is None:
        pytest.skip("a router needs a namespace; `make test` makes one")
    process = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        if not process.stdout.readline():
            pytest.skip("unshare --net fails")
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def behind(machine):
    """Puts the machine behind a router of some kind."""
    routers = []

    def put(**options) -> Router:
        router = Router(next(NUMBERS), **options)
        try:
            router.start()
        except NotPermitted as error:
            pytest.skip(error.message)
        routers.append(router)
        router.plug_in(machine.pid)
        return router

    yield put
    for router in routers:
        router.close()


def run_in(machine, program: str, *arguments: object) -> subprocess.Popen[str]:
    enter = ["nsenter", "--target", str(machine.pid), "--net", "--"]
    return subprocess.Popen(
        [*enter, sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@pytest.fixture
def servers() -> Iterator[list[socket.socket]]:
    """Two that are spoken with, and one that isn't."""
    made = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(3)]
    for each in made:
        each.bind((netns.inside(), 0))
        each.settimeout(5)
    yield made
    for each in made:
        each.close()


@pytest.mark.parametrize("kind", ["cone", "symmetric"])
def test_outer_ports_are_as_the_kind_says_and_strangers_stay_outside(
    machine, behind, servers, kind
):
    router = behind(kind=kind)
    one, other, stranger = servers
    ports = [each.getsockname()[1] for each in (one, other)]
    speaking = run_in(machine, SPEAK, netns.ADDRESS, *ports)
    seen = [each.recvfrom(100)[1] for each in (one, other)]
    assert {host for host, _ in seen} == {router.outer}
    assert (seen[0] == seen[1]) == (kind == "cone")
    stranger.sendto(b"uninvited", seen[0])
    one.sendto(b"answer", seen[0])
    said, _ = speaking.communicate(timeout=60)
    assert said.split() == ["answer"]
    assert router.received() > 0


@pytest.mark.parametrize(
    ("passes", "udp", "elsewhere"), [("servers", True, False), ("tcp", False, True)]
)
def test_what_doesnt_pass_never_arrives(machine, behind, servers, *, passes, udp, elsewhere):
    router = behind(passes=passes)
    one = servers[0]
    one.settimeout(0.5)
    speaking = run_in(machine, SPEAK, netns.ADDRESS, one.getsockname()[1])
    if udp:
        assert one.recvfrom(100)[1][0] == router.outer
    else:
        with pytest.raises(TimeoutError):
            one.recvfrom(100)
    speaking.communicate(timeout=60)
    for address, reached in ((netns.ADDRESS, True), (f"{router._wan}.1", elsewhere)):
        with socket.create_server((address, 0)) as listening:
            dialling = run_in(machine, DIAL, *listening.getsockname())
            assert (dialling.wait(60) == 0) == reached
            dialling.communicate()


def test_another_address_takes_the_place_of_the_first(machine, behind):
    router = behind()
    with socket.create_server((netns.ADDRESS, 0)) as listening:
        for _ in range(2):
            dialling = run_in(machine, DIAL, *listening.getsockname())
            assert dialling.wait(60) == 0
            dialling.communicate()
            router.change_address()


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotPermitted, match=r"the program 'ip' is missing \(package iproute2\)"):
        Router(1).start()


def test_what_the_system_refuses_is_said(monkeypatch, tmp_path):
    def refuse(*_command: str, **_given: str) -> str:
        raise nat._refused("no")

    (tmp_path / "unshare").write_text("#!/bin/sh\necho; exec cat\n")
    (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(nat, "_PROGRAMS", {})
    monkeypatch.setattr(nat, "_run", refuse)
    router = Router(1)
    with pytest.raises(NotPermitted, match="A router can't be made here: no"):
        router.start()
    assert router._process is None
