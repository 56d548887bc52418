"""The signaling client, at a real server that also goes away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from websockets.asyncio.server import ServerConnection, serve

from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.domain.ids import RoomId
from sleap_rtc.domain.places import Presence, WorkerInfo
from sleap_rtc.domain.values import encode
from sleap_rtc.errors import (
    Conflict,
    DeadlineExceeded,
    LinkLost,
    NotFound,
    NotPermitted,
    NotSignedIn,
    NotTrusted,
    ProtocolError,
    ServerUnreachable,
    SleapRtcError,
    UsageError,
    VersionMismatch,
)
from sleap_rtc.net import sign_in, signaling
from sleap_rtc.net.address import ServerAddress
from sleap_rtc.net.events import Connected, Disconnected, RoomEntered, RoomLost
from sleap_rtc.net.signaling import SignalingClient
from sleap_rtc.protocol.signaling import (
    Absent,
    Challenge,
    Done,
    Entered,
    Present,
    Refused,
    Relayed,
    SignedIn,
    from_server,
)
from sleap_rtc.testing.lab import Lab
from sleap_rtc.testing.server import ServerProcess, running_server, server_settings

E = TypeVar("E")
STRANGER = SigningKey.from_seed(bytes([9]) * 32)


async def wait_for(client: SignalingClient, kind: type[E]) -> E:
    """The next event of a kind; earlier others are passed over."""
    async with asyncio.timeout(60):
        async for event in client.events():
            if isinstance(event, kind):
                return event
    pytest.fail("the events ended")


# ── signing in ───────────────────────────────────────────────────────────────


async def test_a_set_up_code_registers_a_device_for_good(lab: Lab) -> None:
    async with lab.client(lab.made.owner, setup_code=lab.setup_code) as client:
        connected = await client.start()
        assert connected.may_create_rooms
        assert client.connected == connected
    assert client.connected != connected
    async with lab.client(lab.made.owner) as client:
        assert (await client.start()).may_create_rooms


async def test_a_code_is_good_once(lab: Lab) -> None:
    async with lab.client(lab.made.owner, setup_code=lab.setup_code) as client:
        await client.start()
    async with lab.client(STRANGER, setup_code=lab.setup_code) as client:
        with pytest.raises(NotPermitted, match="set-up code"):
            await client.start()


async def test_an_unknown_device_is_told_how_to_sign_in(lab: Lab) -> None:
    async with lab.client(STRANGER) as client:
        with pytest.raises(NotSignedIn) as caught:
            await client.start(patient=True)
    assert "login" in caught.value.hint_text
    assert lab.address.dialled in caught.value.message


async def test_a_signature_by_another_key_is_refused(lab: Lab) -> None:
    async with lab.client(lab.made.owner, sign=STRANGER.sign) as client:
        with pytest.raises(NotTrusted, match="signature is wrong"):
            await client.start()


async def test_a_bad_name_is_refused(lab: Lab) -> None:
    async with lab.client(STRANGER, name="a b") as client:
        with pytest.raises(UsageError, match="'a b'"):
            await client.start()


async def test_a_client_starts_once(lab: Lab) -> None:
    async with lab.client(lab.made.owner, setup_code=lab.setup_code) as client:
        await client.start()
        with pytest.raises(RuntimeError):
            await client.start()


# ── rooms ────────────────────────────────────────────────────────────────────


async def test_devices_see_each_other_come_talk_and_go(lab: Lab) -> None:
    key = lab.made.key(10)
    async with lab.owner() as owner:
        async with lab.worker(key, name="gpu") as worker:
            present = (await wait_for(owner, Present)).presence
            assert (present.device, present.name, present.kind) == (key.device, "gpu", "worker")
            assert owner.present(lab.room) == (present,)
            (other,) = worker.present(lab.room)
            assert other.name == "laptop"
            info = WorkerInfo(jobs=3)
            await worker.update_worker(lab.room, info)
            assert (await wait_for(owner, Present)).presence.worker == info
            await owner.relay(lab.room, present.connection, "an offer")
            relayed = await wait_for(worker, Relayed)
            assert (relayed.payload, relayed.device) == ("an offer", lab.made.owner.device)
            await worker.relay(lab.room, relayed.sender, "an answer")
            assert (await wait_for(owner, Relayed)).sender == present.connection
            await worker.leave_room(lab.room)
            assert (await wait_for(owner, Absent)).connection == present.connection
            with pytest.raises(NotFound, match="not online"):
                await owner.relay(lab.room, present.connection, "too late")
            await worker.enter_room(lab.room, chain=lab.joined(key), name="gpu", kind="worker")
            again = (await wait_for(owner, Present)).presence
        assert (await wait_for(owner, Absent)).connection == again.connection
        assert owner.present(lab.room) == ()


async def test_rooms_are_apart(lab: Lab) -> None:
    other = Lab(lab.address, None, seed=1)
    async with lab.owner() as owner, lab.worker(lab.made.key(10)) as worker:
        assert worker.connected is not None
        # One device may own both rooms; a device in one of them still can't reach the other.
        chain = other.owner_chain
        async with lab.client(other.made.owner) as stranger:
            with pytest.raises(NotSignedIn):
                await stranger.start()
        with pytest.raises(NotTrusted, match="another device"):
            await owner.create_room(other.room, name="x", chain=chain)
        with pytest.raises(NotTrusted, match="doesn't begin with the key"):
            await owner.create_room(other.room, name="x", chain=lab.owner_chain)
        with pytest.raises(NotFound, match="not online"):
            await owner.relay(other.room, worker.connected.connection, "x")
        with pytest.raises(NotFound, match="not online"):
            await owner.get_membership(other.room)


async def test_only_devices_with_a_code_create_rooms(lab: Lab) -> None:
    async with lab.owner(), lab.worker(lab.made.key(10)) as worker:
        assert worker.connected is not None
        assert not worker.connected.may_create_rooms
        with pytest.raises(NotPermitted, match="may not create rooms"):
            await worker.create_room(lab.room, name="x", chain=lab.joined(lab.made.key(10)))


async def test_only_an_owner_makes_a_room_known(lab: Lab) -> None:
    key = lab.made.key(10)
    async with lab.client(key, setup_code=lab.setup_code) as client:
        await client.start()
        with pytest.raises(NotPermitted, match="Only an owner"):
            await client.create_room(lab.room, name="x", chain=lab.joined(key))


async def test_an_invite_is_used_once_whatever_way_is_taken(lab: Lab) -> None:
    first, second = lab.made.key(10), lab.made.key(11)
    async with lab.owner():
        async with lab.worker(first) as worker:
            await worker.join_room(lab.room, chain=lab.joined(first))
        async with lab.client(first) as again:
            await again.start()
            await again.join_room(lab.room, chain=lab.joined(first))
        async with lab.client(second, invite=lab.joined(second)) as late:
            with pytest.raises(NotTrusted, match="used up"):
                await late.start()
        async with lab.client(second, invite=lab.joined(second, 101)) as late:
            await late.start()
            with pytest.raises(NotTrusted, match="used up"):
                await late.join_room(lab.room, chain=lab.joined(second))
            with pytest.raises(NotTrusted, match="used up"):
                await late.enter_room(lab.room, chain=lab.joined(second), name="x", kind="client")


async def test_two_workers_of_one_name_are_both_named(lab: Lab) -> None:
    one, two = lab.made.key(10), lab.made.key(11)
    async with lab.owner(), lab.worker(one, name="gpu"), lab.worker(two, name="x", once=101) as w:
        with pytest.raises(Conflict) as caught:
            await w.enter_room(lab.room, chain=lab.joined(two, 101), name="GPU", kind="worker")
    assert one.device[:12] in caught.value.message
    assert two.device[:12] in caught.value.message


async def test_a_viewer_is_no_worker(lab: Lab) -> None:
    key = lab.made.key(10)
    chain = lab.joined(key, role="viewer")
    async with lab.owner(), lab.client(key, invite=chain) as client:
        await client.start()
        with pytest.raises(NotPermitted, match="viewer"):
            await client.enter_room(lab.room, chain=chain, name="x", kind="worker")
        await client.enter_room(lab.room, chain=chain, name="x", kind="client")


async def test_membership_lists_are_kept_and_never_go_back(lab: Lab) -> None:
    made = lab.made
    key = made.key(10)
    first = made.next_list()
    second = made.next_list(first, revoked=(key.device,))
    assert first.signed is not None
    assert second.signed is not None
    async with lab.owner() as owner, lab.worker(key) as worker:
        assert await owner.get_membership(lab.room) is None
        await owner.put_membership(lab.room, encode(first.signed).decode())
        assert await worker.get_membership(lab.room) == encode(first.signed).decode()
        # Anybody may bring a newer list: what counts is who signed it.
        await worker.put_membership(lab.room, encode(second.signed).decode())
        lost = await wait_for(worker, RoomLost)
        assert lost.room == lab.room
        assert "removed" in lost.error.message
        assert worker.present(lab.room) == ()
        await wait_for(owner, Absent)
        with pytest.raises(NotTrusted, match="never go back"):
            await owner.put_membership(lab.room, encode(first.signed).decode())
        with pytest.raises(NotTrusted, match="removed"):
            await worker.enter_room(lab.room, chain=lab.joined(key), name="gpu", kind="worker")
        assert await owner.get_membership(lab.room) == encode(second.signed).decode()


async def test_requests_that_can_never_fit_are_refused_here(lab: Lab) -> None:
    async with lab.owner() as owner:
        with pytest.raises(UsageError, match="too large"):
            await owner.relay(lab.room, "x", '"' * 48 * 1024)
        # What just fits on the way in may not on the way out; the connection lives on.
        with pytest.raises((UsageError, NotFound)):
            await owner.relay(lab.room, "x", '"' * 32_600)
        assert await owner.get_membership(lab.room) is None


# ── coming back ──────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("end", ["terminate", "kill"])
async def test_a_restarted_server_finds_everybody_again(tmp_path: Path, end: str) -> None:
    with ServerProcess(tmp_path / "data") as process:
        lab = Lab(process.address, process.setup_code)
        async with lab.owner() as owner, lab.worker(lab.made.key(10)) as worker:
            await worker.update_worker(lab.room, WorkerInfo(jobs=7))
            code = await asyncio.to_thread(getattr(process, end))
            assert code == (0 if end == "terminate" else -9)
            lost = await wait_for(owner, Disconnected)
            assert isinstance(lost.error, LinkLost)
            if end == "terminate":
                assert "restarts" in lost.error.message
            assert owner.present(lab.room) == ()
            with pytest.raises(ServerUnreachable):
                await owner.get_membership(lab.room, within=0.2)
            await asyncio.to_thread(process.start)
            assert process.setup_code is None
            for client in (owner, worker):
                await wait_for(client, Connected)
                assert (await wait_for(client, RoomEntered)).room == lab.room
            async with asyncio.timeout(60):
                while not owner.present(lab.room):
                    await wait_for(owner, Present)
            (there,) = owner.present(lab.room)
            assert there.worker == WorkerInfo(jobs=7)
            await owner.relay(lab.room, there.connection, "still here")
            assert (await wait_for(worker, Relayed)).payload == "still here"


@pytest.mark.slow
@pytest.mark.usefixtures("no_waiting")
async def test_a_patient_client_waits_for_a_server(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as process:
        lab = Lab(process.address, process.setup_code)
        await asyncio.to_thread(process.terminate)
        async with lab.client(lab.made.owner, setup_code=lab.setup_code) as client:
            with pytest.raises(ServerUnreachable, match="nothing listens"):
                await client.start()
            starting = asyncio.create_task(client.start(patient=True))
            await asyncio.to_thread(process.start)
            # The first code was never used, so the server has made another: that ends all waiting.
            with pytest.raises(NotPermitted, match="set-up code"):
                await asyncio.wait_for(starting, 60)


class Cable:
    """A TCP relay that can be pulled out at the device's end; the server doesn't notice."""

    def __init__(self) -> None:
        self.target = 0
        self.port = 0
        self._device_ends: list[asyncio.StreamWriter] = []
        self._ends: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def laid(self) -> AsyncIterator[Cable]:
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for writer in self._ends:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
            await server.wait_closed()

    def pull(self) -> None:
        for writer in self._device_ends:
            writer.transport.abort()
        self._device_ends.clear()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        self._device_ends.append(writer)
        self._ends += [writer, back]
        for source, sink in ((reader, back), (there, writer)):
            self._tasks.add(asyncio.create_task(self._pump(source, sink)))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        # When the device's end goes, the server's socket stays open.
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                sink.write(data)
        if sink in self._device_ends:
            sink.close()


@pytest.mark.slow
@pytest.mark.usefixtures("no_waiting")
async def test_who_lost_the_cable_takes_its_own_place_again(tmp_path: Path) -> None:
    async with Cable().laid() as cable:
        url = f"http://127.0.0.1:{cable.port}"
        settings = server_settings(tmp_path / "data", server_public_urls=(url,))
        async with running_server(settings) as server:
            cable.target = server.info.port
            lab = Lab(
                ServerAddress(host="127.0.0.1", port=cable.port, secure=False),
                server.info.setup_code,
            )
            async with lab.owner() as owner, lab.worker(lab.made.key(10)) as worker:
                cable.pull()
                for client in (owner, worker):
                    await wait_for(client, Disconnected)
                    await wait_for(client, RoomEntered)
                assert worker.connected is not None
                # The server still counts the dead ones as online, but of workers there is one.
                workers = [p for p in owner.present(lab.room) if p.kind == "worker"]
                if not workers or workers[0].connection != worker.connected.connection:
                    present = await wait_for(owner, Present)
                    assert present.presence.connection == worker.connected.connection


@pytest.mark.usefixtures("no_waiting")
async def test_a_machine_that_lost_its_address_signs_in_from_the_new_one(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signaling, "LOOK_S", 0.01)
    gone = False
    monkeypatch.setattr(signaling.WebSocket, "uprooted", property(lambda _: gone))
    async with lab.owner() as owner:
        before = owner.connected
        gone = True
        await wait_for(owner, Disconnected)
        gone = False
        await wait_for(owner, RoomEntered)
        assert before is not None
        assert owner.connected is not None
        assert owner.connected.connection != before.connection


@pytest.mark.slow
@pytest.mark.usefixtures("no_waiting")
async def test_events_that_nobody_reads_do_not_fill_memory(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signaling, "MAX_EVENTS", 10)
    async with lab.owner() as owner, lab.worker(lab.made.key(10)) as worker:
        for jobs in range(30):
            await worker.update_worker(lab.room, WorkerInfo(jobs=jobs))
        lost = await wait_for(owner, Disconnected)
        assert "too many events" in lost.error.message


# ── servers that break the protocol ──────────────────────────────────────────

Script = Callable[[ServerConnection], Awaitable[None]]


@contextlib.asynccontextmanager
async def odd_server(script: Script) -> AsyncIterator[ServerAddress]:
    async with serve(script, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield ServerAddress(host="127.0.0.1", port=port, secure=False)


def saying(*messages: Any) -> Script:
    async def script(peer: ServerConnection) -> None:
        for message in messages:
            if isinstance(message, (str, bytes)):
                await peer.send(message)
            else:
                await peer.send(from_server.encode(message), text=True)
        await peer.wait_closed()

    return script


CHALLENGE = Challenge(nonce="ab" * 32, versions=(1,))
WELCOME = SignedIn(version=1, connection="c")


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (saying("garbage"), ServerUnreachable),
        (saying(b"\xff\xff"), ServerUnreachable),
        (saying(Done(id=1)), ServerUnreachable),
        (saying(WELCOME), ServerUnreachable),
        (saying(CHALLENGE, CHALLENGE), ProtocolError),
        (saying(Challenge(nonce="ab" * 32, versions=(2, 3))), VersionMismatch),
        (saying(CHALLENGE, Refused.because(NotTrusted(who="It", why="no"))), NotTrusted),
        (saying(CHALLENGE), DeadlineExceeded),
        (saying(), DeadlineExceeded),
    ],
)
async def test_what_is_no_sign_in(
    script: Script, error: type[SleapRtcError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_in, "DEADLINE", 0.2)
    async with odd_server(script) as address:
        client = SignalingClient(
            address, device=STRANGER.device, sign=STRANGER.sign, name="x", setup_code="CODE"
        )
        async with client:
            with pytest.raises(error) as caught:
                await client.start()
    if error in (ServerUnreachable, DeadlineExceeded):  # it may be no server of ours at all
        assert address.url in caught.value.message
        assert "Check the address" in caught.value.hint_text


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize(
    "after",
    [CHALLENGE, WELCOME, "garbage", Refused.because(NotPermitted(message="go away"))],
)
async def test_a_server_that_goes_wrong_later_is_left_and_tried_again(after: Any) -> None:
    async with odd_server(saying(CHALLENGE, WELCOME, after)) as address:
        client = SignalingClient(address, device=STRANGER.device, sign=STRANGER.sign, name="x")
        async with client:
            await client.start()
            await wait_for(client, Disconnected)
            await wait_for(client, Connected)


async def test_answers_to_nobody_are_passed_over_and_silence_has_a_deadline() -> None:
    async with odd_server(saying(CHALLENGE, WELCOME, Done(id=99), Done(id=1))) as address:
        client = SignalingClient(address, device=STRANGER.device, sign=STRANGER.sign, name="x")
        async with client:
            await client.start()
            room = RoomId("a" * 32)
            with pytest.raises(DeadlineExceeded, match="leave_room"):
                await client.leave_room(room, within=0.1)
            assert client.connected is not None


async def test_an_answer_of_the_wrong_kind_is_an_error() -> None:
    async def script(peer: ServerConnection) -> None:
        await peer.send(from_server.encode(CHALLENGE), text=True)
        await peer.recv()
        await peer.send(from_server.encode(WELCOME), text=True)
        await peer.recv()
        await peer.send(from_server.encode(Done(id=1)), text=True)
        await peer.wait_closed()

    async with odd_server(script) as address:
        client = SignalingClient(address, device=STRANGER.device, sign=STRANGER.sign, name="x")
        async with client:
            await client.start()
            with pytest.raises(ProtocolError, match="another question"):
                await client.get_membership(RoomId("a" * 32))


def _present(number: int, room: str) -> Present:
    return Present(
        presence=Presence(
            device=STRANGER.device,
            connection=f"c{number}",
            room=RoomId(room),
            name="gpu",
            kind="worker",
        )
    )


@pytest.mark.usefixtures("no_waiting")
async def test_a_server_fills_no_memory_with_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rooms that this device isn't in are nothing to it, and those that it is in have an end."""
    monkeypatch.setattr(signaling, "MAX_PRESENT", 3)
    room, other = "a" * 32, "b" * 32

    async def script(peer: ServerConnection) -> None:
        await peer.send(from_server.encode(CHALLENGE), text=True)
        await peer.recv()
        await peer.send(from_server.encode(WELCOME), text=True)
        for number in range(9):
            await peer.send(from_server.encode(_present(number, other)), text=True)
        await peer.recv()
        await peer.send(from_server.encode(Entered(id=1)), text=True)
        for number in range(4):
            await peer.send(from_server.encode(_present(number, room)), text=True)
        await peer.wait_closed()

    async with odd_server(script) as address:
        client = SignalingClient(address, device=STRANGER.device, sign=STRANGER.sign, name="x")
        async with client:
            await client.start()
            await client.enter_room(RoomId(room), chain=("x",), name="x", kind="client")
            lost = await wait_for(client, Disconnected)
            assert "more than 3 devices" in lost.error.message
            assert client.present(RoomId(other)) == ()
