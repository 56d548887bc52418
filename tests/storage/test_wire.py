"""Requests over real sockets: what breaks, what is refused, and what is used again."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from sleap_rtc.errors import Cancelled, DataError, StorageRefused, StorageUnreachable
from sleap_rtc.storage.objects import SignedRequest
from sleap_rtc.storage.wire import Connections, FileSlice

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Peer:
    """Accepts connections and does with each what it is told."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.accepted = 0
        self.hung_up = threading.Semaphore(0)
        self.threads: list[threading.Thread] = []

    def serve(self, *turns: Callable[[socket.socket], None]) -> None:
        def run() -> None:
            for turn in turns:
                connection, _ = self.listener.accept()
                self.accepted += 1
                with connection:
                    turn(connection)
                self.hung_up.release()

        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()

    def request(self, method: str = "GET", scheme: str = "http") -> SignedRequest:
        port = self.listener.getsockname()[1]
        return SignedRequest(method, f"{scheme}://127.0.0.1:{port}/a?b=c", {}, datetime.now(UTC))


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    for thread in made.threads:
        thread.join(60)
    made.listener.close()


@pytest.fixture
def connections() -> Iterator[Connections]:
    made = Connections(timeout=60)
    yield made
    made.close()


@pytest.fixture
def hasty() -> Iterator[Connections]:
    """They take half a second of silence for a lost connection."""
    made = Connections(timeout=0.5)
    yield made
    made.close()


