"""Under which addresses a server is reached, and whether it may be reached so.

A device signs the address that it dialled. The server accepts a signature only
over one of its own: what it was configured with (``--public-url``), the address
it listens on, this machine's name, and the local end of the very connection.
"""

from __future__ import annotations

from collections.abc import Iterable

from sleap_rtc.config import Ice, ServerSettings
from sleap_rtc.errors import InvalidConfig
from sleap_rtc.net.address import ServerAddress, bracketed, is_loopback, parse_server
from sleap_rtc.protocol.signaling import IceServer

_ANY = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared with, not listened on
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")


class Addresses:
    """The addresses that a running server answers to.

    Args:
        settings: The server's.
        port: The TCP port it listens on.
        host_name: This machine's name.
    """

    def __init__(self, settings: ServerSettings, *, port: int, host_name: str) -> None:
        self._public = [
            parse_server(url, insecure=True, where="--public-url") for url in settings.public_urls
        ]
        self._behind_proxy = settings.behind_proxy
        self._port = port
        hosts = [] if settings.host in _ANY else [settings.host]
        if settings.host in _ANY and host_name:
            hosts.append(host_name.lower())
        if settings.host in _ANY or is_loopback(settings.host):
            hosts += _LOOPBACK_NAMES
        self._own = [f"{bracketed(host)}:{port}" for host in hosts]

    def known(self, local: tuple[str, int | None] | None) -> tuple[str, ...]:
        """Every ``host:port`` that a device may have dialled to make this connection.

        Args:
            local: The connection's own end, as the socket says it.
        """
        found = [address.dialled for address in self._public] + self._own
        if local is not None and not self._behind_proxy:
            found.append(f"{bracketed(_unmapped(local[0]))}:{local[1]}")
        return tuple(dict.fromkeys(found))

    def stun_host(self, dialled: str) -> str | None:
        """The host to tell a device as the STUN server's, None where it would be no help.

        Between devices on one machine nobody needs STUN; one of them beside the server still
        needs it for the way out, under the name by which others know the server.
        """
        host = parse_server(dialled, insecure=True).host
        candidates = [host, *(address.host for address in self._public)]
        return next((host for host in candidates if not is_loopback(host)), None)

    def base_url(self, dialled: str, *, scheme: str) -> str:
        """What a URL to this server begins with, for a device that dialled this address.

        Args:
            dialled: One of :meth:`known`.
            scheme: ``http`` or ``https``, as the connection is seen here; what was configured
                knows better what a proxy speaks.
        """
        found = next((public for public in self._public if public.dialled == dialled), None)
        return f"{scheme}://{dialled}" if found is None else found.url

    def url(self, settings: ServerSettings) -> str:
        """The address to show to people."""
        if self._public:
            return self._public[0].url
        host = self._own[0].rpartition(":")[0].strip("[]") if self._own else settings.host
        return ServerAddress(host=host, port=self._port, secure=settings.tls_cert is not None).url


def ice_servers(
    addresses: Addresses, dialled: str, *, stun_port: int, configured: Iterable[Ice]
) -> tuple[IceServer, ...]:
    """What a device is told at sign-in: the server's own STUN, then what is configured.

    Args:
        addresses: The server's.
        dialled: The address by which this device came.
        stun_port: The UDP port, 0 for none.
        configured: From the settings.
    """
    found = []
    host = addresses.stun_host(dialled)
    if stun_port and host is not None:
        found.append(IceServer(urls=(f"stun:{bracketed(host)}:{stun_port}",)))
    found += [
        IceServer(urls=ice.urls, username=ice.username, credential=ice.credential)
        for ice in configured
    ]
    return tuple(found)


def check_exposure(settings: ServerSettings, *, insecure: bool) -> str | None:
    """Whether the server may listen where it is told to.

    Args:
        settings: The server's.
        insecure: Whether the user said that the network is trusted.

    Returns:
        A warning to show, or None.

    Raises:
        InvalidConfig: It would speak without TLS beyond this machine, or TLS is half configured.
    """
    if (settings.tls_cert is None) != (settings.tls_key is None):
        missing = "--tls-key" if settings.tls_key is None else "--tls-cert"
        raise InvalidConfig(where=missing, why="certificate and key are needed together")
    for flag, path in (("--tls-cert", settings.tls_cert), ("--tls-key", settings.tls_key)):
        if path is not None and not path.is_file():
            raise InvalidConfig(where=flag, why=f"there is no file {path}")
    if settings.tls_cert is not None or settings.behind_proxy or is_loopback(settings.host):
        return None
    if insecure:
        return (
            f"Listening on {settings.host} without TLS: anybody on that network can read set-up "
            "codes and who talks to whom. What devices send each other stays protected."
        )
    raise InvalidConfig(
        where="--host",
        why=f"{settings.host} is reached from other machines, and without TLS anybody on the way "
        "could read and change what is said",
        hint="Give --tls-cert and --tls-key, or --behind-proxy where a proxy speaks TLS; "
        "--insecure on a private network that you trust.",
    )


def _unmapped(host: str) -> str:
    """An IPv4 address as itself, also where a dual-stack socket shows it as IPv6."""
    host = host.partition("%")[0]
    return host.removeprefix("::ffff:") if "." in host else host
