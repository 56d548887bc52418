"""Routers that translate addresses, each in a namespace of its own, with one machine behind it.

The network that the test runs in is the internet: servers are on its address, and it knows the
routers' outer addresses alone::

    machine ─ lan ─ router ─ wan ─ [ this namespace: ADDRESS ] ─ wan ─ router ─ lan ─ machine
    10.78.n.2    .1        10.77.(99+n).2                    .1

What a router does with addresses is its kind:

``cone``       one outer port per socket inside, whoever it speaks with: holes can be punched
``symmetric``  another outer port for each address that is spoken with: they can't

And what it lets out is what it ``passes``: everything, nothing but what goes to the servers'
address, or no UDP at all. What comes in unasked is dropped by all of them.

It needs root, ``ip``, ``nsenter`` and ``unshare``, which come with every Linux, and ``nft``
(package nftables).
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final, Literal, Self

from sleap_rtc.errors import NotPermitted
from sleap_rtc.testing import netns

Kind = Literal["cone", "symmetric"]
Passes = Literal["all", "servers", "tcp"]

_PROGRAMS: Final = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "nft": "nftables",
}
_MASQUERADE: Final[dict[Kind, str]] = {
    "cone": "masquerade",
    "symmetric": "masquerade fully-random",
}
_DROPPED: Final[dict[Passes, str]] = {
    "all": "",
    "servers": f'oifname "wan" ip daddr != {netns.ADDRESS} drop',
    "tcp": 'oifname "wan" meta l4proto udp drop',
}
# An uninvited packet that the router took for its own would leave a note in its table, and the
# machine's own packet to the same place would get another port because of it.
_RULES: Final = """
table ip nat {{
  chain leaving {{
    type nat hook postrouting priority 100
    oifname "wan" {masquerade}
  }}
}}
table ip filter {{
  chain arriving {{
    type filter hook input priority 0
    iifname "wan" ct state new drop
  }}
  chain passing {{
    type filter hook forward priority 0
    iifname "wan" ct state new drop
    {dropped}
  }}
}}
"""
_INSIDE: Final = "10.78.0.0/16"
_FORWARD: Final = "/proc/sys/net/ipv4/ip_forward"


class Router:
    """A router, as a context manager.

    Args:
        number: 1 to 150, one for each router at a time: its addresses come from it.
        kind: What it does with addresses.
        passes: What it lets out.
    """

    def __init__(self, number: int, *, kind: Kind = "cone", passes: Passes = "all") -> None:
        self._number, self._kind, self._passes = number, kind, passes
        self._wan, self._lan = f"10.77.{99 + number}", f"10.78.{number}"
        self._host = 2
        self._inside = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def outer(self) -> str:
        """Its address on the internet."""
        return f"{self._wan}.2"

    def start(self) -> None:
        """Begin to route.

        Raises:
            NotPermitted: The system doesn't allow it, or a program is missing.
        """
        for program, package in _PROGRAMS.items():
            if shutil.which(program) is None:
                raise _refused(f"the program {program!r} is missing (package {package})")
        self._process = subprocess.Popen(
            # Its end, or this program's, ends the namespace.
            ["unshare", "--net", "sh", "-c", "echo; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None  # noqa: S101
        if not self._process.stdout.readline():
            raise _refused("unshare --net fails")
        here, router = f"wan{self._number}", self._process.pid
        try:
            _run("sh", "-c", f"echo 1 >{_FORWARD}")
            _run("ip", "link", "add", here, "type", "veth", "peer", "name", f"{here}r")
            _run("ip", "addr", "add", f"{self._wan}.1/24", "dev", here)
            _run("ip", "link", "set", here, "up")
            # What is for addresses inside gets lost on the way, as on the internet. Without any
            # route whoever sends it is told, and coturn for one gives up more than the packet.
            _run("ip", "route", "replace", _INSIDE, "via", self.outer)
            _run("ip", "link", "set", f"{here}r", "netns", str(router), "name", "wan")
            _in(router, "ip", "link", "set", "lo", "up")
            _in(router, "ip", "addr", "add", f"{self.outer}/24", "dev", "wan")
            _in(router, "ip", "link", "set", "wan", "up")
            _in(router, "ip", "route", "add", "default", "via", f"{self._wan}.1")
            _in(router, "sh", "-c", f"echo 1 >{_FORWARD}")
            rules = _RULES.format(
                masquerade=_MASQUERADE[self._kind], dropped=_DROPPED[self._passes]
            )
            _in(router, "nft", "-f", "-", given=rules)
        except NotPermitted:
            self.close()
            raise

    def plug_in(self, pid: int) -> None:
        """Put the machine behind it: a process that has a network of its own, still empty.

        Another one takes its place.
        """
        assert self._process is not None  # noqa: S101
        self._inside = pid
        router, outside = self._process.pid, f"lan{self._number}"
        _run("ip", "link", "add", outside, "type", "veth", "peer", "name", f"{outside}m")
        _in(router, "sh", "-c", "ip link del lan 2>/dev/null || true")
        _run("ip", "link", "set", outside, "netns", str(router), "name", "lan")
        _run("ip", "link", "set", f"{outside}m", "netns", str(pid), "name", "net0")
        _in(router, "ip", "addr", "add", f"{self._lan}.1/24", "dev", "lan")
        _in(router, "ip", "link", "set", "lan", "up")
        _in(pid, "ip", "link", "set", "lo", "up")
        _in(pid, "ip", "link", "set", "net0", "up")
        self._give_address()

    def change_address(self) -> None:
        """Give the machine another address in place of the one that it had."""
        _in(self._inside, "ip", "addr", "flush", "dev", "net0")
        self._host += 1
        self._give_address()

    def received(self) -> int:
        """Bytes that the machine has received, of everything."""
        lines = Path(f"/proc/{self._inside}/net/dev").read_text("ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.strip().startswith("net0:"))

    def close(self) -> None:
        """End it, and its networks with it."""
        if self._process is None:
            return
        subprocess.run(
            ("ip", "link", "del", f"wan{self._number}"), capture_output=True, check=False
        )
        self._process.kill()
        self._process.communicate()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _give_address(self) -> None:
        address = f"{self._lan}.{self._host}"
        _in(self._inside, "ip", "addr", "add", f"{address}/24", "dev", "net0")
        _in(self._inside, "ip", "route", "add", "default", "via", f"{self._lan}.1")


def _in(pid: int, *command: str, given: str = "") -> str:
    """Run a command in the network of a process."""
    return _run("nsenter", "--target", str(pid), "--net", "--", *command, given=given)


def _run(*command: str, given: str = "") -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise _refused(f"{' '.join(command)}: {done.stderr.strip()[:300]}")
    return done.stdout


def _refused(why: str) -> NotPermitted:
    return NotPermitted(message=f"A router can't be made here: {why}.")
