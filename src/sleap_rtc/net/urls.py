"""Which URLs are asked, wherever they come from: a peer, a file, a manifest, a redirect.

::

    https://any.public.host/…       asked, if its addresses are public ones
    http://…                        refused
    https://10.0.0.7/…, http://…    asked only if it is the user's own server

What a name stands for is checked when it is dialled, and dialled is what was
checked (``net/dialing.py``): a name can't show one address first and another
one after that.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urljoin, urlsplit

import msgspec

from sleap_rtc.errors import InvalidConfig, UnsafeUrl
from sleap_rtc.net.address import ServerAddress, is_loopback, parse_server

MAX_URL: Final = 8_192
"""Characters of the longest URL; presigned ones have about 1,500."""

_PLAIN: Final = re.compile(r"[\x21-\x7e]+")
_USER: Final = re.compile(r"//[^/]*@")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Target(msgspec.Struct, frozen=True):
    """A URL that may be asked.

    Attributes:
        url: The whole of it, without a fragment.
        address: Host, port and scheme.
        own: Whether it is the user's own server, which may be anywhere.
    """

    url: str
    address: ServerAddress
    own: bool

    @property
    def path(self) -> str:
        """Path and query, as they are sent."""
        parts = urlsplit(self.url)
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    @property
    def shown(self) -> str:
        """For people and logs: without the query, in which secrets may be."""
        return self.url.partition("?")[0][:300]


class UrlRules(msgspec.Struct, frozen=True):
    """What may be asked.

    Attributes:
        own: Servers that the user has configured: these may have private addresses and no TLS.
        hosts: Only these public hosts; None for all of them.
    """

    own: frozenset[ServerAddress] = frozenset()
    hosts: frozenset[str] | None = None


def parse_url(text: str) -> ServerAddress:
    """Where a URL leads, whether that may be asked or not.

    Raises:
        UnsafeUrl: It is no URL for HTTP, or not plainly one.
    """
    if len(text) > MAX_URL:
        raise UnsafeUrl(url=_shown(text), why=f"it is longer than {MAX_URL} characters")
    if _PLAIN.fullmatch(text) is None:
        raise UnsafeUrl(url=_shown(text), why="it has spaces or other characters in it")
    scheme, separator, _ = text.partition("://")
    if not separator or scheme.lower() not in ("https", "http"):
        raise UnsafeUrl(url=_shown(text), why="it doesn't begin with https://")
    try:
        netloc = urlsplit(text).netloc
        return parse_server(f"{scheme}://{netloc}", insecure=True, where="The URL")
    except ValueError as error:
        raise UnsafeUrl(url=_shown(text), why=str(error)) from None
    except InvalidConfig:
        raise UnsafeUrl(url=_shown(text), why="its host is none that can be asked") from None


def check_url(text: str, rules: UrlRules) -> Target:
    """Check a URL.

    Raises:
        UnsafeUrl: It isn't one that may be asked.
    """
    address = parse_url(text)
    target = Target(url=text.partition("#")[0], address=address, own=address in rules.own)
    if target.own:
        return target
    if not address.secure:
        raise UnsafeUrl(url=target.shown, why="it has no TLS, and is not your own server")
    if rules.hosts is not None and address.host not in rules.hosts:
        raise UnsafeUrl(url=target.shown, why=f"{address.host} is none of the hosts to be asked")
    literal = _literal(address.host)
    if literal is not None and not is_public(literal):
        raise UnsafeUrl(url=target.shown, why="its address is not a public one")
    return target


def follow(target: Target, location: str, rules: UrlRules) -> Target:
    """Where a redirect leads.

    Raises:
        UnsafeUrl: Somewhere that may not be asked, or from elsewhere to the user's own server.
    """
    try:
        joined = urljoin(target.url, location[: MAX_URL + 1])
    except ValueError as error:
        raise UnsafeUrl(url=_shown(location), why=str(error)) from None
    found = check_url(joined, rules)
    if found.own and not target.own:
        raise UnsafeUrl(url=found.shown, why=f"{target.address.host} sends there")
    if target.address.secure and not found.address.secure:
        raise UnsafeUrl(url=found.shown, why="a redirect gives up TLS")
    return found


def is_public(address: Address) -> bool:
    """Whether an address is one that the whole internet sees, whatever it is wrapped in."""
    if address.is_multicast or not address.is_global:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return True
    inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return all(each is None or is_public(each) for each in inner)


def is_private(host: str) -> bool:
    """Whether a host is written as an address that is not a public one, or as this machine."""
    literal = _literal(host)
    return is_loopback(host) if literal is None else not is_public(literal)


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _shown(text: str) -> str:
    return _USER.sub("//…@", text.partition("?")[0])[:200]
