"""Asking a real server: which fails, stalls, redirects, floods and comes back."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.server
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sleap_rtc.errors import DataError, HostUnreachable, Offline, UnsafeUrl
from sleap_rtc.net import exchange as exchange_module
from sleap_rtc.net.address import ServerAddress
from sleap_rtc.net.breaker import OPEN_S, Breakers
from sleap_rtc.net.http import HttpClient
from sleap_rtc.net.httpcache import FRESH, STALE, HttpCache
from sleap_rtc.net.retrying import Retry
from sleap_rtc.net.urls import UrlRules

QUICK = Retry(attempts=4, base=0.001, cap=0.5)
Reply = tuple[int, dict[str, str], bytes]


class Host:
    """A real HTTP server on 127.0.0.1 that answers as it is told, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.replies: list[Reply] = []
        self.default: Callable[[str], Reply] = lambda _: (200, {}, b"hello")
        host = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                length = int(self.headers.get("content-length", "0"))
                headers = {name.lower(): value for name, value in self.headers.items()}
                host.asked.append((self.command, self.path, headers, self.rfile.read(length)))
                status, sent, body = (
                    host.replies.pop(0) if host.replies else host.default(self.path)
                )
                if status == 0:
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in sent.items():
                    self.send_header(name, value)
                if "content-length" not in sent:
                    self.send_header("content-length", str(len(body)))
                with contextlib.suppress(ConnectionError):
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_HEAD = answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.port = self._server.server_address[1]
        self.address = ServerAddress(host="127.0.0.1", port=self.port, secure=False)

    def url(self, path: str = "/") -> str:
        return f"{self.address.url}{path}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def host() -> Iterator[Host]:
    found = Host()
    yield found
    found.close()


@pytest.fixture
def other() -> Iterator[Host]:
    found = Host()
    yield found
    found.close()


