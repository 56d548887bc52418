"""Two sides reach each other, and whoever else turns up doesn't."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import time
from pathlib import Path

import msgspec
import pytest

from sleap_rtc.errors import LinkLost, PeerUnreachable, ProtocolError
from sleap_rtc.protocol import direct
from sleap_rtc.transports.direct import meeting, wire
from sleap_rtc.transports.direct.identity import Identity
from sleap_rtc.transports.direct.meeting import Meeting, announce
from sleap_rtc.transports.direct.wire import Wire

SESSION = "5d9b2a62-0d4e-4c53-9ac9-1a2b3c4d5e6f"


@pytest.fixture
def announced(identities):
    """Both sides' announcements, with TCP alone or a Unix socket alone."""
    made = []

    def make(*, tcp: bool, local: bool):
        made.extend(announce(each, tcp=tcp, local=local) for each in identities)
        return made[-2:]

    yield make
    for each in made:
        each.door.close()


def side(ours, theirs, *, fetches, session=SESSION):
    return Meeting(ours, theirs, session=session, fetches=fetches, peer="eve")


async def both(fetcher, server, **options):
    a = side(fetcher, server.end, fetches=True)
    b = side(server, fetcher.end, fetches=False, **options)
    return await asyncio.gather(a.meet(), b.meet(), return_exceptions=True)


@contextlib.contextmanager
def closing(*results):
    try:
        yield results
    finally:
        for result in results:
            if not isinstance(result, BaseException):
                result.wire.close()


async def speak(met):
    one, two = met
    await one.wire.send_all(b"question")
    assert await two.wire.read_exactly(8) == b"question"
    await two.wire.send_all(b"answer")
    assert await one.wire.read_exactly(6) == b"answer"


async def test_peers_on_one_machine_meet_on_a_unix_socket(announced):
    with closing(*await both(*announced(tcp=False, local=True))) as met:
        assert all(each.local for each in met)
        await speak(met)


async def test_peers_meet_over_the_network_with_tls(announced, loopback):
    with closing(*await both(*announced(tcp=True, local=False))) as met:
        assert not any(each.local for each in met)
        assert met[0].wire.sock.version() == "TLSv1.3"
        for each in met:
            assert each.wire.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        await speak(met)


async def test_the_only_address_is_tried_at_once(announced, loopback, monkeypatch):
    monkeypatch.setattr(meeting, "FOLLOWS_S", 60.0)
    with closing(*await both(*announced(tcp=True, local=False))) as met:
        await speak(met)