def read_head(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    return data


def answer(connection: socket.socket, data: bytes = OK) -> None:
    read_head(connection)
    connection.sendall(data)


def test_a_connection_is_used_again(peer: Peer, connections: Connections) -> None:
    def twice(connection: socket.socket) -> None:
        answer(connection)
        answer(connection)

    peer.serve(twice)
    assert connections.send(peer.request()).body == b"ok"
    assert connections.send(peer.request()).body == b"ok"
    assert peer.accepted == 1


def test_every_method_leaves_the_connection_ready(peer: Peer, connections: Connections) -> None:
    heads: list[bytes] = []

    def several(connection: socket.socket) -> None:
        for said in (b"HTTP/1.1 204 No\r\n\r\n", OK.removesuffix(b"ok"), OK, OK):
            heads.append(read_head(connection))
            connection.sendall(said)

    peer.serve(several)
    assert connections.send(peer.request("DELETE")).status == 204
    assert connections.send(peer.request("HEAD")).headers["content-length"] == "2"
    assert connections.send(peer.request("POST"), b"12").body == b"ok"
    assert connections.send(peer.request("PUT"), headers={"If-None-Match": "*"}).body == b"ok"
    assert peer.accepted == 1
    port = peer.listener.getsockname()[1]
    host = f"host: 127.0.0.1:{port}"
    assert [head.decode().split("\r\n") for head in heads] == [
        ["DELETE /a?b=c HTTP/1.1", host, "", ""],
        ["HEAD /a?b=c HTTP/1.1", host, "", ""],
        ["POST /a?b=c HTTP/1.1", host, "content-length: 2", "", "12"],
        ["PUT /a?b=c HTTP/1.1", host, "if-none-match: *", "content-length: 0", "", ""],
    ]


def test_a_connection_that_was_closed_meanwhile_is_made_anew(
    peer: Peer, connections: Connections
) -> None:
    peer.serve(answer, answer)
    assert connections.send(peer.request()).ok
    assert peer.hung_up.acquire(timeout=60)
    assert connections.send(peer.request()).ok
    assert peer.accepted == 2


@pytest.mark.parametrize(
    "said",
    [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", b"rubbish\r\n\r\n", b"HTTP/1.1 x\r\n"],
)
def test_half_an_answer_is_none(peer: Peer, connections: Connections, said: bytes) -> None:
    peer.serve(lambda connection: answer(connection, said))
    with pytest.raises(StorageUnreachable):
        connections.send(peer.request())


def test_silence_ends_in_time(peer: Peer, hasty: Connections) -> None:
    done = threading.Event()

    def silent(connection: socket.socket) -> None:
        read_head(connection)
        done.wait(60)

    peer.serve(silent)
    with pytest.raises(StorageUnreachable, match="timed out"):
        hasty.send(peer.request())
    done.set()


def test_a_store_that_takes_no_bytes_ends_in_time(
    peer: Peer, hasty: Connections, big_file: Path
) -> None:
    done = threading.Event()
    peer.serve(lambda _connection: done.wait(60) and None)
    fd = os.open(big_file, os.O_RDONLY)
    with pytest.raises(StorageUnreachable, match="no more bytes"):
        hasty.send(peer.request("PUT"), FileSlice(fd=fd, offset=0, size=12 << 20))
    done.set()
    os.close(fd)


def test_what_is_said_before_hanging_up_is_heard(
    peer: Peer, connections: Connections, big_file: Path
) -> None:
    def refuse(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 403 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):
            pass

    peer.serve(refuse)
    fd = os.open(big_file, os.O_RDONLY)
    answered = connections.send(peer.request("PUT"), FileSlice(fd=fd, offset=0, size=12 << 20))
    os.close(fd)
    assert answered.status == 403


def test_a_file_that_became_shorter(peer: Peer, connections: Connections, tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"123")
    peer.serve(lambda connection: connection.recv(65536) and None)
    fd = os.open(path, os.O_RDONLY)
    with pytest.raises(StorageUnreachable, match="shorter"):
        connections.send(peer.request("PUT"), FileSlice(fd=fd, offset=0, size=5))
    os.close(fd)


def test_who_paces_may_end_it(peer: Peer, connections: Connections) -> None:
    def stop(size: int) -> None:
        assert size == 5
        raise Cancelled(what="It")

    peer.serve(lambda connection: connection.recv(65536) and None)
    with pytest.raises(Cancelled):
        connections.send(peer.request("PUT"), b"12345", pace=stop)


def test_what_a_slow_peer_takes_in_bits_is_paced_once(
    peer: Peer, connections: Connections, tmp_path: Path
) -> None:
    size = (9 << 20) + 5
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    peer.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)

    def read_all(connection: socket.socket) -> None:
        left = size - len(read_head(connection).partition(b"\r\n\r\n")[2])
        while left > 0:
            left -= len(connection.recv(65_536))
        connection.sendall(OK)

    peer.serve(read_all)
    paced: list[int] = []
    fd = os.open(path, os.O_RDONLY)
    whole = FileSlice(fd=fd, offset=0, size=size)
    assert connections.send(peer.request("PUT"), whole, pace=paced.append).ok
    os.close(fd)
    assert paced == [4 << 20, 4 << 20, (1 << 20) + 5]


def test_a_socket_of_any_number_is_waited_for(
    peer: Peer, connections: Connections, big_file: Path
) -> None:
    size = 12 << 20

    def read_all(connection: socket.socket) -> None:
        left = size - len(read_head(connection).partition(b"\r\n\r\n")[2])
        while left > 0:
            left -= len(connection.recv(65_536))
        connection.sendall(OK)

    peer.serve(read_all)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4_096)), hard))
    with contextlib.ExitStack() as many:
        many.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        fd = os.open(big_file, os.O_RDONLY)
        many.callback(os.close, fd)
        for _ in range(1_024):
            many.callback(os.close, os.dup(fd))
        assert connections.send(peer.request("PUT"), FileSlice(fd=fd, offset=0, size=size)).ok


def test_an_answer_that_is_too_long(peer: Peer, connections: Connections) -> None:
    peer.serve(answer)
    with pytest.raises(DataError, match="more than 1 bytes"):
        connections.send(peer.request(), limit=1)


def test_nobody_there(connections: Connections) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    gone = SignedRequest("GET", f"http://127.0.0.1:{port}/", {}, datetime.now(UTC))
    with pytest.raises(StorageUnreachable, match="refused"):
        connections.send(gone)


