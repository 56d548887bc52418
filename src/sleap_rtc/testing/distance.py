"""A long line inside one network namespace: every packet arrives late, and some never do.

A TUN device has the address :data:`NEAR`. What is sent to :data:`FAR` comes out
of it; a small process holds it for as long as the line is, exchanges the two
addresses, and puts it back. So whoever connects to ``FAR`` reaches what listens
on ``NEAR``, over the line, and sees ``FAR`` as the other side::

    NEAR:p ──► FAR:q     [held, and then]     FAR:p ──► NEAR:q

It is for any protocol over IPv4, takes no kernel module for delays, and leaves
all checksums right, since they are sums. Both ways share the rate. WebRTC takes
this way alone if each side is told the other's candidates as :func:`over_line`
has them.

The process carries so many packets a second and not more, whatever the line is
like: measure bare TCP and UDP over it beside what is measured.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Final

import msgspec

from sleap_rtc.errors import NotPermitted
from sleap_rtc.protocol.peering import Candidate, Peering

NEAR: Final = "10.77.0.129"
FAR: Final = "10.77.0.130"
"""Both in the network of :mod:`sleap_rtc.testing.netns`, and routed to the line."""

_DEVICE: Final = "line0"
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_LONGEST: Final = 65_536
_BATCH: Final = 64
_IPV4_HEADER: Final = 20
_CANDIDATE_WORDS: Final = 8


class Line(msgspec.Struct, frozen=True):
    """How the line is.

    Attributes:
        delay_s: Seconds that each packet takes, one way.
        jitter_s: Up to so many seconds more, evenly spread: this reorders.
        loss: Probability that a packet is lost, 0 to 1.
        rate: Bytes per second that pass; None for as many as the process can carry.
        queue: Bytes that wait for their turn at that rate; what comes on top is lost.
        seed: Makes losses repeatable.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    rate: float | None = None
    queue: int = 2_000_000
    seed: int = 1


class Held:
    """The packets on a line. Pure: its user tells the time.

    Args:
        line: How the line is.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self._random = random.Random(line.seed)  # noqa: S311
        self._free_at = 0.0
        self._heap: list[tuple[float, int, bytes]] = []
        # Without jitter what enters first leaves first, and a row costs less than a heap.
        self._row: deque[tuple[float, bytes]] = deque()
        self._count = 0

    def take(self, packet: bytes, now: float) -> None:
        """A packet enters the line; what isn't IPv4 is lost."""
        line = self._line
        if len(packet) < _IPV4_HEADER or packet[0] >> 4 != 4:
            return
        if line.loss and self._random.random() < line.loss:
            return
        begun = now
        if line.rate is not None:
            begun = max(now, self._free_at)
            if (begun - now) * line.rate > line.queue:
                return
            begun = self._free_at = begun + len(packet) / line.rate
        due = begun + line.delay_s
        turned = packet[:12] + packet[16:20] + packet[12:16] + packet[20:]
        if not line.jitter_s:
            self._row.append((due, turned))
            return
        self._count += 1
        due += line.jitter_s * self._random.random()
        heapq.heappush(self._heap, (due, self._count, turned))

    def due(self, now: float) -> Iterator[bytes]:
        """Packets that arrive at the other end."""
        while self._row and self._row[0][0] <= now:
            yield self._row.popleft()[1]
        while self._heap and self._heap[0][0] <= now:
            yield heapq.heappop(self._heap)[2]

    def wait_s(self, now: float) -> float | None:
        """Seconds until the next one; None where the line is empty."""
        if self._row:
            return max(0.0, self._row[0][0] - now)
        return max(0.0, self._heap[0][0] - now) if self._heap else None


@contextlib.contextmanager
def long_line(line: Line) -> Iterator[None]:
    """Have such a line between :data:`NEAR` and :data:`FAR`, in this process's namespace.

    Raises:
        NotPermitted: The system doesn't allow it, or ``ip`` is missing. Outside of a namespace
            made for it (:mod:`sleap_rtc.testing.netns`) it usually doesn't.
    """
    device = _device()
    try:
        for command in (
            ("addr", "add", f"{NEAR}/30", "dev", _DEVICE),
            ("link", "set", _DEVICE, "up", "txqueuelen", "10000"),
        ):
            _ip(*command)
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(device), msgspec.json.encode(line).decode()],
            stdin=subprocess.PIPE,
            pass_fds=[device],
        )
    finally:
        os.close(device)
    assert process.stdin is not None  # noqa: S101
    try:
        yield
    finally:
        # The end of its input ends it, also when this process is killed; and with it the device.
        process.stdin.close()
        process.wait()


def cut() -> None:
    """Let nothing pass the line of this namespace, until :func:`mend`."""
    _ip("link", "set", _DEVICE, "down")


def mend() -> None:
    """Let everything pass again."""
    _ip("link", "set", _DEVICE, "up")


def over_line(message: Peering) -> Peering | None:
    """What the other side is told instead, so that the line is the only way; None for nothing."""
    if not isinstance(message, Candidate) or not message.candidate:
        return message
    words = message.candidate.split(" ")
    if len(words) < _CANDIDATE_WORDS or words[2].lower() != "udp" or words[4] != NEAR:
        return None
    words[4] = FAR
    return msgspec.structs.replace(message, candidate=" ".join(words))


def _device() -> int:
    try:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        raise _refused(f"/dev/net/tun: {error.strerror}") from None
    try:
        request = struct.pack("16sH22x", _DEVICE.encode(), _IFF_TUN | _IFF_NO_PI)
        fcntl.ioctl(device, _TUNSETIFF, request)
    except OSError as error:
        os.close(device)
        raise _refused(str(error.strerror)) from None
    return device


def _ip(*command: str) -> None:
    try:
        subprocess.run(("ip", *command), check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise _refused("the program 'ip' is missing (package iproute2)") from None
    except subprocess.CalledProcessError as error:
        raise _refused(str(error.stderr).strip()) from None


def _refused(why: str) -> NotPermitted:
    return NotPermitted(message=f"A long line can't be made here: {why}.")


def _carry(device: int, line: Line) -> None:
    """Carry packets until the input ends."""
    held = Held(line)
    while True:
        ready, _, _ = select.select([device, 0], [], [], held.wait_s(time.monotonic()))
        if 0 in ready:
            return
        if device in ready:
            with contextlib.suppress(BlockingIOError):
                for _ in range(_BATCH):
                    held.take(os.read(device, _LONGEST), time.monotonic())
        for packet in held.due(time.monotonic()):
            try:
                os.write(device, packet)
            except OSError as error:
                # A line that is cut takes nothing.
                if error.errno not in (errno.EAGAIN, errno.ENOBUFS, errno.EINVAL, errno.EIO):
                    raise


if __name__ == "__main__":
    _carry(int(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=Line))