async def test_no_word_waits_for_an_acknowledgement(announced, loopback, monkeypatch):
    made = []
    secure = Wire.secure

    async def watched(at, context, **options):
        made.append(at.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        return await secure(at, context, **options)

    monkeypatch.setattr(Wire, "secure", watched)
    with closing(*await both(*announced(tcp=True, local=False))) as met:
        assert len(made) >= 2
        assert all(made)
        await speak(met)


async def test_long_lines_get_bbr_where_the_system_has_it(announced, loopback, monkeypatch):
    monkeypatch.setattr(wire, "FAR_S", 0.0)
    with closing(*await both(*announced(tcp=True, local=False))) as met:
        for each in met:
            measured = wire.round_trip_s(each.wire.sock)
            assert measured is None or 0 < measured < 5
            used = each.wire.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
            can = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_text()
            assert used.startswith(b"bbr") == ("bbr" in can.split())


async def test_the_machine_itself_is_preferred_to_the_network(announced, loopback):
    with closing(*await both(*announced(tcp=True, local=True))) as met:
        assert all(each.local for each in met)


@pytest.mark.parametrize("reachable", ["fetcher", "server"])
async def test_it_is_enough_that_one_side_is_reached(announced, loopback, reachable):
    fetcher, server = announced(tcp=True, local=False)
    hidden = server if reachable == "fetcher" else fetcher
    hidden.door.close()
    with closing(*await both(fetcher, server)) as met:
        await speak(met)


async def short(monkeypatch, *meetings):
    monkeypatch.setattr(direct, "WITHIN_S", 0.7)
    return await asyncio.gather(*(m.meet() for m in meetings), return_exceptions=True)


async def test_nobody_to_be_reached_is_said(announced, monkeypatch):
    fetcher, server = announced(tcp=False, local=False)
    met = await short(
        monkeypatch,
        side(fetcher, server.end, fetches=True),
        side(server, fetcher.end, fetches=False),
    )
    assert all(isinstance(each, PeerUnreachable) for each in met)


@pytest.mark.parametrize("tcp", [True, False])
async def test_another_session_is_another_connection(announced, loopback, monkeypatch, tcp):
    """What was announced over one link is good for no other."""
    fetcher, server = announced(tcp=tcp, local=not tcp)
    met = await short(
        monkeypatch,
        side(fetcher, server.end, fetches=True),
        side(server, fetcher.end, fetches=False, session="another"),
    )
    assert all(isinstance(each, PeerUnreachable) for each in met)


async def test_another_certificate_than_announced_is_refused(announced, loopback, monkeypatch):
    """Somebody has learnt the secrets, but not the key."""
    fetcher, server = announced(tcp=True, local=False)
    eve = msgspec.structs.replace(server, identity=Identity())
    met = await short(
        monkeypatch,
        side(fetcher, server.end, fetches=True),
        side(eve, fetcher.end, fetches=False),
    )
    assert all(isinstance(each, PeerUnreachable) for each in met)


async def test_what_is_no_certificate_is_a_broken_rule(announced):
    fetcher, server = announced(tcp=True, local=False)
    end = msgspec.structs.replace(server.end, certificate="abcdef")
    with pytest.raises(ProtocolError, match="no certificate"):
        await side(fetcher, end, fetches=True).meet()


async def test_an_announcement_is_used_once(announced, loopback):
    """Replayed by somebody who heard all of it: the door is shut, the secrets are used up."""
    fetcher, server = announced(tcp=True, local=False)
    with closing(*await both(fetcher, server)):
        pass
    server.door.close()
    address = server.door.addresses[0]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.host, address.port), timeout=2)


async def test_only_one_peer_is_let_in_while_the_door_is_open(announced, loopback):
    fetcher, server = announced(tcp=True, local=False)
    with closing(*await both(fetcher, server)):
        # The listener itself is still there until the announcement is given up; nobody answers.
        address = server.door.addresses[0]
        with socket.create_connection((address.host, address.port), timeout=2) as late:
            late.settimeout(0.3)
            with pytest.raises((TimeoutError, ConnectionError)):
                late.recv(1)


async def test_a_stranger_learns_nothing_and_disturbs_nobody(announced, loopback):
    fetcher, server = announced(tcp=True, local=False)
    address = server.door.addresses[0]
    with socket.create_connection((address.host, address.port), timeout=2) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with closing(*await both(fetcher, server)) as met:
            await speak(met)


@pytest.mark.parametrize("busy", [3, meeting.MAX_AT_ONCE])
async def test_slow_strangers_are_put_out(announced, loopback, monkeypatch, busy):
    """They connect and say nothing. At most they keep one side from being reached for a while."""
    monkeypatch.setattr(meeting, "PROVEN_WITHIN_S", 5.0)
    fetcher, server = announced(tcp=True, local=False)
    address = server.door.addresses[0]
    strangers = [
        socket.create_connection((address.host, address.port), timeout=2) for _ in range(busy)
    ]
    with closing(*await both(fetcher, server)) as met:
        await speak(met)
    for each in strangers:
        each.settimeout(60)
        with contextlib.suppress(ConnectionError):
            assert each.recv(1) == b""
        each.close()