@pytest.mark.parametrize("host", ["a..b", "a" * 64])
def test_what_is_no_name_of_a_host(connections: Connections, host: str) -> None:
    with pytest.raises(StorageUnreachable):
        connections.send(SignedRequest("GET", f"http://{host}/", {}, datetime.now(UTC)))


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "http://",
        "ftp://a/b",
        "http://u:p@a/b",
        "http://[a/b",
        "http://127.0.0.1:port/",
        "http://127.0.0.1:99999/",
    ],
)
def test_what_is_no_address_of_a_store(connections: Connections, url: str) -> None:
    with pytest.raises(StorageRefused):
        connections.send(SignedRequest("GET", url, {}, datetime.now(UTC)))


def test_a_redirect_is_not_followed(peer: Peer, connections: Connections) -> None:
    said = b"HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
    peer.serve(lambda connection: answer(connection, said))
    assert connections.send(peer.request()).status == 307


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GET", "/a b", {}),
        ("GET", "/a\nb", {}),
        ("PUT", "/", {"x-amz-a": "b\r\nx: y"}),
        ("PUT", "/", {"a b": "c"}),
        ("PUT / HTTP/1.1\r\nx: y\r\n\r\nGET", "/", {}),
        ("put", "/", {}),
    ],
)
def test_what_somebody_told_us_can_t_become_two_requests(
    peer: Peer, connections: Connections, method: str, target: str, headers: dict[str, str]
) -> None:
    got: list[bytes] = []
    peer.serve(lambda connection: got.append(connection.recv(65_536)))
    url = peer.request().url.replace("/a?b=c", target)
    # Some characters never get as far: urlsplit drops line feeds, and then it is another target.
    with pytest.raises((StorageRefused, StorageUnreachable)):
        connections.send(SignedRequest(method, url, headers, datetime.now(UTC)))
    peer.threads[-1].join(10)
    assert got == [b""] or got[0].startswith(b"GET /ab HTTP/1.1\r\n")


def test_tls_is_checked(peer: Peer, connections: Connections) -> None:
    peer.serve(lambda connection: connection.sendall(b"no TLS here"))
    with pytest.raises(StorageUnreachable):
        connections.send(peer.request(scheme="https"))


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    """A store's certificate, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "store")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    built = x509.CertificateBuilder(name, name, key.public_key(), 1)
    built = built.not_valid_before(now).not_valid_after(now + timedelta(hours=1))
    made = built.add_extension(names, critical=False).sign(key, hashes.SHA256())
    path = tmp_path / "pem"
    path.write_bytes(
        made.public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return path


@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_file_goes_out_encrypted(peer: Peer, big_file: Path, pem: Path, slow: bool) -> None:
    """Over a slow line it takes longer than a silence may last, and isn't taken for one."""
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(pem)
    silence = 2.0 if slow else 60.0
    if slow:
        peer.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    got = bytearray()

    def take(connection: socket.socket) -> None:
        with theirs.wrap_socket(connection, server_side=True) as tls:
            head, _, body = tls.recv(65536).partition(b"\r\n\r\n")
            got.extend(body)
            assert head.startswith(b"PUT /a?b=c")
            began = time.monotonic()
            while len(got) < (5 << 20):
                got.extend(tls.recv(1 << 20))
                due = began + 1.5 * silence * len(got) / (5 << 20)
                if slow and (early := due - time.monotonic()) > 0.01:
                    time.sleep(early)
            tls.sendall(OK)

    peer.serve(take)
    connections = Connections(tls=ssl.create_default_context(cafile=pem), timeout=silence)
    fd = os.open(big_file, os.O_RDONLY)
    request = peer.request("PUT", scheme="https")
    assert connections.send(request, FileSlice(fd=fd, offset=7, size=5 << 20)).ok
    os.close(fd)
    connections.close()
    assert got == big_file.read_bytes()[7 : 7 + (5 << 20)]
