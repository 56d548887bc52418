"""Answers of stores, plain ones and all others, whole and cut at any byte."""

from __future__ import annotations

import http.client
import itertools
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sleap_rtc.storage.answers import PlainAnswer, read_answer
from sleap_rtc.storage.wire import headers_of

HEAD = b'HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nETag: "99f5" \r\nX:\r\n\r\n'


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    with ours, theirs:
        yield ours, theirs


def say(theirs: socket.socket, *pieces: bytes) -> threading.Thread:
    """Say something piece by piece, then hang up."""

    def speak() -> None:
        for piece in pieces:
            theirs.sendall(piece)
        theirs.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=speak)
    thread.start()
    return thread


Ends = tuple[socket.socket, socket.socket]


def test_a_plain_answer(ends: Ends) -> None:
    ours, theirs = ends
    theirs.sendall(HEAD + b"12345")
    with read_answer(ours) as answer:
        assert isinstance(answer, PlainAnswer)
        assert headers_of(answer) == {"content-length": "5", "etag": '"99f5"', "x": ""}
        assert (answer.status, answer.length, answer.will_close) == (206, 5, False)
        assert answer.read(2) == b"12"
        assert not answer.isclosed()
        rest = bytearray(9)
        assert answer.readinto(memoryview(rest)) == 3
        assert rest[:3] == b"345"
        assert answer.isclosed()
        assert answer.read(1) == b""
        assert answer.readinto(memoryview(rest)) == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, len(HEAD) + 4), max_size=4), st.booleans())
def test_wherever_it_is_cut_into_pieces(cuts: list[int], plain: bool) -> None:
    said = HEAD + b"12345" if plain else HEAD.replace(b"X:", b"Etag:") + b"12345"
    places = [0, *sorted(set(cuts)), len(said)]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pieces = (said[a:b] for a, b in itertools.pairwise(places))
        speaking = say(theirs, *pieces)
        answer = read_answer(ours)
        assert isinstance(answer, PlainAnswer) is plain
        assert answer.read(5) == b"12345"
        assert answer.isclosed()
        speaking.join()


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n123\r\n2\r\n45\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"12345",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: 1\r\n folded\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: " + b"x" * 60_000 + b"\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\nX: 1\r\nx: 2\r\nContent-Length: 5\r\n\r\n12345",
    ],
    ids=["chunked", "continue", "old", "until the end", "folded", "long", "twice"],
)
def test_what_isnt_plain_is_understood_all_the_same(ends: Ends, said: bytes) -> None:
    ours, theirs = ends
    speaking = say(theirs, said)
    with read_answer(ours) as answer:
        assert isinstance(answer, http.client.HTTPResponse)
        assert answer.read(65_536) == b"12345"
    speaking.join()


@pytest.mark.parametrize(
    "said",
    [b"", b"HTT", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"A: 1\r\n" * 200],
    ids=["nothing", "a part", "another protocol", "many lines"],
)
def test_what_is_no_answer(ends: Ends, said: bytes) -> None:
    ours, theirs = ends
    speaking = say(theirs, said)
    with pytest.raises(http.client.HTTPException):
        read_answer(ours)
    speaking.join()


@pytest.mark.parametrize("length", [b"-5", b"+5", b"5, 5", b"0x5", b"5 5", "\u0665".encode()])
def test_an_odd_length_is_none(ends: Ends, length: bytes) -> None:
    """What it means is left to the library, or to nobody."""
    ours, theirs = ends
    speaking = say(theirs, b"HTTP/1.1 200 OK\r\nContent-Length: " + length + b"\r\n\r\n12345")
    answer = read_answer(ours)
    assert isinstance(answer, http.client.HTTPResponse)
    answer.close()
    speaking.join()


def test_a_line_that_is_no_header_takes_no_time(ends: Ends) -> None:
    ours, theirs = ends
    line = b"X:" + b" " * 15_000 + b"x" * 15_000 + b"\0"
    speaking = say(theirs, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + line + b"\r\n\r\n12345")
    began = time.thread_time()
    assert read_answer(ours).read(5) == b"12345"
    assert time.thread_time() - began < 0.5
    speaking.join()


def test_a_store_that_hangs_up_or_says_too_much(ends: Ends) -> None:
    ours, theirs = ends
    theirs.sendall(HEAD + b"12345HTTP/1.1 200 OK")
    answer = read_answer(ours)
    assert answer.will_close
    assert answer.read(9) == b"12345"
    theirs.sendall(HEAD.replace(b"X:", b"Connection: Close") + b"123")
    theirs.shutdown(socket.SHUT_WR)
    answer = read_answer(ours)
    assert answer.will_close
    assert answer.read(9) == b"123"
    assert answer.length == 2
    assert not answer.isclosed()


def test_no_content_is_read_to_its_end(ends: Ends) -> None:
    ours, theirs = ends
    theirs.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    answer = read_answer(ours)
    assert (answer.status, answer.isclosed(), answer.read(5)) == (404, True, b"")
    theirs.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
    answer = read_answer(ours)
    assert (answer.read(1), answer.isclosed()) == (b"", True)


def test_what_head_asks_about_doesnt_come(ends: Ends) -> None:
    ours, theirs = ends
    theirs.sendall(HEAD)
    answer = read_answer(ours, "HEAD")
    assert isinstance(answer, PlainAnswer)
    assert headers_of(answer)["content-length"] == "5"
    assert (answer.isclosed(), answer.will_close, answer.read(9)) == (True, False, b"")
    theirs.sendall(HEAD.replace(b"1.1", b"1.0"))  # one that isn't plain
    answer = read_answer(ours, "HEAD")
    assert not isinstance(answer, PlainAnswer)
    assert (answer.read(9), answer.isclosed()) == (b"", True)