class Clock:
    """Time that goes on when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def now(self) -> datetime:
        return datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


@contextlib.contextmanager
def asking(*hosts: Host, **changes: Any) -> Iterator[HttpClient]:
    rules = UrlRules(own=frozenset(each.address for each in hosts))
    with HttpClient(rules, **({"retry": QUICK} | changes)) as client:
        yield client


def test_an_answer(host: Host) -> None:
    with asking(host) as client:
        found = client.request("GET", host.url("/a?b=1"), headers={"X-Mine": "yes"})
        client.request("GET", host.url("/again"))
    assert (found.status, found.body, found.ok, found.version) == (200, b"hello", True, "HTTP/1.1")
    assert "hello" not in repr(found)
    method, path, headers, _ = host.asked[0]
    assert (method, path, headers["x-mine"]) == ("GET", "/a?b=1", "yes")
    assert headers["accept-encoding"] == "identity"
    assert headers["host"] == f"127.0.0.1:{host.port}"


def test_what_is_sent_arrives(host: Host) -> None:
    with asking(host) as client:
        client.request("POST", host.url(), content=b"x" * 100_000)
        client.request("POST", host.url())
    assert [len(asked[3]) for asked in host.asked] == [100_000, 0]
    assert host.asked[1][2]["content-length"] == "0"


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_a_failure_is_tried_again(host: Host, status: int) -> None:
    host.replies = [(status, {}, b""), (status, {}, b"")]
    with asking(host) as client:
        assert client.request("GET", host.url()).status == 200
    assert len(host.asked) == 3


def test_a_broken_connection_is_tried_again(host: Host) -> None:
    host.replies = [(0, {}, b"")]
    with asking(host) as client:
        assert client.request("GET", host.url()).status == 200


def test_what_may_have_been_done_is_not_done_again(host: Host) -> None:
    host.replies = [(500, {}, b"no")]
    with asking(host) as client:
        assert client.request("POST", host.url()).body == b"no"
        host.replies = [(0, {}, b"")]
        with pytest.raises(HostUnreachable):
            client.request("POST", host.url())
    host.replies = [(503, {}, b""), (500, {}, b"")]
    with asking(host) as client:
        assert client.request("POST", host.url()).status == 500
    host.replies = [(500, {}, b"")]
    with asking(host) as client:
        assert client.request("POST", host.url(), repeatable=True).status == 200


@pytest.mark.parametrize("status", [400, 401, 404, 418])
def test_other_errors_are_for_the_asker(host: Host, status: int) -> None:
    host.replies = [(status, {}, b"why")]
    with asking(host) as client:
        assert client.request("GET", host.url()).body == b"why"
    assert len(host.asked) == 1


def test_retry_after_is_honoured(host: Host) -> None:
    waited: list[float] = []
    with asking(host, retry=Retry(attempts=4, base=0.001, cap=60)) as client:
        client._closing.wait = lambda seconds: bool(waited.append(seconds))  # type: ignore[method-assign, assignment]
        host.replies = [(429, {"retry-after": "7"}, b"")]
        assert client.request("GET", host.url()).status == 200
        assert 7 <= waited[0] < 7.01
        host.replies = [(429, {"retry-after": "3600"}, b"later")]
        assert client.request("GET", host.url()).body == b"later"
        assert len(waited) == 1


def test_who_waits_gives_up_when_the_client_is_closed(host: Host) -> None:
    host.default = lambda _: (429, {"retry-after": "50"}, b"")
    with asking(host, retry=Retry(attempts=4, base=1, cap=60)) as client:
        done: list[int] = []
        waiting, wait = threading.Event(), client._closing.wait

        def waits(seconds: float) -> bool:
            waiting.set()
            return wait(seconds)

        client._closing.wait = waits  # type: ignore[method-assign, assignment]
        thread = threading.Thread(
            target=lambda: done.append(client.request("GET", host.url()).status)
        )
        thread.start()
        assert waiting.wait(60)
        client.close()
        thread.join(60)
    assert done == [429]


# ── hosts that fail ──────────────────────────────────────────────────────────


def test_a_failing_host_is_left_alone_for_a_minute(host: Host) -> None:
    clock = Clock()
    breakers = Breakers()
    host.default = lambda _: (500, {}, b"")
    with asking(host, breakers=breakers, monotonic=clock.monotonic) as client:
        assert client.request("GET", host.url()).status == 500
        assert len(host.asked) == 3  # the third failure opened the breaker
        with pytest.raises(HostUnreachable, match="asked again in 60 s"):
            client.request("GET", host.url())
        assert len(host.asked) == 3
        clock.seconds += OPEN_S
        host.default = lambda _: (200, {}, b"")
        assert client.request("GET", host.url()).status == 200
        assert client.request("GET", host.url()).status == 200


def test_one_host_does_not_stand_for_another(host: Host, other: Host) -> None:
    host.default = lambda _: (500, {}, b"")
    with asking(host, other) as client:
        client.request("GET", host.url())
        assert client.request("GET", other.url()).status == 200


def test_nobody_listens() -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    own = ServerAddress(host="127.0.0.1", port=port, secure=False)
    with (
        HttpClient(UrlRules(own=frozenset({own})), retry=QUICK) as client,
        pytest.raises(HostUnreachable, match="nothing listens there"),
    ):
        client.request("GET", own.url)


def test_a_host_that_says_nothing(host: Host) -> None:
    blocked = threading.Event()

    def stall(_: str) -> Reply:
        blocked.wait(60)
        return 200, {}, b""

    host.default = stall
    with (
        asking(host, timeout=0.1, retry=Retry(attempts=1)) as client,
        pytest.raises(HostUnreachable, match=r"within 0\.1 s"),
    ):
        client.request("GET", host.url())
    blocked.set()


def test_a_body_that_drips_in(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "BODY_WITHIN", -1.0)
    host.default = lambda _: (200, {}, b"x" * 1_000)
    with (
        asking(host, retry=Retry(attempts=1)) as client,
        pytest.raises(HostUnreachable, match="no answer"),
    ):
        client.request("GET", host.url())


def test_an_answer_may_not_be_too_large(host: Host) -> None:
    host.default = lambda _: (200, {}, b"x" * 100_001)
    with asking(host) as client:
        with pytest.raises(DataError, match="larger than 100,000 bytes"):
            client.request("GET", host.url("/?token=secret"), limit=100_000)
        assert len(client.request("GET", host.url(), limit=100_001).body) == 100_001
    assert len(host.asked) == 2


def test_a_flood_of_headers(host: Host) -> None:
    host.default = lambda _: (200, {f"x-{n}": "y" for n in range(300)}, b"")
    with asking(host) as client, pytest.raises((DataError, HostUnreachable)):
        client.request("GET", host.url())


def test_headers_that_cannot_be_sent(host: Host) -> None:
    with asking(host) as client, pytest.raises(DataError, match="can't be asked so"):
        client.request("GET", host.url(), headers={"x-bad": "a\r\nHost: other"})
    assert host.asked == []


# ── redirects ────────────────────────────────────────────────────────────────


def test_redirects_are_followed_without_secrets(host: Host, other: Host) -> None:
    host.replies = [(302, {"location": "/b"}, b""), (307, {"location": other.url("/c")}, b"")]
    with asking(host, other) as client:
        found = client.request(
            "GET", host.url("/a"), headers={"Authorization": "Bearer x", "X-Other": "y"}
        )
    assert found.url == other.url("/c")
    assert [asked[1] for asked in host.asked] == ["/a", "/b"]
    assert all("authorization" in asked[2] for asked in host.asked)
    assert "authorization" not in other.asked[0][2]
    assert other.asked[0][2]["x-other"] == "y"


def test_a_post_becomes_a_get_where_it_is_told(host: Host) -> None:
    host.replies = [(303, {"location": "/result"}, b"")]
    with asking(host) as client:
        client.request("POST", host.url(), content=b"data", headers={"content-type": "a/b"})
    assert host.asked[1][0] == "GET"
    assert host.asked[1][3] == b""
    assert "content-type" not in host.asked[1][2]


def test_what_was_sent_goes_to_no_other_host(host: Host, other: Host) -> None:
    host.replies = [(308, {"location": other.url()}, b"")]
    with asking(host, other) as client, pytest.raises(UnsafeUrl, match="would be sent there"):
        client.request("PUT", host.url(), content=b"data")
    assert other.asked == []


def test_redirects_lead_to_nothing_private(host: Host, other: Host) -> None:
    with asking(host) as client:
        for location in (other.url(), "file:///etc/passwd", "https://169.254.169.254/"):
            host.replies = [(302, {"location": location}, b"")]
            with pytest.raises(UnsafeUrl):
                client.request("GET", host.url())
    assert other.asked == []


def test_redirects_end(host: Host) -> None:
    host.default = lambda path: (302, {"location": path + "x"}, b"")
    with asking(host) as client, pytest.raises(UnsafeUrl, match="more than 5 times"):
        client.request("GET", host.url())
    host.default = lambda _: (302, {}, b"nowhere")
    with asking(host) as client:
        assert client.request("GET", host.url()).status == 302


def test_what_is_not_the_users_own_is_not_asked(host: Host) -> None:
    with HttpClient(retry=QUICK) as client:
        for url in (host.url(), f"https://localhost:{host.port}/"):
            with pytest.raises(UnsafeUrl):
                client.request("GET", url)
    assert host.asked == []


# ── the cache, and being offline ─────────────────────────────────────────────


def test_an_answer_is_kept_for_a_day(host: Host, tmp_path: Path) -> None:
    clock = Clock()
    host.default = lambda _: (200, {"etag": '"1"', "set-cookie": "a=b"}, b"first")
    with asking(host, cache=HttpCache(tmp_path), now=clock.now) as client:
        for _ in range(3):
            assert client.request("GET", host.url(), cached=True).body == b"first"
        assert len(host.asked) == 1
        assert client.request("GET", host.url()).body == b"first"
        assert len(host.asked) == 2
        clock.seconds += FRESH.total_seconds()
        host.replies = [(304, {}, b"")]
        found = client.request("GET", host.url(), cached=True)
        assert (found.status, found.body, found.stale) == (200, b"first", False)
        assert host.asked[-1][2]["if-none-match"] == '"1"'
        assert client.request("GET", host.url(), cached=True).body == b"first"
        assert len(host.asked) == 3
        clock.seconds += FRESH.total_seconds()
        host.default = lambda _: (200, {"etag": '"2"'}, b"second")
        assert client.request("GET", host.url(), cached=True).body == b"second"


def test_an_old_answer_is_better_than_none(host: Host, tmp_path: Path) -> None:
    clock = Clock()
    cache = HttpCache(tmp_path)
    with asking(host, cache=cache, now=clock.now, monotonic=clock.monotonic) as client:
        client.request("GET", host.url(), cached=True)
        clock.seconds += FRESH.total_seconds()
        host.default = lambda _: (503, {}, b"")
        for _ in range(2):  # the second one meets an open breaker
            found = client.request("GET", host.url(), cached=True)
            assert (found.body, found.stale) == (b"hello", True)
        clock.seconds += STALE.total_seconds()
        assert client.request("GET", host.url(), cached=True).status == 503


def test_what_is_gone_or_secret_is_not_kept(host: Host, tmp_path: Path) -> None:
    with asking(host, cache=HttpCache(tmp_path)) as client:
        host.replies = [(200, {"cache-control": "max-age=0"}, b"a"), (404, {}, b"")]
        client.request("GET", host.url(), cached=True)
        assert client.request("GET", host.url(), cached=True).status == 404
        host.default = lambda _: (200, {"cache-control": "no-store"}, b"a")
        client.request("GET", host.url(), cached=True)
    assert list(tmp_path.glob("*/*")) == []


def test_offline_fails_at_once(host: Host, tmp_path: Path) -> None:
    clock = Clock()
    cache = HttpCache(tmp_path)
    with asking(host, cache=cache, now=clock.now) as client:
        client.request("GET", host.url("/kept"), cached=True)
    clock.seconds += FRESH.total_seconds()
    with asking(host, cache=cache, now=clock.now, offline=True) as client:
        found = client.request("GET", host.url("/kept"), cached=True)
        assert (found.body, found.stale) == (b"hello", True)
        with pytest.raises(Offline, match=r"/other is not asked: sleap-rtc works offline\."):
            client.request("GET", host.url("/other?token=secret"), cached=True)
    assert len(host.asked) == 1


# ── TLS and HTTP/2 ───────────────────────────────────────────────────────────


def certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's TLS for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "both.pem"
    pem.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    server.set_alpn_protocols(["h2"])
    return server, ssl.create_default_context(cafile=str(pem))


def serve_h2(listener: socket.socket, tls: ssl.SSLContext) -> None:
    """Answer one connection's requests over HTTP/2, until it ends."""
    raw, _ = listener.accept()
    with contextlib.suppress(OSError), tls.wrap_socket(raw, server_side=True) as stream:
        config = h2.config.H2Configuration(client_side=False)
        connection = h2.connection.H2Connection(config=config)
        connection.initiate_connection()
        stream.sendall(connection.data_to_send())
        while data := stream.recv(65_536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.StreamEnded):
                    connection.send_headers(event.stream_id, [(":status", "200")])
                    connection.send_data(event.stream_id, b"two", end_stream=True)
            stream.sendall(connection.data_to_send())


def test_http_2_where_it_is_spoken(tmp_path: Path) -> None:
    server_tls, client_tls = certificate(tmp_path)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        own = ServerAddress(host="127.0.0.1", port=listener.getsockname()[1], secure=True)
        rules = UrlRules(own=frozenset({own}))
        thread = threading.Thread(target=serve_h2, args=(listener, server_tls))
        thread.start()
        with HttpClient(rules, retry=QUICK, tls=client_tls) as client:
            found = [client.request("GET", own.url + "/").version for _ in range(2)]
        thread.join(60)
    assert found == ["HTTP/2", "HTTP/2"]


def test_a_certificate_of_nobody_known(tmp_path: Path) -> None:
    server_tls, _ = certificate(tmp_path)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        own = ServerAddress(host="127.0.0.1", port=listener.getsockname()[1], secure=True)
        thread = threading.Thread(target=serve_h2, args=(listener, server_tls))
        thread.start()
        with (
            HttpClient(UrlRules(own=frozenset({own})), retry=Retry(attempts=1)) as client,
            pytest.raises(HostUnreachable, match="not trusted"),
        ):
            client.request("GET", own.url + "/")
        thread.join(60)
