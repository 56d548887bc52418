"""Addresses that a peer may reach this machine at, and those of a peer that are tried."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from sleap_rtc.protocol.direct import MAX_ADDRESSES, Address


def own_hosts() -> list[str]:
    """The addresses of this machine's interfaces that others may reach, IPv4 first."""
    import ifaddr  # noqa: PLC0415 - comes with what makes links: without those this isn't asked

    found: list[str] = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            host = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            if usable(host) and host not in found:
                found.append(host)
    return sorted(found, key=lambda host: ":" in host)[:MAX_ADDRESSES]


def usable(host: str) -> bool:
    """Whether an address can be another machine's, or this one's as others see it.

    A peer could name any service of this machine otherwise: loopback is never tried, and neither
    is what stands for no or for many machines, or needs an interface to be named.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None or address.sixtofour is not None or address.teredo:
            return False  # another address in disguise
        if address.is_site_local:
            return False
    return not (
        address.is_loopback
        or address.is_unspecified
        or address.is_multicast
        or address.is_link_local
        or (address.is_reserved and address.version == 4)
    )


def tried(addresses: Iterable[Address]) -> list[Address]:
    """Those of a peer's addresses that are tried, each once."""
    found = {(each.host, each.port): each for each in addresses if usable(each.host)}
    return list(found.values())[:MAX_ADDRESSES]
