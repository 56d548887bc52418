"""Files over bad networks: how many of 100 transfers end well, and how fast long lines are.

::

    python -m bench.loss                 100 transfers, 1 % loss, disconnects at random
    python -m bench.loss --speed         long lines: ours, and what the line itself carries
    python -m bench.loss --turn          through coturn, between peers with no other way
    python -m bench.loss --near          100 transfers on one machine: none may stall

Two processes, as in `bench.transfer`: the sender offers a file, the receiver fetches, checks and
writes it. Between them is the long line of `sleap_rtc.testing.distance`, or for ``--turn`` a router
before each (`sleap_rtc.testing.nat`). Signaling goes over a pipe, which is always there. Beside
ours stands the binding's own loop (`bench.bare`), and on lines bare TCP and UDP, from the same
minute.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

from bench.far import WITHIN_S
from bench.pairs import ROOT, enter_namespace
from bench.wire import MB
from sleap_rtc.testing import distance, netns
from sleap_rtc.testing.distance import FAR, NEAR, Line, long_line
from sleap_rtc.testing.nat import Router
from sleap_rtc.testing.turn import TurnServer

DELAY_S: Final = 0.02
LINES: Final = {
    "40 ms": Line(delay_s=DELAY_S),
    "40 ms, 0.5 % loss": Line(delay_s=DELAY_S, loss=0.005),
    "40 ms, 50 MB/s": Line(delay_s=DELAY_S, rate=50e6),
    "40 ms, 12.5 MB/s, 0.01 % loss": Line(delay_s=DELAY_S, rate=12.5e6, loss=0.0001),
}
"""Loss is each way, and so is the delay."""
RELAYS: Final[dict[str, tuple[str, Literal["udp", "tcp"]]]] = {
    "udp": ("turn", "udp"),
    "udp, both relayed": ("relays", "udp"),
    "tcp, both relayed": ("relays", "tcp"),
}
"""Ways of `bench.far`, and how both peers speak to the TURN server."""
BAD: Final = Line(delay_s=0.005, loss=0.01)
"""What the 100 transfers go over."""
PACKET: Final = 1_200
BARE_PART: Final = 4
"""The bare loop sends this part of what we send."""
TURNS: Final = 3
"""Of what is compared with each other over a line."""
STALL_S: Final = 4.0
"""Seconds of a near transfer from which something waited for a time-out."""


# ── both, and what is between them ───────────────────────────────────────────


def transfers(
    folder: Path, *, way: str, size: int, count: int, routers: tuple[Router, ...] = (), **more: Any
) -> dict[str, Any]:
    """Move files one after the other, and tell what both sides took.

    Args:
        folder: For the files.
        way: One of those of `bench.far`.
        size: Bytes of each.
        count: How many.
        routers: One for each side, for ways through a TURN server.
        more: For both processes.

    Raises:
        RuntimeError: One of them failed; it has said why on standard error.
    """
    ends = socket.socketpair()
    processes = {}
    for role, end in zip(("sender", "receiver"), ends, strict=True):
        into = folder / role
        into.mkdir(exist_ok=True)
        options = {"role": role, "fd": end.fileno(), "into": str(into), "way": way}
        options |= {"size": size, "count": count, **more}
        processes[role] = subprocess.Popen(
            [sys.executable, "-m", "bench.far", json.dumps(options)],
            cwd=ROOT,
            pass_fds=[end.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        end.close()
    try:
        for process, router in zip(processes.values(), routers, strict=False):
            assert process.stdout is not None
            process.stdout.readline()
            router.plug_in(process.pid)
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        said = {}
        for role, process in processes.items():
            said[role] = process.communicate(timeout=20 * WITHIN_S)[0]
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()
    for role, process in processes.items():
        if process.returncode:
            raise RuntimeError(f"the {role} ended with {process.returncode}")
    return {role: json.loads(text) for role, text in said.items()}


@contextlib.contextmanager
def disconnects(seed: int, counted: list[float]) -> Iterator[None]:
    """Cut the line at random, for up to ten seconds; how long each time is noted."""
    stop, chance = threading.Event(), random.Random(seed)

    def run() -> None:
        while not stop.wait(chance.uniform(1.0, 15.0)):
            away = chance.choice((0.3, 2.0, 6.0, 10.0)) * chance.random()
            distance.cut()
            stop.wait(away)
            distance.mend()
            counted.append(away)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def many(folder: Path, *, size: int, count: int, seed: int) -> dict[str, Any]:
    """Many transfers over a bad line; how many ended well, and how much was sent twice."""
    cuts: list[float] = []
    with long_line(BAD), disconnects(seed, cuts):
        told = transfers(folder, way="line", size=size, count=count)
    seconds = told["receiver"]["seconds"]
    return {
        "transfers": count,
        "ended_well": len(seconds),
        "failures": told["sender"]["failures"] + told["receiver"]["failures"],
        "disconnects": len(cuts),
        "disconnected_s": sum(cuts),
        "median_s": statistics.median(seconds or [0.0]),
        "longest_s": max(seconds, default=0.0),
        "sent_twice": told["sender"]["sent"] / (size * count) - 1,
    }


def speeds(
    folder: Path, *, size: int, lines: dict[str, Line], say: Callable[[str], None]
) -> dict[str, Any]:
    """How fast a file goes over each line, and what the line carries of bare TCP and UDP.

    Direct connections and bare TCP with BBR, which are compared, take turns: theirs are medians.
    """
    found = {}
    for name, line in lines.items():
        with long_line(line):
            bare = {"udp": _bare_udp(2.0), "tcp, cubic": _bare_tcp(4.0, "cubic")}
            bare["bare, one connection"] = _bare(folder, size // BARE_PART, way="line")
            told = transfers(folder, way="line", size=size, count=1)
            turns = [_direct_and_bbr(folder, size) for _ in range(TURNS)]
        found[name] = {"ours": _mb_per_s(size, told), **bare, **_cpu(size, told)}
        found[name]["connections"] = told["sender"]["connections"][0]
        found[name]["ours, direct"] = statistics.median(direct for direct, _ in turns)
        found[name]["tcp, bbr"] = statistics.median(bbr for _, bbr in turns)
        found[name]["direct / bbr"] = statistics.median(
            direct / bbr if bbr else 0.0 for direct, bbr in turns
        )
        say(f"{name}: {found[name]}")
    return found


def _direct_and_bbr(folder: Path, size: int) -> tuple[float, float]:
    """MB/s of a direct connection, and of bare TCP with BBR, 0 where this kernel can't."""
    bbr = _bare_tcp(4.0, "bbr")
    told = transfers(folder, way="line", size=size, count=1, transport="direct")
    return _mb_per_s(size, told), bbr


