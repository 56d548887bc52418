"""What passes servers, beside what would if everything were relayed: ``python -m bench.cost``.

Bytes that leave a relay or a store are what is paid for, so only those are counted: of the relay
every packet that coturn sends, by the system's own counters; of the store what the server says it
has given out. Signaling isn't counted, on either side.

==================  ==============================================================
situation           what is between the two machines
==================  ==============================================================
one network         nothing: they reach each other
home routers        a router before each, through which holes can be punched
symmetric NAT       routers before both through which they can't
no UDP              routers that let nothing but TCP out
all relayed         routers that let out what goes to the relay alone
data, first job     the room's storage, from which the worker fetches a job's data
data, next job      the same, and the worker had these data for another job
data, other worker  the same, and it was another worker that had them
==================  ==============================================================

The relay is there in each of the first five, and told to both: that it isn't used is what is
measured. What relaying everything would cost is the least that was measured where it had to be
used. How often each of them is met is an assumption (:data:`MIXES`).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.lab import URL, lab, set_epochs
from bench.loss import transfers
from bench.pairs import enter_namespace
from bench.wire import MB
from sleap_rtc.demo.configs import write_configs
from sleap_rtc.media.synthetic import NODES, make_dataset
from sleap_rtc.testing import netns
from sleap_rtc.testing.nat import Router
from sleap_rtc.testing.turn import TurnServer

RELAYED: Final = "all relayed"
ROUTERS: Final[dict[str, dict[str, Any] | None]] = {
    "one network": None,
    "home routers": {"kind": "cone"},
    "symmetric NAT": {"kind": "symmetric"},
    "no UDP": {"passes": "tcp"},
    RELAYED: {"passes": "servers"},
}
"""The routers before both machines; None where there are none."""
THROUGH_RELAY: Final = ("symmetric NAT", "no UDP", RELAYED)
STORED: Final = ("data, first job", "data, next job", "data, other worker")

LINKS: Final = 0.5
"""The part of all bytes that goes from machine to machine; the rest is data of jobs."""
TURNED: Final = 0.22
"""The part of connections that need a relay, as callstats.io counted it among calls in 2015 and
2016 (webrtcHacks), the highest that was found published for all networks."""
NEAR: Final = 0.3
"""The part of connections between machines that reach each other; labs differ most in this."""
JOBS: Final = 3
"""Jobs that one set of data is trained with, on one worker."""

MIXES: Final[dict[str, dict[str, float]]] = {
    "a lab": {
        "one network": LINKS * NEAR,
        "home routers": LINKS * (1 - NEAR - TURNED),
        "symmetric NAT": LINKS * TURNED / 2,
        "no UDP": LINKS * TURNED / 2,
        "data, first job": (1 - LINKS) / JOBS,
        "data, next job": (1 - LINKS) * (JOBS - 1) / JOBS,
    },
    "links alone": {
        "one network": NEAR,
        "home routers": 1 - NEAR - TURNED,
        "symmetric NAT": TURNED / 2,
        "no UDP": TURNED / 2,
    },
    "data alone": {"data, first job": 1 / JOBS, "data, next job": 1 - 1 / JOBS},
    "at worst": {"symmetric NAT": 0.5, "data, first job": 0.5},
}
"""How the bytes of a mix are shared out; each is 1 in all. The first one's saving is a goal."""
GOAL: Final = 40.0
"""Percent that is wanted to be saved of the first mix."""

_NUMBERS: Final = (147, 148)
"""Of the routers; tests that run beside this one's have others."""
# The relay's ports are no ephemeral ones, so that nobody else's packets are counted.
_PORTS: Final = (61_100, 61_999)
_COUNTERS: Final = """
table ip relayed {{
  chain leaving {{
    type filter hook output priority 0
    {outwards} udp sport {{ {port}, {first}-{last} }} counter
    {outwards} tcp sport {port} counter
  }}
}}
"""
_GIVEN_OUT: Final = re.compile(
    r'^sleap_rtc_storage_bytes_total\{direction="out"\} (\S+)$', re.MULTILINE
)
_THRESHOLD: Final = 100_000
"""Bytes from which data are stored here, in place of 100 MB: the data are small."""


