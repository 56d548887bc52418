"""A whole server, spoken to by raw WebSockets and plain HTTP: what it does to bad guests."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import http.client
import ipaddress
import json
import signal
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.errors import Busy, InvalidConfig, ServerUnreachable
from sleap_rtc.net.address import ServerAddress
from sleap_rtc.protocol.signaling import (
    PATH,
    SIGN_IN_CONTEXT,
    FromServer,
    Refused,
    SignedIn,
    SignIn,
    from_device,
    from_server,
    sign_in_payload,
)
from sleap_rtc.server.app import ServerInfo, new_code, run_server, serve
from sleap_rtc.testing.lab import Lab
from sleap_rtc.testing.server import LoopServer, ServerProcess, running_server, server_settings

KEY = SigningKey.from_seed(bytes([5]) * 32)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LoopServer]:
    async with running_server(server_settings(tmp_path / "data")) as found:
        yield found


def dial(address: ServerAddress, path: str = PATH) -> connect:
    return connect(address.websocket_url + path, compression=None, proxy=None, close_timeout=1)


async def hear(peer: ClientConnection) -> FromServer:
    async with asyncio.timeout(60):
        return from_server.decode(await peer.recv(), peer="the server")


async def refusal(peer: ClientConnection) -> Refused:
    """The server's last words, after which it closes the connection for the same reason."""
    told = await hear(peer)
    assert isinstance(told, Refused)
    with pytest.raises(ConnectionClosed) as caught:
        await hear(peer)
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1008, told.code)
    return told


def signed(nonce: str, dialled: str, **changes: Any) -> SignIn:
    payload = sign_in_payload(nonce=nonce, server=dialled, device=KEY.device)
    given: dict[str, Any] = {
        "version": 1,
        "device": KEY.device,
        "signature": KEY.sign(SIGN_IN_CONTEXT, payload).hex(),
        "name": "box",
    }
    return SignIn(**(given | changes))


async def challenged(peer: ClientConnection) -> str:
    challenge = await hear(peer)
    return str(getattr(challenge, "nonce", ""))


async def lives(server: LoopServer) -> None:
    """The server still takes guests."""
    async with dial(server.address) as peer:
        assert len(await challenged(peer)) == 64


async def get(server: ServerAddress, path: str, method: str = "GET") -> tuple[int, Any, bytes]:
    def ask() -> tuple[int, Any, bytes]:
        connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.headers, response.read()

    return await asyncio.to_thread(ask)


# ── signing in ───────────────────────────────────────────────────────────────


async def test_a_replayed_sign_in_is_refused(server: LoopServer) -> None:
    code = server.info.setup_code
    async with dial(server.address) as first:
        sign_in = signed(await challenged(first), server.address.dialled, setup_code=code)
        await first.send(from_device.encode(sign_in), text=True)
        assert isinstance(await hear(first), SignedIn)
        async with dial(server.address) as second:
            await challenged(second)
            await second.send(from_device.encode(sign_in), text=True)
            told = await refusal(second)
    assert told.code == "not_trusted"
    assert "signature is wrong" in told.message


async def test_a_signature_for_another_server_is_refused(server: LoopServer) -> None:
    async with dial(server.address) as peer:
        sign_in = signed(await challenged(peer), "lab.org:443")
        await peer.send(from_device.encode(sign_in), text=True)
        assert "signature is wrong" in (await refusal(peer)).message


async def test_a_host_that_is_not_the_servers_is_named(server: LoopServer) -> None:
    address = server.address
    async with connect(
        f"ws://lab.org:80{PATH}",
        compression=None,
        proxy=None,
        host=address.host,
        port=address.port,
    ) as peer:
        sign_in = signed(await challenged(peer), "lab.org:80")
        await peer.send(from_device.encode(sign_in), text=True)
        told = await refusal(peer)
    assert "lab.org:80" in told.message
    assert address.dialled in told.message
    assert "--public-url" in told.hint


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_every_name_of_loopback_is_answered_to(server: LoopServer, host: str) -> None:
    address = ServerAddress(host=host, port=server.info.port, secure=False)
    lab = Lab(address, server.info.setup_code)
    async with lab.client(KEY, setup_code=server.info.setup_code) as client:
        assert (await client.start()).may_create_rooms


@pytest.mark.parametrize(
    ("frame", "code", "part"),
    [
        ("garbage", "protocol", "not JSON"),
        ("[" * 60_000, "protocol", "not JSON"),
        ('{"type":"sign_in"}', "protocol", "bad message"),
        ('{"type":"shout"}', "protocol", "'shout'"),
        (b"\x00\xff", "protocol", "binary"),
        ('{"type":"leave_room","id":1,"room":"' + "a" * 32 + '"}', "not_signed_in", ""),
    ],
)
async def test_garbage_ends_the_connection_and_not_the_server(
    server: LoopServer, frame: str | bytes, code: str, part: str
) -> None:
    async with dial(server.address) as peer:
        await challenged(peer)
        await peer.send(frame)
        told = await refusal(peer)
    assert told.code == code
    assert part in told.message
    await lives(server)


