"""Which addresses a server answers to, what it tells, and where it may listen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sleap_rtc.config import Ice, ServerSettings
from sleap_rtc.errors import InvalidConfig
from sleap_rtc.protocol.signaling import IceServer
from sleap_rtc.server.addresses import Addresses, check_exposure, ice_servers


def settings(**changes: Any) -> ServerSettings:
    return ServerSettings(data_dir=Path("/data"), **changes)


def addresses(**changes: Any) -> Addresses:
    return Addresses(settings(**changes), port=8765, host_name="Box")


def test_on_loopback_every_loopback_name_counts() -> None:
    known = addresses().known(("127.0.0.1", 8765))
    assert set(known) == {"127.0.0.1:8765", "localhost:8765", "[::1]:8765"}


def test_on_every_address_the_connection_tells_its_own() -> None:
    found = addresses(host="0.0.0.0")
    assert {"box:8765", "10.0.0.5:8765", "localhost:8765"} <= set(found.known(("10.0.0.5", 8765)))
    assert "10.0.0.5:8765" not in found.known(("10.0.0.6", 8765))
    both = addresses(host="::")
    assert "10.0.0.5:8765" in both.known(("::ffff:10.0.0.5", 8765))
    assert "[fd00::1]:8765" in both.known(("fd00::1", 8765))


def test_public_urls_count_with_their_own_ports() -> None:
    found = addresses(host="10.0.0.5", public_urls=("https://Lab.org", "http://lab.org:99/"))
    assert found.known(None) == ("lab.org:443", "lab.org:99", "10.0.0.5:8765")


def test_behind_a_proxy_the_connection_tells_nothing() -> None:
    found = addresses(host="10.0.0.5", behind_proxy=True, public_urls=("https://lab.org",))
    assert "10.9.9.9:8765" not in found.known(("10.9.9.9", 8765))


def test_a_public_url_that_is_none() -> None:
    with pytest.raises(InvalidConfig, match="--public-url"):
        addresses(public_urls=("ftp://lab.org",))


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({}, "http://127.0.0.1:8765"),
        ({"host": "::1"}, "http://[::1]:8765"),
        ({"host": "0.0.0.0"}, "http://box:8765"),
        ({"host": "10.0.0.5", "tls_cert": Path("c")}, "https://10.0.0.5:8765"),
        ({"host": "10.0.0.5", "public_urls": ("https://lab.org",)}, "https://lab.org"),
    ],
)
def test_the_url_for_people(changes: dict[str, Any], url: str) -> None:
    assert addresses(**changes).url(settings(**changes)) == url


def test_the_stun_server_is_where_the_device_came() -> None:
    found = addresses(host="0.0.0.0", public_urls=("https://lab.org",))

    def told(dialled: str, port: int = 3478) -> list[str]:
        servers = ice_servers(found, dialled, stun_port=port, configured=())
        return [url for server in servers for url in server.urls]

    assert told("10.0.0.5:8765") == ["stun:10.0.0.5:3478"]
    assert told("[fd00::1]:8765") == ["stun:[fd00::1]:3478"]
    assert told("lab.org:443") == ["stun:lab.org:3478"]
    assert told("127.0.0.1:8765") == ["stun:lab.org:3478"]
    assert told("10.0.0.5:8765", port=0) == []
    assert ice_servers(addresses(), "127.0.0.1:8765", stun_port=3478, configured=()) == ()


def test_configured_servers_follow() -> None:
    turn = Ice(urls=("turn:t:1",), username="u", credential="c")
    told = ice_servers(addresses(), "localhost:1", stun_port=0, configured=(turn,))
    assert told == (IceServer(urls=("turn:t:1",), username="u", credential="c"),)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_loopback_needs_no_tls(host: str) -> None:
    assert check_exposure(settings(host=host), insecure=False) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.77.0.1", "192.168.1.5", "lab.org", ""])
def test_beyond_loopback_tls_or_a_proxy_or_the_users_word(host: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="without TLS") as caught:
        check_exposure(settings(host=host), insecure=False)
    assert "--behind-proxy" in caught.value.hint_text
    warning = check_exposure(settings(host=host), insecure=True)
    assert warning is not None
    assert "without TLS" in warning
    assert check_exposure(settings(host=host, behind_proxy=True), insecure=False) is None
    pem = tmp_path / "x.pem"
    pem.touch()
    with_tls = settings(host=host, tls_cert=pem, tls_key=pem)
    assert check_exposure(with_tls, insecure=False) is None


def test_half_of_tls_is_a_mistake(tmp_path: Path) -> None:
    pem = tmp_path / "x.pem"
    pem.touch()
    with pytest.raises(InvalidConfig, match="--tls-key"):
        check_exposure(settings(tls_cert=pem), insecure=False)
    with pytest.raises(InvalidConfig, match="--tls-cert"):
        check_exposure(settings(tls_key=pem), insecure=False)
    with pytest.raises(InvalidConfig, match="no file"):
        check_exposure(settings(tls_cert=pem, tls_key=tmp_path / "no.pem"), insecure=False)


def test_a_url_is_built_as_devices_reach_the_server() -> None:
    found = addresses(public_urls=("https://lab.org", "http://lab.org:99/"))
    # A proxy may not tell that it speaks TLS: what was configured says so.
    assert found.base_url("lab.org:443", scheme="http") == "https://lab.org"
    assert found.base_url("lab.org:99", scheme="https") == "http://lab.org:99"
    assert found.base_url("127.0.0.1:8765", scheme="http") == "http://127.0.0.1:8765"
