"""Which URLs are asked."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.errors import UnsafeUrl
from sleap_rtc.net.address import ServerAddress
from sleap_rtc.net.urls import MAX_URL, UrlRules, check_url, follow, is_public

OWN = ServerAddress(host="127.0.0.1", port=8765, secure=False)
RULES = UrlRules(own=frozenset({OWN}))


@pytest.mark.parametrize(
    "url",
    [
        "https://huggingface.co/api/models?search=a#part",
        "https://8.8.8.8/x",
        "https://[2606:4700::1111]:8443/x",
        "HTTPS://Example.ORG",
    ],
)
def test_public_urls_are_asked(url: str) -> None:
    target = check_url(url, RULES)
    assert not target.own
    assert target.path.startswith("/")
    assert "#" not in target.url


def test_the_own_server_may_be_anywhere() -> None:
    target = check_url("http://127.0.0.1:8765/api/x?secret=1", RULES)
    assert target.own
    assert target.path == "/api/x?secret=1"
    assert "secret" not in target.shown


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.org/", "no TLS"),
        ("ftp://example.org/", "https://"),
        ("file:///etc/passwd", "https://"),
        ("ws://example.org/", "https://"),
        ("example.org", "https://"),
        ("https://", "host"),
        ("https://127.0.0.1/", "not a public"),
        ("https://127.0.0.1:8765/", "not a public"),
        ("http://127.0.0.1:8766/", "no TLS"),
        ("https://10.1.2.3/", "not a public"),
        ("https://169.254.169.254/latest/meta-data", "not a public"),
        ("https://[::1]/", "not a public"),
        ("https://[::ffff:10.0.0.1]/", "not a public"),
        ("https://[64:ff9b::7f00:1]/", "not a public"),
        ("https://0.0.0.0/", "not a public"),
        ("https://user:secret@example.org/", "host"),
        ("https://example.org:99999/", "host"),
        ("https://exa mple.org/", "spaces"),
        ("https://example.org/\r\nHost: other", "spaces"),
        ("https://example.org/\u2028", "spaces"),
        ("https://[::1", "IPv6"),
        ("https://example.org/" + "a" * MAX_URL, "longer"),
    ],
)
def test_others_are_refused_and_say_why(url: str, why: str) -> None:
    with pytest.raises(UnsafeUrl, match=why) as caught:
        check_url(url, RULES)
    assert "secret" not in caught.value.message


def test_only_some_hosts() -> None:
    rules = UrlRules(hosts=frozenset({"huggingface.co"}))
    check_url("https://huggingface.co/x", rules)
    with pytest.raises(UnsafeUrl, match="none of the hosts"):
        check_url("https://example.org/x", rules)


def test_redirects_are_checked_as_well() -> None:
    public = check_url("https://example.org/a/b?x=1", RULES)
    assert follow(public, "../c", RULES).url == "https://example.org/c"
    assert follow(public, "//other.org/", RULES).address.host == "other.org"
    for location in ("http://example.org/", "http://127.0.0.1:8765/", "https://10.0.0.1/", "//["):
        with pytest.raises(UnsafeUrl):
            follow(public, location, RULES)
    own = check_url("http://127.0.0.1:8765/", RULES)
    assert follow(own, "/there", RULES).own
    assert not follow(own, "https://example.org/", RULES).own


def test_a_redirect_does_not_give_up_tls() -> None:
    secure = ServerAddress(host="10.0.0.1", port=443, secure=True)
    plain = ServerAddress(host="10.0.0.1", port=80, secure=False)
    rules = UrlRules(own=frozenset({secure, plain}))
    with pytest.raises(UnsafeUrl, match="TLS"):
        follow(check_url("https://10.0.0.1/", rules), "http://10.0.0.1/", rules)


@given(st.text())
def test_any_text_is_taken_or_refused(text: str) -> None:
    for url in (text, f"https://{text}", f"https://example.org/{text}"):
        try:
            target = check_url(url, RULES)
        except UnsafeUrl:
            continue
        assert target.url.isascii()
        assert target.address.secure or target.own


@given(st.ip_addresses(v=4))
def test_wrapping_an_address_makes_it_no_more_public(inner: ipaddress.IPv4Address) -> None:
    public = is_public(inner)
    number = int(inner)
    wrapped = [
        ipaddress.IPv6Address(0xFFFF << 32 | number),
        ipaddress.IPv6Address((0x0064FF9B << 96) | number),
        ipaddress.IPv6Address((0x2002 << 112) | (number << 80)),
    ]
    assert public or not any(is_public(each) for each in wrapped)