async def test_a_flood_is_bounded(announced, loopback, monkeypatch):
    monkeypatch.setattr(meeting, "MAX_TRIES", 20)
    monkeypatch.setattr(direct, "WITHIN_S", 1.0)
    fetcher, server = announced(tcp=True, local=False)
    waiting = asyncio.create_task(side(server, fetcher.end, fetches=False).meet())
    address = server.door.addresses[0]
    before = len(list(Path("/proc/self/fd").iterdir()))
    strangers = []
    for _ in range(60):
        stranger = socket.socket()
        stranger.setblocking(False)
        strangers.append(stranger)
        with contextlib.suppress(BlockingIOError, ConnectionError, TimeoutError):
            await asyncio.wait_for(
                asyncio.get_running_loop().sock_connect(stranger, (address.host, address.port)),
                0.05,
            )
        held = len(list(Path("/proc/self/fd").iterdir())) - before - len(strangers)
        assert held <= meeting.MAX_AT_ONCE + 2
    with pytest.raises(PeerUnreachable):
        await waiting
    for stranger in strangers:
        stranger.close()


async def unix(path: str) -> Wire:
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, path)
    return Wire(sock, peer="test")


async def test_a_wrong_proof_is_put_out(announced):
    fetcher, server = announced(tcp=False, local=True)
    waiting = asyncio.create_task(side(server, fetcher.end, fetches=False).meet())
    eve = await unix(server.end.path)
    await eve.send_all(secrets.token_bytes(32))
    with pytest.raises(LinkLost):
        await eve.read_exactly(32)
    eve.close()
    with closing(await side(fetcher, server.end, fetches=True).meet(), await waiting) as met:
        await speak(met)


async def test_an_unknown_use_is_refused(announced):
    fetcher, server = announced(tcp=False, local=True)
    waiting = asyncio.create_task(side(server, fetcher.end, fetches=False).meet())
    connects, listens = direct.proofs(SESSION, fetcher.end, server.end)
    eve = await unix(server.end.path)
    await eve.send_all(connects)
    assert await eve.read_exactly(32) == listens
    await eve.send_all(b"\x02")
    with pytest.raises(LinkLost):
        await eve.read_exactly(1)
    eve.close()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_cancelled_it_leaves_nothing_open(announced):
    fetcher, server = announced(tcp=False, local=True)
    before = len(list(Path("/proc/self/fd").iterdir()))
    waiting = asyncio.create_task(side(server, fetcher.end, fetches=False).meet())
    eve = await unix(server.end.path)
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    eve.close()
    async with asyncio.timeout(60):
        # A thread may have been reading a certificate.
        while len(list(Path("/proc/self/fd").iterdir())) != before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_a_door_leaves_nothing_behind():
    door = meeting.Door(tcp=False, local=True)
    assert Path(door.path).is_socket()
    assert Path(door.path).parent.stat().st_mode & 0o777 == 0o700
    door.close()
    assert not Path(door.path).parent.exists()


def test_only_sockets_of_this_user_in_a_folder_of_its_own_are_tried(tmp_path):
    """A peer names a path here: it must not make us talk to whatever listens on this machine."""
    folder = tmp_path / "sleap-rtc-x"
    folder.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(folder)  # a short path
        try:
            listener.bind("direct")
        finally:
            os.chdir(here)
        assert meeting._is_private_socket(str(folder / "direct"))
        folder.chmod(0o755)
        assert not meeting._is_private_socket(str(folder / "direct"))
        folder.chmod(0o700)
        other = tmp_path / "other"
        other.mkdir(mode=0o700)
        (other / "direct").symlink_to(folder / "direct")
        assert not meeting._is_private_socket(str(other / "direct"))
        (folder / "direct").rename(folder / "docker.sock")
        assert not meeting._is_private_socket(str(folder / "docker.sock"))
    (folder / "direct").write_text("")
    assert not meeting._is_private_socket(str(folder / "direct"))
    assert not meeting._is_private_socket(str(tmp_path / "nowhere" / "direct"))
    assert not meeting._is_private_socket("a\0b/sleap-rtc-x/direct")


async def test_everything_is_over_after_its_time(announced, monkeypatch):
    fetcher, server = announced(tcp=False, local=True)
    began = time.monotonic()
    [met] = await short(monkeypatch, side(server, fetcher.end, fetches=False))
    assert isinstance(met, PeerUnreachable)
    assert time.monotonic() - began < 50
