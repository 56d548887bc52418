"""One connection, with this test in the place of the WebSocket: slowness, haste, silence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.auth.signed import chain_to_texts
from sleap_rtc.config import ServerSettings
from sleap_rtc.domain.values import encode
from sleap_rtc.net.limits import SourceLimits
from sleap_rtc.protocol.signaling import (
    SIGN_IN_CONTEXT,
    Challenge,
    CreateRoom,
    Done,
    EnterRoom,
    FromServer,
    GetMembership,
    LeaveRoom,
    PutMembership,
    Refused,
    SignedIn,
    SignIn,
    from_device,
    from_server,
    sign_in_payload,
)
from sleap_rtc.server import connection as module
from sleap_rtc.server import hub as hub_module
from sleap_rtc.server.addresses import Addresses
from sleap_rtc.server.connection import Connection
from sleap_rtc.server.hub import Hub
from sleap_rtc.server.limits import MAX_OUTBOX, WRITE_COST, Pending
from sleap_rtc.server.metrics import ServerMetrics
from sleap_rtc.server.requests import Desk
from sleap_rtc.server.rooms import Visitor
from sleap_rtc.server.store import Store
from sleap_rtc.testing.made_room import MadeRoom

KEY = SigningKey.from_seed(bytes([5]) * 32)
ROOM = MadeRoom().room
DIALLED = "127.0.0.1:8765"


class Socket:
    """What uvicorn is to a connection. While ``reading`` is not set the device takes nothing."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.reading = asyncio.Event()
        self.reading.set()
        self.gone = False
        self.incoming.put_nowait({"type": "websocket.connect"})

    async def receive(self) -> dict[str, Any]:
        return await self.incoming.get()

    async def send(self, event: Any) -> None:
        await self.reading.wait()
        if self.gone:
            raise ConnectionResetError
        self.sent.put_nowait(dict(event))

    def say(self, message: Any) -> None:
        text = from_device.encode(message).decode()
        self.incoming.put_nowait({"type": "websocket.receive", "text": text})

    def hang_up(self) -> None:
        self.incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})

    async def event(self) -> dict[str, Any]:
        async with asyncio.timeout(60):
            return await self.sent.get()

    async def heard(self) -> FromServer:
        return from_server.decode((await self.event())["text"], peer="the server")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    store = Store(tmp_path)
    code = store.new_code(now=datetime.now(UTC))
    store.register_by_code(KEY.device, code=code, name="box", program="", now=datetime.now(UTC))
    yield Hub(
        Desk(store, lambda: datetime.now(UTC)),
        Addresses(ServerSettings(data_dir=tmp_path), port=8765, host_name=""),
        ServerMetrics(),
        stun_port=0,
        ice=(),
        stopping=lambda: False,
    )
    store.close()


def connect(hub: Hub, *, client: str = "127.0.0.1", **changes: Any) -> tuple[Socket, Connection]:
    socket = Socket()
    scope = {"type": "websocket", "client": (client, 1), "server": ("127.0.0.1", 8765)}
    return socket, Connection(hub, scope, socket.receive, socket.send, **changes)


async def answer_challenge(
    socket: Socket, *, key: SigningKey = KEY, setup_code: str | None = None
) -> FromServer:
    assert (await socket.event())["type"] == "websocket.accept"
    challenge = await socket.heard()
    assert isinstance(challenge, Challenge)
    payload = sign_in_payload(nonce=challenge.nonce, server=DIALLED, device=key.device)
    signature = key.sign(SIGN_IN_CONTEXT, payload).hex()
    socket.say(
        SignIn(version=1, device=key.device, signature=signature, name="box", setup_code=setup_code)
    )
    return await socket.heard()


async def sign_in(socket: Socket) -> None:
    assert isinstance(await answer_challenge(socket), SignedIn)


def count(hub: Hub, name: str) -> float:
    return hub.metrics.registry.get_sample_value(name) or 0


async def test_who_does_not_sign_in_in_time_is_sent_away(hub: Hub) -> None:
    socket, connection = connect(hub, sign_in_deadline=0.05)
    await connection.run()
    assert [(await socket.event())["type"] for _ in range(2)] == [
        "websocket.accept",
        "websocket.send",
    ]
    told = await socket.heard()
    assert isinstance(told, Refused)
    assert told.code == "deadline_exceeded"
    assert (await socket.event())["code"] == 1008
    assert count(hub, "sleap_rtc_connections") == 0