def relayed(folder: Path, *, size: int, name: str, say: Callable[[str], None]) -> dict[str, Any]:
    """How fast a file goes through a TURN server between two peers that reach nothing else.

    Args:
        folder: For the files.
        size: Bytes of the file.
        name: One of :data:`RELAYS`.
        say: Is told what was found.
    """
    way, transport = RELAYS[name]
    address = netns.inside() or netns.ADDRESS
    with (
        TurnServer(folder / "turn", address) as turn,
        Router(1, passes="servers") as one,
        Router(2, passes="servers") as other,
    ):
        there: dict[str, Any] = {"way": way, "routers": (one, other), "ice": [turn.ice(transport)]}
        bare = _bare(folder, size // BARE_PART, **there)
        before = turn.cpu_s
        told = transfers(folder, size=size, count=1, **there)
        relay = (turn.cpu_s - before) / size * 1000 * MB
    found = {"ours": _mb_per_s(size, told), "bare, one connection": bare, **_cpu(size, told)}
    found |= {"relay_cpu_s_per_gb": relay, "connections": told["sender"]["connections"][0]}
    say(f"TURN, {name}: {found}")
    return found


def near(folder: Path, *, size: int, count: int) -> dict[str, Any]:
    """Many transfers between peers on one machine: how long they take, and how many stall."""
    before = _overflows()
    told = transfers(folder, way="near", size=size, count=count)
    seconds = told["receiver"]["seconds"]
    return {
        "transfers": count,
        "ended_well": len(seconds),
        "failures": told["sender"]["failures"] + told["receiver"]["failures"],
        "median_s": statistics.median(seconds or [0.0]),
        "longest_s": max(seconds, default=0.0),
        "stalled": sum(each > STALL_S for each in seconds),
        "lost_in_sockets": _overflows() - before,
        "sent_twice": told["sender"]["sent"] / (size * count) - 1,
    }


def _overflows() -> int:
    """Packets that this network lost since they found a socket full."""
    names, values = [
        line.split()
        for line in Path("/proc/net/snmp").read_text("ascii").splitlines()
        if line.startswith("Udp:")
    ]
    return int(values[names.index("RcvbufErrors")])


def _bare(folder: Path, size: int, **there: Any) -> float:
    """MB/s of the binding's own loop."""
    told = transfers(folder, size=size, count=1, bare=True, **there)
    return size / MB / float(told["receiver"]["wall_s"])


def _mb_per_s(size: int, told: dict[str, Any]) -> float:
    return size / MB / told["receiver"]["seconds"][0]


def _cpu(size: int, told: dict[str, Any]) -> dict[str, float]:
    return {f"{role}_cpu_s_per_gb": told[role]["cpu_s"] / size * 1000 * MB for role in told}


def _bare_tcp(seconds: float, congestion: str) -> float:
    """MB/s of a bare TCP connection over the line; 0 where this kernel can't."""
    with socket.create_server((NEAR, 0)) as listening, socket.socket() as sender:
        try:
            name = congestion.encode()
            sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name)
        except OSError:
            return 0.0
        sender.connect((FAR, listening.getsockname()[1]))
        receiver, _ = listening.accept()
        with receiver:
            return _flow(sender, receiver, 262_144, seconds)