async def test_a_frame_that_is_too_large_ends_the_connection(server: LoopServer) -> None:
    async with dial(server.address) as peer:
        await challenged(peer)
        await peer.send("x" * 70_000)
        with pytest.raises(ConnectionClosed) as caught:
            await hear(peer)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009
    await lives(server)


async def test_bytes_that_are_no_websocket(server: LoopServer) -> None:
    for data in (b"\x00" * 1_000, b"GET / HTTP/1.1\r\n\r\n" * 50, b"\x16\x03\x01\x02\x00"):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.info.port)
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(60):
            with contextlib.suppress(ConnectionError):
                await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    await lives(server)


async def test_another_path_is_no_websocket(server: LoopServer) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with dial(server.address, "/other"):
            pass
    assert caught.value.response.status_code == 403


# ── HTTP ─────────────────────────────────────────────────────────────────────


async def test_health_and_readiness(server: LoopServer) -> None:
    for path in ("/healthz", "/readyz"):
        status, headers, body = await get(server.address, path)
        assert (status, json.loads(body)) == (200, {"status": "ok"})
        assert headers["content-type"] == "application/json"
        assert headers["cache-control"] == "no-store"
    assert (await get(server.address, "/healthz", "HEAD"))[2] == b""


async def test_a_database_that_cannot_be_read_is_not_ready(
    server: LoopServer, tmp_path: Path
) -> None:
    for file in (tmp_path / "data").glob("server.sqlite3*"):
        file.write_bytes(b"\xff" * 10_000)
    status, _, body = await get(server.address, "/readyz")
    assert status == 503
    assert "database" in json.loads(body)["error"]["message"]
    assert (await get(server.address, "/healthz"))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("GET", PATH, 404, "not_found"),
        ("POST", "/healthz", 405, "usage"),
    ],
)
async def test_errors_have_one_shape(
    server: LoopServer, method: str, path: str, status: int, code: str
) -> None:
    found, _, body = await get(server.address, path, method)
    assert found == status
    error = json.loads(body)["error"]
    assert error["code"] == code
    assert set(error) == {"code", "message", "hint"}


async def test_metrics_count_what_happens_and_name_nobody(server: LoopServer) -> None:
    lab = Lab(server.address, server.info.setup_code)
    async with lab.owner() as owner:
        with contextlib.suppress(Exception):
            await owner.relay(lab.room, "nobody", "x")
        _, headers, body = await get(server.address, "/metrics")
    text = body.decode()
    assert headers["content-type"].startswith("text/plain")
    for line in (
        "sleap_rtc_connections 1.0",
        "sleap_rtc_signed_in 1.0",
        "sleap_rtc_rooms_online 1.0",
        "sleap_rtc_presences 1.0",
        'sleap_rtc_sign_ins_total{outcome="ok"} 1.0',
        'sleap_rtc_requests_total{kind="enter_room",outcome="ok"} 1.0',
        'sleap_rtc_requests_total{kind="relay",outcome="not_found"} 1.0',
    ):
        assert line in text
    assert lab.room not in text
    assert lab.made.owner.device not in text


# ── starting and ending ──────────────────────────────────────────────────────


async def test_two_servers_cannot_share_a_folder_or_a_port(
    server: LoopServer, tmp_path: Path
) -> None:
    with pytest.raises(Busy, match="data"):
        async with running_server(server_settings(tmp_path / "data")):
            pass
    elsewhere = server_settings(tmp_path / "other", server_port=server.info.port)
    with pytest.raises(Busy, match=f"Port {server.info.port}"):
        async with running_server(elsewhere):
            pass


async def test_beyond_loopback_it_does_not_start_without_tls(tmp_path: Path) -> None:
    settings = server_settings(tmp_path / "data", server_host="0.0.0.0")
    with pytest.raises(InvalidConfig, match="without TLS"):
        await serve(settings, on_ready=lambda _: None, stop=asyncio.Event())
    assert not (tmp_path / "data").exists()
    trusted = server_settings(tmp_path / "data", server_host="0.0.0.0", insecure=True)
    async with running_server(trusted) as found:
        assert found.info.warning is not None
        status, _, _ = await get(
            ServerAddress(host="127.0.0.1", port=found.info.port, secure=False), "/healthz"
        )
        assert status == 200


async def test_codes_can_be_made_while_it_runs(server: LoopServer, tmp_path: Path) -> None:
    settings = server_settings(tmp_path / "data")
    code = await asyncio.to_thread(new_code, settings)
    assert code != server.info.setup_code
    lab = Lab(server.address, code)
    async with lab.client(KEY, setup_code=code) as client:
        assert (await client.start()).may_create_rooms
    with pytest.raises(InvalidConfig, match="--data-dir"):
        new_code(server_settings(tmp_path / "nowhere"))


