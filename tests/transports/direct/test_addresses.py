"""Which addresses are told, and which of a peer's are tried."""

from __future__ import annotations

import pytest

from sleap_rtc.protocol.direct import MAX_ADDRESSES, Address
from sleap_rtc.transports.direct.addresses import own_hosts, tried, usable


@pytest.mark.parametrize(
    "host", ["192.168.1.4", "10.0.0.1", "100.64.3.2", "8.8.8.8", "fd00::2", "2001:470::1"]
)
def test_addresses_of_machines_are_usable(host):
    assert usable(host)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "169.254.169.254",
        "fe80::1",
        "255.255.255.255",
        "240.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",
        "fec0::1",
        "localhost",
        "1.2.3",
        "::::",
        "",
    ],
)
def test_others_are_not(host):
    """Loopback above all: a peer must not make this machine talk to its own services."""
    assert not usable(host)


def test_no_more_are_tried_than_are_told():
    many = [Address(host=f"10.0.0.{n}", port=2000) for n in range(1, 100)]
    assert len(tried(many)) == MAX_ADDRESSES
    assert tried(many[:1] * 3) == many[:1]
    assert tried([Address(host="127.0.0.1", port=2000)]) == []


def test_own_addresses_are_usable_and_told_once():
    hosts = own_hosts()
    assert len(hosts) == len(set(hosts)) <= MAX_ADDRESSES
    assert all(usable(host) for host in hosts)