def measure(folder: Path, *, size: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure every situation.

    Args:
        folder: For all files.
        size: Bytes of a file that goes over a link.
        say: Shows a line.

    Returns:
        By situation: ``moved``, the bytes that arrived, and ``passed``, those of a server.

    Raises:
        FileNotFoundError: coturn or nft isn't installed.
        NotPermitted: Routers can't be made here.
        RuntimeError: Something didn't arrive.
    """
    found = {name: linked(folder, size=size, name=name, say=say) for name in ROUTERS}
    return found | stored(folder, say=say)


def linked(folder: Path, *, size: int, name: str, say: Callable[[str], None]) -> dict[str, int]:
    """Move a file between two machines, with a relay at hand.

    Args:
        folder: For all files.
        size: Bytes of the file.
        name: One of :data:`ROUTERS`.
        say: Shows a line.
    """
    address, about = netns.inside() or netns.ADDRESS, ROUTERS[name]
    with (
        TurnServer(folder / "turn", address, ports=_PORTS) as turn,
        # From one relayed address to another of the same relay nothing leaves it.
        _counted(turn.port, outwards="" if about is None else 'oifname "wan*"') as sent,
    ):
        stun = {"urls": [f"stun:{address}:{turn.port}"]}
        there: dict[str, Any] = {"ice": [stun, turn.ice("udp", "tcp")], "size": size, "count": 1}
        if about is None:
            told = transfers(folder, way="near", transport="direct", **there)
        else:
            with Router(_NUMBERS[0], **about) as one, Router(_NUMBERS[1], **about) as other:
                told = transfers(folder, way="turn", routers=(one, other), **there)
        passed = sent()
    if len(told["receiver"]["seconds"]) != 1:
        failures = told["sender"]["failures"] + told["receiver"]["failures"]
        raise RuntimeError(f"{name}: {'; '.join(failures)}")
    return _said(name, size, passed, say)


@contextmanager
def _counted(port: int, *, outwards: str) -> Iterator[Callable[[], int]]:
    """Counts what a relay sends: bytes of IP packets, of those that fit a rule's ``outwards``."""
    rules = _COUNTERS.format(port=port, first=_PORTS[0], last=_PORTS[1], outwards=outwards)
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)

    def sent() -> int:
        command = ["nft", "-j", "list", "table", "ip", "relayed"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rules = [each["rule"] for each in json.loads(told)["nftables"] if "rule" in each]
        words = [word["counter"] for rule in rules for word in rule["expr"] if "counter" in word]
        return sum(int(each["bytes"]) for each in words)

    try:
        yield sent
    finally:
        subprocess.run(["nft", "delete", "table", "ip", "relayed"], check=True)


def stored(folder: Path, *, say: Callable[[str], None]) -> dict[str, dict[str, int]]:
    """Train with the same data three times, and see what the room's storage gives out for it."""
    data = make_dataset(folder / "data").package
    config, _ = write_configs(folder / "configs", "tiny", NODES)
    size, found = data.stat().st_size, {}
    settings = f"large_file_threshold = {_THRESHOLD}\n"
    with lab(folder, workers=("box", "other"), config=settings) as there:
        for epochs, (name, worker) in enumerate(zip(STORED, ("box", "box", "other"), strict=True)):
            set_epochs(config, epochs + 1)
            before = _given_out()
            there.laptop.run(
                *("train", str(data), "--config", str(config), "--engine", "tiny"),
                *("--worker", worker, "--no-download", "--yes", "--json"),
            )
            found[name] = _said(name, size, _given_out() - before, say)
    return found


def _given_out() -> int:
    with urllib.request.urlopen(f"{URL}/metrics") as answer:
        return given_out(answer.read().decode())


def given_out(metrics: str) -> int:
    """Bytes that a server's storage has given out, by what it tells Prometheus."""
    told = _GIVEN_OUT.search(metrics)
    return int(float(told[1])) if told else 0


def _said(name: str, moved: int, passed: int, say: Callable[[str], None]) -> dict[str, int]:
    say(f"{name}: of {moved / MB:.1f} MB {passed / MB:.2f} MB by a server")
    return {"moved": moved, "passed": passed}


# ── what it comes to ─────────────────────────────────────────────────────────


def saved(measured: Mapping[str, Mapping[str, int]], mix: Mapping[str, float]) -> float:
    """Percent of the bytes that servers would send if all were relayed, and don't.

    Args:
        measured: As :func:`measure` returns it.
        mix: Part of all bytes by situation; 1 in all.
    """
    ours = sum(part * _passed(measured, name) for name, part in mix.items())
    # A busy machine makes one or the other send more twice: the least of them counts.
    relayed = min(_passed(measured, name) for name in THROUGH_RELAY)
    return 100 * (1 - ours / relayed)


def _passed(measured: Mapping[str, Mapping[str, int]], name: str) -> float:
    """Bytes that a server sends for each byte that arrives."""
    return measured[name]["passed"] / measured[name]["moved"]


def tables(measured: Mapping[str, Mapping[str, int]]) -> list[str]:
    """What was measured, and what it comes to with each of :data:`MIXES`."""
    usual = next(iter(MIXES.values()))
    rows = [
        f"| {name} | {each['moved'] / MB:.1f} | {100 * _passed(measured, name):.1f} "
        f"| {100 * usual.get(name, 0):.0f} |"
        for name, each in measured.items()
    ]
    sums = [f"| {name} | {saved(measured, mix):.0f} |" for name, mix in MIXES.items()]
    return [
        "| what moves, and between what | MB | % of it sent by a server | % of a lab's bytes |",
        "|---|---|---|---|",
        *rows,
        "",
        "| mix | % less by servers than if all were relayed |",
        "|---|---|",
        *sums,
    ]


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.cost", description=__doc__)
    parser.add_argument("--size", type=int, default=24, help="MB of a file over a link")
    given = parser.parse_args()
    enter_namespace("bench.cost")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        measured = measure(Path(name), size=given.size * MB, say=_say)
    print("\n".join(tables(measured)))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