def _bare_udp(seconds: float) -> float:
    """MB/s of bare datagrams that arrive, of as many as are sent."""
    with (
        socket.socket(type=socket.SOCK_DGRAM) as sender,
        socket.socket(type=socket.SOCK_DGRAM) as receiver,
    ):
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        receiver.bind((NEAR, 0))
        sender.connect((FAR, receiver.getsockname()[1]))
        return _flow(sender, receiver, PACKET, seconds)


def _flow(sender: socket.socket, receiver: socket.socket, size: int, seconds: float) -> float:
    """Bytes per second that arrive, in millions, after the first second."""
    child = os.fork()
    if not child:  # a process of its own: one interpreter would be busy with both ends
        data = bytes(size)
        while True:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                sender.send(data)
    receiver.settimeout(0.5)
    try:
        counted, end = 0, time.perf_counter() + 1.0 + seconds
        while (now := time.perf_counter()) < end:
            with contextlib.suppress(TimeoutError):
                arrived = len(receiver.recv(262_144))
                counted += arrived if now > end - seconds else 0
        return counted / seconds / MB
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def main() -> None:
    """Measure, and print what was found as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.loss", description=__doc__)
    parser.add_argument("--speed", action="store_true", help="speeds over long lines instead")
    parser.add_argument("--turn", action="store_true", help="speeds through TURN instead")
    parser.add_argument("--near", action="store_true", help="many on one machine instead")
    parser.add_argument("--line", choices=LINES, help="this line alone")
    parser.add_argument("--count", type=int, default=100, help="how many transfers")
    parser.add_argument("--size", type=int, help="MB of each file")
    parser.add_argument("--seed", type=int, default=1, help="chooses the moments of disconnects")
    given = parser.parse_args()
    enter_namespace("bench.loss")

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        if given.speed:
            lines = LINES if given.line is None else {given.line: LINES[given.line]}
            found = speeds(folder, size=(given.size or 200) * MB, lines=lines, say=say)
        elif given.turn:
            size = (given.size or 200) * MB
            found = {name: relayed(folder, size=size, name=name, say=say) for name in RELAYS}
        elif given.near:
            found = near(folder, size=(given.size or 24) * MB, count=given.count)
        else:
            size = (given.size or 8) * MB
            found = many(folder, size=size, count=given.count, seed=given.seed)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