async def test_the_set_up_code_is_in_no_repr(server: LoopServer) -> None:
    assert server.info.setup_code is not None
    assert server.info.setup_code not in repr(server.info)


def test_its_folder_is_private(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data"):
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


async def test_stun_is_told_and_answered_where_there_is_a_way_out(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = server_settings(
        tmp_path / "data",
        server_stun_port=port,
        server_public_urls=("https://lab.org",),
        ice_servers=({"urls": ["turn:turn.lab.org"], "username": "u", "credential": "c"},),
    )
    async with running_server(settings) as server:
        assert server.info.stun_port == port
        address = ServerAddress(host="127.0.0.1", port=server.info.port, secure=False)
        lab = Lab(address, server.info.setup_code)
        async with lab.client(KEY, setup_code=server.info.setup_code) as client:
            told = (await client.start()).ice_servers
    assert [server.urls for server in told] == [
        (f"stun:lab.org:{port}",),
        ("turn:turn.lab.org",),
    ]
    assert told[1].credential == "c"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_tells_everybody_and_ends_with_0(
    tmp_path: Path, number: signal.Signals
) -> None:
    with ServerProcess(tmp_path / "data") as process:
        async with dial(process.address) as signed_in, dial(process.address) as pending:
            nonce = await challenged(signed_in)
            code = process.setup_code
            sign_in = signed(nonce, process.address.dialled, setup_code=code)
            await signed_in.send(from_device.encode(sign_in), text=True)
            assert isinstance(await hear(signed_in), SignedIn)
            await challenged(pending)
            began = asyncio.get_running_loop().time()
            ending = asyncio.create_task(asyncio.to_thread(process.end, number))
            for peer in (signed_in, pending):
                with pytest.raises(ConnectionClosed) as caught:
                    await hear(peer)
                assert caught.value.rcvd is not None
                assert caught.value.rcvd.code == 1012
            assert await ending == 0
            assert asyncio.get_running_loop().time() - began < 10


@pytest.mark.slow
async def test_a_guest_who_does_not_listen_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as process:
        reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
        writer.write(b"GET /healthz HTTP/1.1\r\n")  # and never the rest
        await writer.drain()
        assert await asyncio.to_thread(process.terminate) == 0
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        assert isinstance(reader, asyncio.StreamReader)


@pytest.mark.slow
async def test_500_idle_sockets(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as process:
        lab = Lab(process.address, process.setup_code)
        async with contextlib.AsyncExitStack() as stack:
            owner = await stack.enter_async_context(lab.owner())
            before = _memory(process.pid)
            devices = [lab.made.key(10 + number) for number in range(10)]
            chains = {key.device: lab.joined(key, uses=10) for key in devices}
            clients = [
                lab.client(key, invite=chains[key.device]) for _ in range(50) for key in devices
            ]
            for begin in range(0, 500, 50):
                batch = clients[begin : begin + 50]
                for client in batch:
                    await stack.enter_async_context(client)
                await asyncio.gather(*(client.start() for client in batch))
            used = (_memory(process.pid) - before) / 500
            assert used < 60 * 1024, f"{used / 1024:.0f} KiB for each connection"
            await owner.get_membership(lab.room, within=5)
            assert all(client.connected is not None for client in clients)


def _memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    pytest.skip("no /proc on this system")


# ── TLS ──────────────────────────────────────────────────────────────────────


def make_certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = folder / "cert.pem", folder / "key.pem"
    cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_path, key_path


async def test_tls_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = make_certificate(tmp_path)
    settings = server_settings(tmp_path / "data", server_tls_cert=cert, server_tls_key=key)
    async with running_server(settings) as server:
        assert server.info.url == f"https://127.0.0.1:{server.info.port}"
        lab = Lab(server.address, server.info.setup_code)
        async with lab.client(KEY, setup_code=server.info.setup_code) as client:
            with pytest.raises(ServerUnreachable, match="not trusted"):
                await client.start()
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        async with lab.client(KEY, setup_code=server.info.setup_code) as client:
            assert (await client.start()).may_create_rooms


async def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    pem = tmp_path / "x.pem"
    pem.write_text("nothing")
    settings = server_settings(tmp_path / "data", server_tls_cert=pem, server_tls_key=pem)
    with pytest.raises(InvalidConfig, match="--tls-cert"):
        await serve(settings, on_ready=lambda _: None, stop=asyncio.Event())


def test_run_server_ends_when_it_cannot_begin(tmp_path: Path) -> None:
    told: list[ServerInfo] = []
    settings = server_settings(tmp_path / "data", server_host="nowhere.invalid", insecure=True)
    with pytest.raises(InvalidConfig, match="nowhere"):
        run_server(settings, on_ready=told.append)
    assert told == []