async def test_who_signed_in_may_be_silent(hub: Hub) -> None:
    within, told = 0.05, None
    while not isinstance(told, SignedIn):  # on a busy machine it may take longer than that
        within *= 2
        socket, connection = connect(hub, sign_in_deadline=within)
        running = asyncio.create_task(connection.run())
        told = await answer_challenge(socket)
    await asyncio.wait([running], timeout=2 * within)
    assert not running.done()
    socket.hang_up()
    await running


async def test_who_does_not_read_is_let_go(hub: Hub) -> None:
    socket, connection = connect(hub)
    running = asyncio.create_task(connection.run())
    await sign_in(socket)
    socket.reading.clear()
    for _ in range(MAX_OUTBOX // 50_000 + 1):
        connection.post("x" * 50_000)
    async with asyncio.timeout(60):
        await running  # returns: uvicorn closes the transport then
    assert count(hub, "sleap_rtc_dropped_connections_total") == 1
    assert count(hub, "sleap_rtc_signed_in") == 0
    connection.post("more")  # who doesn't know yet may go on


async def test_who_reads_again_gets_everything_in_order(hub: Hub) -> None:
    socket, connection = connect(hub)
    running = asyncio.create_task(connection.run())
    await sign_in(socket)
    socket.reading.clear()
    for number in range(100):
        connection.post(str(number))
    socket.reading.set()
    assert [(await socket.event())["text"] for _ in range(100)] == [str(n) for n in range(100)]
    for _ in range(40):  # what was read no longer counts as waiting
        connection.post("x" * 50_000)
        await socket.event()
    socket.hang_up()
    await running


async def test_who_sends_too_fast_is_read_more_slowly_and_loses_nothing(
    hub: Hub,
) -> None:
    hub.messages = SourceLimits(rate=100, burst=3)
    socket, connection = connect(hub)
    running = asyncio.create_task(connection.run())
    await sign_in(socket)
    began = time.monotonic()
    for number in range(30):
        socket.say(GetMembership(id=number, room=ROOM))
    answers = [await socket.heard() for _ in range(30)]
    assert time.monotonic() - began > (30 - 3) / 100
    assert [getattr(answer, "id", None) for answer in answers] == list(range(30))
    socket.hang_up()
    await running


async def test_what_is_told_to_a_room_counts_more(hub: Hub) -> None:
    hub.messages = SourceLimits(rate=100, burst=3)
    socket, connection = connect(hub)
    running = asyncio.create_task(connection.run())
    await sign_in(socket)
    began = time.monotonic()
    for number in range(5):
        socket.say(LeaveRoom(id=number, room=ROOM))
        await socket.heard()
    assert time.monotonic() - began > (5 * (1 + WRITE_COST) - 3) / 100
    socket.hang_up()
    await running


async def test_all_connections_of_a_device_share_one_limit(hub: Hub) -> None:
    hub.messages = SourceLimits(rate=100, burst=3)
    pairs = [connect(hub) for _ in range(3)]
    running = [asyncio.create_task(connection.run()) for _, connection in pairs]
    for socket, _ in pairs:
        await sign_in(socket)
    began = time.monotonic()
    for number in range(10):
        for socket, _ in pairs:
            socket.say(GetMembership(id=number, room=ROOM))
    for socket, _ in pairs:
        for _ in range(10):
            await socket.heard()
        socket.hang_up()
    assert time.monotonic() - began > (30 - 3) / 100
    await asyncio.gather(*running)


async def test_a_device_can_be_signed_in_only_so_often(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "MAX_CONNECTIONS", 2)
    pairs = [connect(hub) for _ in range(2)]
    running = [asyncio.create_task(connection.run()) for _, connection in pairs]
    for socket, _ in pairs:
        await sign_in(socket)
    third, connection = connect(hub)
    refused = asyncio.create_task(connection.run())
    told = await answer_challenge(third)
    assert isinstance(told, Refused)
    assert "has 2 connections" in told.message
    await refused
    pairs[0][0].hang_up()
    await running[0]
    again, connection = connect(hub)
    running[0] = asyncio.create_task(connection.run())
    await sign_in(again)
    for socket in (again, pairs[1][0]):
        socket.hang_up()
    await asyncio.gather(*running)
    assert not hub._connections


async def test_wrong_set_up_codes_are_counted_and_right_ones_are_not(hub: Hub) -> None:
    hub.codes = SourceLimits(rate=1e-6, burst=3)
    store = hub.desk._store

    async def attempt(code: str | None, *, client: str = "10.0.0.1") -> str:
        socket, connection = connect(hub, client=client)
        running = asyncio.create_task(connection.run())
        told = await answer_challenge(socket, key=SigningKey.generate(), setup_code=code)
        socket.hang_up()
        await running
        return told.message if isinstance(told, Refused) else "in"

    for _ in range(5):
        assert await attempt(store.new_code(now=datetime.now(UTC))) == "in"
    for _ in range(3):
        assert "The set-up code is wrong" in await attempt("ABCD-EFGH-JKMN-PQRS")
    right = store.new_code(now=datetime.now(UTC))
    assert "Too many wrong set-up codes" in await attempt(right)
    assert await attempt(right, client="10.0.0.2") == "in"
    assert "not signed in" in await attempt(None)  # who brings no code isn't counted


async def test_whoever_enters_a_loud_room_is_told_everything(hub: Hub) -> None:
    """More than may wait for a device that doesn't read: but this one asked for it."""
    socket, connection = connect(hub)
    running = asyncio.create_task(connection.run())
    await sign_in(socket)
    socket.reading.clear()
    for number in range(2 * MAX_OUTBOX // 50_000):
        connection.post(f"{number}" + "x" * 50_000, asked=True)
    socket.say(LeaveRoom(id=1, room=ROOM))
    socket.reading.set()
    for number in range(2 * MAX_OUTBOX // 50_000):
        assert (await socket.event())["text"].startswith(f"{number}x")
    assert isinstance(await socket.heard(), Done)
    socket.hang_up()
    await running
    assert count(hub, "sleap_rtc_dropped_connections_total") == 0


async def test_the_next_question_waits_until_the_last_answer_has_left(hub: Hub) -> None:
    socket, connection = connect(hub)
    running = asyncio.create_task(connection.run())
    await sign_in(socket)
    left: list[Any] = []
    hub.rooms.leave = lambda *asked: left.append(asked) or ()  # type: ignore[method-assign]
    socket.reading.clear()
    for _ in range(2 * MAX_OUTBOX // 50_000):
        connection.post("x" * 50_000, asked=True)
    socket.say(LeaveRoom(id=1, room=ROOM))
    for _ in range(20):
        await asyncio.sleep(0)
    assert socket.incoming.empty()
    assert left == []
    # Whoever asks and never reads is let go when others have something to say.
    connection.post("x" * (MAX_OUTBOX + 1))
    async with asyncio.timeout(60):
        await running


async def test_a_broken_socket_is_no_error(hub: Hub) -> None:
    socket, connection = connect(hub)
    running = asyncio.create_task(connection.run())
    await sign_in(socket)
    socket.gone = True
    connection.post("x")
    socket.say(LeaveRoom(id=1, room=ROOM))
    socket.hang_up()
    await running
    again, connection = connect(hub)
    again.gone = True
    await connection.run()
    assert count(hub, "sleap_rtc_connections") == 0


async def test_a_cancelled_connection_stays_cancelled(hub: Hub) -> None:
    socket, connection = connect(hub)
    running = asyncio.create_task(connection.run())
    await sign_in(socket)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert count(hub, "sleap_rtc_signed_in") == 0


async def test_too_many_who_have_not_signed_in(hub: Hub) -> None:
    hub.pending = Pending(total=3, per_address=2)
    running = []
    for _ in range(2):
        socket, connection = connect(hub)
        running.append((socket, asyncio.create_task(connection.run())))
        assert (await socket.event())["type"] == "websocket.accept"
    third, connection = connect(hub)
    await connection.run()
    assert await third.event() == {"type": "websocket.close"}
    other, connection = connect(hub, client="127.0.0.2")
    running.append((other, asyncio.create_task(connection.run())))
    assert (await other.event())["type"] == "websocket.accept"
    await sign_in_after_accept(running[0][0])
    fourth, connection = connect(hub)
    running.append((fourth, asyncio.create_task(connection.run())))
    assert (await fourth.event())["type"] == "websocket.accept"
    for socket, task in running:
        socket.hang_up()
        await task
    hub.pending.begin("127.0.0.1")
    hub.pending.begin("127.0.0.1")


async def sign_in_after_accept(socket: Socket) -> None:
    socket.sent = _with_first(socket.sent, {"type": "websocket.accept"})
    await sign_in(socket)


def _with_first(
    queue: asyncio.Queue[dict[str, Any]], first: dict[str, Any]
) -> asyncio.Queue[dict[str, Any]]:
    again: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    again.put_nowait(first)
    while not queue.empty():
        again.put_nowait(queue.get_nowait())
    return again


async def test_a_failure_of_the_server_is_told_and_the_connection_lives(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket, connection = connect(hub)
    running = asyncio.create_task(connection.run())
    await sign_in(socket)
    with monkeypatch.context() as broken:
        broken.setattr(hub.rooms, "leave", lambda *_: 1 / 0)
        socket.say(LeaveRoom(id=1, room=ROOM))
        told = await socket.heard()
    assert isinstance(told, Refused)
    assert (told.id, told.code) == (1, "error")
    assert "division" not in told.message
    socket.say(LeaveRoom(id=2, room=ROOM))
    assert getattr(await socket.heard(), "id", None) == 2
    socket.hang_up()
    await running


async def test_a_failure_at_signing_in_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.desk, "check_sign_in", lambda *_, **__: 1 / 0)
    socket, connection = connect(hub)
    running = asyncio.create_task(connection.run())
    await socket.event()
    await socket.heard()
    socket.say(SignIn(version=1, device=KEY.device, signature="ab" * 64, name="box"))
    told = await socket.heard()
    assert isinstance(told, Refused)
    assert told.code == "error"
    await running


@pytest.mark.parametrize(
    ("header", "scheme", "host"),
    [
        (b"Lab.org:99", "ws", "lab.org:99"),
        (b"lab.org", "ws", "lab.org:80"),
        (b"lab.org", "wss", "lab.org:443"),
        (b"[::1]", "wss", "[::1]:443"),
        (b"[::1]:99", "ws", "[::1]:99"),
        (b"\xff" * 400, "ws", "ÿ" * 300 + ":80"),
    ],
)
def test_the_host_that_a_request_names(header: bytes, scheme: str, host: str) -> None:
    scope = {"headers": [(b"x", b"y"), (b"host", header)], "scheme": scheme}
    assert module.host_header(scope) == host
    assert module.host_header({}) == ""


# ── lists ────────────────────────────────────────────────────────────────────


async def test_an_entry_is_checked_again_when_a_list_came_meanwhile(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the check and the entry a list may remove whoever enters."""
    made = MadeRoom(now=datetime.now(UTC))
    key, owner = made.key(10), Visitor(connection="o", device=made.owner.device)
    store = hub.desk._store
    code = store.new_code(now=made.now)
    store.register_by_code(made.owner.device, code=code, name="x", program="", now=made.now)
    create = CreateRoom(id=1, room=made.room, name="lab", chain=chain_to_texts(made.owner_chain))
    assert isinstance(await hub.perform(owner, create), Done)
    removal = made.next_list(revoked=(key.device,)).signed
    assert removal is not None
    put = PutMembership(id=2, room=made.room, signed=encode(removal).decode())
    check = hub.desk.check_entry
    loop = asyncio.get_running_loop()

    def slow(device: Any, request: EnterRoom) -> Any:
        found = check(device, request)
        if hub._lists_changed == 0:
            told = asyncio.run_coroutine_threadsafe(hub.perform(owner, put), loop).result(60)
            assert isinstance(told, Done)
        return found

    monkeypatch.setattr(hub.desk, "check_entry", slow)
    enter = EnterRoom(
        id=3, room=made.room, chain=chain_to_texts(made.joined(key)), name="gpu", kind="worker"
    )
    told = await hub.perform(Visitor(connection="w", device=key.device), enter)
    assert isinstance(told, Refused)
    assert told.code == "not_trusted"
    assert hub.rooms.online(made.room) == ()
