"""The server's address: what people type, and what is dialled and signed.

::

    https://lab.org            wss://lab.org:443        signed: lab.org:443
    http://127.0.0.1:8765      ws://127.0.0.1:8765      signed: 127.0.0.1:8765
    lab.org:9000               as https://lab.org:9000
    localhost                  as http://localhost:8765

Without TLS only this machine is spoken to, unless the user says ``--insecure``.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from typing import Final
from urllib.parse import urlsplit

import msgspec

from sleap_rtc.errors import InvalidConfig

DEFAULT_PORT: Final = 8765
MAX_URL: Final = 2_048

_SECURE: Final = {"https": True, "wss": True, "http": False, "ws": False}
_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NO_HOST: Final = "its host is neither a name nor an address"


class ServerAddress(msgspec.Struct, frozen=True):
    """Where a server is.

    Attributes:
        host: A name in lower case, or an IP address, IPv6 without brackets.
        port: Its TCP port.
        secure: Whether TLS is spoken.
    """

    host: str
    port: int
    secure: bool

    @property
    def dialled(self) -> str:
        """``host:port``, as a device signs it; IPv6 in brackets."""
        return f"{bracketed(self.host)}:{self.port}"

    @property
    def url(self) -> str:
        """For people, and for a browser; the port only where it isn't the usual one."""
        scheme, usual = ("https", 443) if self.secure else ("http", 80)
        return f"{scheme}://{bracketed(self.host)}" + (f":{self.port}" * (self.port != usual))

    @property
    def websocket_url(self) -> str:
        """The same as a WebSocket address, without a path."""
        return f"{'wss' if self.secure else 'ws'}://{self.dialled}"

    @property
    def on_this_machine(self) -> bool:
        """Whether it is a loopback address or name."""
        return is_loopback(self.host)


def parse_server(text: str, *, insecure: bool = False, where: str = "The server") -> ServerAddress:
    """Read a server's address.

    Args:
        text: As a user typed it, or a file or an invite says it.
        insecure: Whether the user allowed to go without TLS beyond this machine.
        where: Names the place that it comes from in errors.

    Raises:
        InvalidConfig: It isn't one, or it has no TLS and isn't on this machine.
    """
    stripped = text.strip()
    scheme, separator, rest = stripped.partition("://")
    shown = stripped
    if "@" in stripped:  # there may be a password before it, whatever else is wrong
        shown = f"{scheme}://…" if separator and "@" not in scheme else "…"
    if len(stripped) > MAX_URL:
        raise _invalid(where, shown, f"it is longer than {MAX_URL} characters")
    try:
        parts = urlsplit(stripped if separator else f"//{stripped}")
    except ValueError:  # its words may repeat the address
        raise _invalid(where, shown, _NO_HOST) from None
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _invalid(where, shown, "its port is no number from 1 to 65535") from None
    if parts.username is not None or parts.password is not None:
        raise _invalid(where, shown, "it has a user name or password in it")
    if not host and not rest.strip("/"):
        raise _invalid(where, shown, "it names no host")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise _invalid(where, shown, "it is more than a host and a port")
    host = _host(host, where, shown)
    if separator:
        if scheme.lower() not in _SECURE:
            raise _invalid(where, shown, "it doesn't begin with https:// or http://")
        secure = _SECURE[scheme.lower()]
        port = (443 if secure else 80) if port is None else port
    else:
        secure = not is_loopback(host)
        port = (443 if secure else DEFAULT_PORT) if port is None else port
    if port == 0:
        raise _invalid(where, shown, "its port is no number from 1 to 65535")
    found = ServerAddress(host=host, port=port, secure=secure)
    if not (secure or insecure or found.on_this_machine):
        raise InvalidConfig(
            where=where,
            why=f"{found.url} has no TLS, so that anybody on the way could read and change "
            "what is said",
            hint="Use https://, or add --insecure on a private network that you trust.",
        )
    return found


def bracketed(host: str) -> str:
    """A host as it stands before ``:port``."""
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Whether a host is this machine's own loopback address or name."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host(host: str, where: str, shown: str) -> str:
    host = host.removesuffix(".")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        name = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        name = ""
    if 0 < len(name) <= 253 and all(_LABEL.fullmatch(label) for label in name.split(".")):
        return name
    raise _invalid(where, shown, _NO_HOST)


def _invalid(where: str, shown: str, why: str) -> InvalidConfig:
    return InvalidConfig(
        where=where,
        why=f"{shown[:200]!r} is no server address: {why}",
        hint="Give it as https://host or https://host:port.",
    )


def is_here(address: str) -> bool:
    """Whether this machine has an address; where that can't be told, it counts as had.

    Args:
        address: An IP address.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True
