"""Room in sockets, whoever made them."""

from __future__ import annotations

import os
import socket

from sleap_rtc.transports import datagrams
from sleap_rtc.transports.datagrams import make_room


def room(of: socket.socket) -> int:
    return of.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def test_datagram_sockets_get_room_once_and_others_stay():
    with (
        socket.socket(type=socket.SOCK_DGRAM) as udp,
        socket.socket() as tcp,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix,
    ):
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000)
        others = room(tcp), room(unix)
        small = room(udp)
        assert make_room(40_000) >= 1
        assert room(udp) >= 40_000 > small
        assert (room(tcp), room(unix)) == others
        assert make_room(40_000) == 0


def test_what_the_system_doesn_t_give_is_not_counted():
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        make_room(2**30)
        most = room(udp)
        assert make_room(2**30) == 0
        assert room(udp) == most


def test_files_that_are_closed_meanwhile_and_systems_without_a_list(monkeypatch):
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000)
        real = os.listdir
        monkeypatch.setattr(datagrams.os, "listdir", lambda path: ["999999", *real(path)])
        assert make_room(40_000) >= 1
        monkeypatch.setattr(datagrams, "_FILES", ("/nowhere",))
        assert make_room() == 0
