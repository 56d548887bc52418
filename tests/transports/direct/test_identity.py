"""The certificate of a process: exactly it, and TLS 1.3, or nothing."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest

from sleap_rtc.errors import ProtocolError
from sleap_rtc.transports.direct.identity import Identity, is_peer


def handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> tuple[object, object]:
    """What each side has after a handshake: a connection, or its error."""
    ends = socket.socketpair()
    found: list[object] = [None, None]

    def run(n: int, context: ssl.SSLContext) -> None:
        try:
            ends[n].settimeout(5)
            found[n] = context.wrap_socket(ends[n], server_side=n == 1)
            found[n].sendall(b"x")
            found[n].recv(1)
        except OSError as error:
            close(found[n], ends[n])
            found[n] = error

    threads = [threading.Thread(target=run, args=each) for each in enumerate((client, server))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found[0], found[1]


def close(*found):
    for each in found:
        if isinstance(each, socket.socket):
            each.close()


def test_each_side_sees_exactly_the_others_certificate(identities):
    one, two = identities
    client, server = handshake(
        one.tls(peer=two.certificate, listens=False), two.tls(peer=one.certificate, listens=True)
    )
    assert client.version() == server.version() == "TLSv1.3"
    assert is_peer(client, two.certificate)
    assert is_peer(server, one.certificate)
    assert not is_peer(client, one.certificate)
    close(client, server)


@pytest.mark.parametrize("liar", ["client", "server"])
def test_another_certificate_is_refused(identities, liar):
    one, two = identities
    eve = Identity()
    client, server = handshake(
        (eve if liar == "client" else one).tls(peer=two.certificate, listens=False),
        (eve if liar == "server" else two).tls(peer=one.certificate, listens=True),
    )
    assert isinstance(server if liar == "client" else client, OSError)
    close(client, server)


def test_without_a_certificate_nobody_is_let_in(identities):
    one, two = identities
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname = False
    bare.verify_mode = ssl.CERT_NONE
    client, server = handshake(bare, two.tls(peer=one.certificate, listens=True))
    assert isinstance(server, ssl.SSLError)
    close(client, server)


def test_older_tls_is_refused(identities):
    one, two = identities
    old = one.tls(peer=two.certificate, listens=False)
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    client, server = handshake(old, two.tls(peer=one.certificate, listens=True))
    assert isinstance(server, ssl.SSLError)
    assert isinstance(client, OSError)


@pytest.mark.parametrize("bad", [b"", b"abc", bytes(500)])
def test_what_is_no_certificate_is_a_broken_rule(identities, bad):
    with pytest.raises(ProtocolError):
        identities[0].tls(peer=bad, listens=True)


def test_no_key_is_shown(identities):
    assert "PRIVATE" not in repr(identities[0])
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in identities[0]._pem
