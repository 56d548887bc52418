"""Server addresses, as people type them."""

from __future__ import annotations

import errno
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.errors import InvalidConfig
from sleap_rtc.net import address
from sleap_rtc.net.address import MAX_URL, ServerAddress, is_here, is_loopback, parse_server


@pytest.mark.parametrize(
    ("text", "dialled", "url"),
    [
        ("https://lab.org", "lab.org:443", "https://lab.org"),
        ("HTTPS://Lab.ORG:443/", "lab.org:443", "https://lab.org"),
        (" wss://lab.org:9000 ", "lab.org:9000", "https://lab.org:9000"),
        ("lab.org", "lab.org:443", "https://lab.org"),
        ("lab.org.", "lab.org:443", "https://lab.org"),
        ("lab.org:9000", "lab.org:9000", "https://lab.org:9000"),
        ("localhost", "localhost:8765", "http://localhost:8765"),
        ("127.0.0.1:1234", "127.0.0.1:1234", "http://127.0.0.1:1234"),
        ("http://127.0.0.1", "127.0.0.1:80", "http://127.0.0.1"),
        ("ws://[::1]:80", "[::1]:80", "http://[::1]"),
        ("https://[2001:DB8:0:0::1]", "[2001:db8::1]:443", "https://[2001:db8::1]"),
        ("https://bücher.example", "xn--bcher-kva.example:443", "https://xn--bcher-kva.example"),
    ],
)
def test_what_counts_as_an_address(text: str, dialled: str, url: str) -> None:
    found = parse_server(text)
    assert (found.dialled, found.url) == (dialled, url)
    assert found.websocket_url.partition("://")[2] == dialled
    assert found.websocket_url.startswith("wss" if found.secure else "ws")
    assert parse_server(found.url) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://",
        "ftp://lab.org",
        "https://lab.org/path",
        "https://lab.org/?x=1",
        "https://lab.org/#v1.abc",
        "https://lab.org:0",
        "https://lab.org:99999",
        "https://lab.org:port",
        "https://lab..org",
        "https://-lab.org",
        "https://[::1",
        "https://a b",
        "https://" + "a" * 64 + ".org",
        "https://" + "a." * 130 + "org",
        "x" * (MAX_URL + 1),
        "file:///etc/passwd",
        "\x00",
    ],
)
def test_what_does_not(text: str) -> None:
    with pytest.raises(InvalidConfig, match="no server address"):
        parse_server(text, insecure=True)


@pytest.mark.parametrize(
    "text",
    [
        "https://ada:hunter2@lab.org",
        "ada:hunter2@lab.org",
        "ada:hunter2@lab.org://",
        "https://ada:hunter2@lab.org:port",
        "https://ada:hunter2@[::1",
        "https://ada:hunter2@la℀b.org",
        "https://ada:hunter2@" + "a" * 3_000,
    ],
)
def test_passwords_in_an_address_are_not_repeated(text: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        parse_server(text)
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    "text", ["http://lab.org", "ws://10.0.0.5:8765", "http://0.0.0.0", "http://127.0.0.1.lab.org"]
)
def test_without_tls_only_this_machine(text: str) -> None:
    with pytest.raises(InvalidConfig, match="no TLS") as caught:
        parse_server(text, where="config.toml: server")
    assert caught.value.message.startswith("config.toml: server")
    assert "--insecure" in caught.value.hint_text
    assert not parse_server(text, insecure=True).secure


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("box.localhost", True),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("localhost.lab.org", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@given(st.text(max_size=60) | st.text(max_size=30).map(lambda text: f"https://{text}"))
def test_any_text(text: str) -> None:
    try:
        found = parse_server(text)
    except InvalidConfig:
        return
    assert parse_server(found.url) == found
    assert isinstance(found, ServerAddress)
    assert found.dialled.isascii()


def test_an_address_of_this_machine_is_told_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_here("127.0.0.1")
    assert is_here("::1")

    class Elsewhere(socket.socket):
        why = 0

        def bind(self, address: object) -> None:
            raise OSError(self.why, "no")

    monkeypatch.setattr(address.socket, "socket", Elsewhere)
    Elsewhere.why = errno.EADDRNOTAVAIL
    assert not is_here("127.0.0.1")
    # A scope that is missing, a family that isn't there: nothing is known of the address then.
    Elsewhere.why = errno.EINVAL
    assert is_here("fe80::1")
