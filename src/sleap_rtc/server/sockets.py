"""Sockets that the server listens on, and errors that say what to change."""

from __future__ import annotations

import contextlib
import errno
import resource
import socket
from typing import Final

from sleap_rtc.errors import Busy, InvalidConfig

BACKLOG: Final = 4_096
"""Connections that wait to be accepted: everybody comes back at once after a restart."""
_MANY_FILES: Final = 1_048_576


def listen(host: str, port: int, kind: socket.SocketKind, *, flag: str) -> list[socket.socket]:
    """Bind to every address of a host; all get the same port.

    Args:
        host: An address or a name; ``0.0.0.0`` is every IPv4 one, ``::`` every one.
        port: 0 takes a free one.
        kind: ``SOCK_STREAM`` sockets listen already; ``SOCK_DGRAM`` ones are bound.
        flag: The setting that chose the port, for errors.

    Raises:
        InvalidConfig: The host is none of this machine's, or the port isn't allowed.
        Busy: Another program has the port.
    """
    made: list[socket.socket] = []
    with contextlib.ExitStack() as undo:
        for family, address in _resolve(host, kind):
            listener = undo.enter_context(socket.socket(family, kind))
            listener.setblocking(False)
            if kind == socket.SOCK_STREAM:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                listener.bind((address, port))
                if kind == socket.SOCK_STREAM:
                    listener.listen(BACKLOG)
            except OSError as error:
                raise _explain(error, host, port, flag) from error
            port = listener.getsockname()[1]
            made.append(listener)
        undo.pop_all()
    return made


def _resolve(host: str, kind: socket.SocketKind) -> list[tuple[int, str]]:
    if host == "::":
        every: list[tuple[int, str]] = [(socket.AF_INET, "0.0.0.0")]  # noqa: S104 - as asked for
        return [(socket.AF_INET6, "::"), *every] if socket.has_ipv6 else every
    try:
        found = socket.getaddrinfo(host, None, type=kind)
    except OSError as error:
        why = f"{host!r} is no address of this machine ({error.strerror})"
        raise InvalidConfig(where="--host", why=why) from None
    return list(dict.fromkeys((family, str(address[0])) for family, *_, address in found))


def _explain(error: OSError, host: str, port: int, flag: str) -> Exception:
    if error.errno == errno.EADDRINUSE:
        return Busy(
            what=f"Port {port} of {host}", by="", hint=f"End it, or choose another with {flag}."
        )
    if error.errno == errno.EACCES:
        why = f"this user may not listen on port {port}"
        return InvalidConfig(where=flag, why=why, hint="Ports from 1024 on need no privilege.")
    why = f"{host} is no address of this machine ({error.strerror})"
    return InvalidConfig(where="--host", why=why)


def raise_file_limit() -> int:
    """Let this process have as many open sockets as the system allows.

    Returns:
        How many that is.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, _MANY_FILES)
    if wanted > soft:
        # macOS refuses more than its kernel's own limit, whatever the hard limit says.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
