"""A network of one's own: a namespace with an address besides loopback and no route out.

WebRTC libraries don't offer 127.0.0.1 to the other side, so two peers on one
machine need another address. In a namespace made for them they have one, and
nothing that they send can leave::

    python -m sleap_rtc.testing.netns -- COMMAND [ARG …]

runs a command so. It needs Linux, ``ip`` (package iproute2), and root or
permission to make user namespaces; where that is missing, :func:`enter` says why.

Inside, ``SLEAP_RTC_NETNS`` is the address.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from typing import Final

from sleap_rtc.errors import NotPermitted

ADDRESS: Final = "10.77.0.1"
VARIABLE: Final = "SLEAP_RTC_NETNS"

_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000


def enter(address: str = ADDRESS) -> None:
    """Move this process into a new namespace that has loopback and ``address``.

    Must be called before any thread is started. Children inherit the namespace.

    Args:
        address: An IPv4 address, given to one end of a veth pair.

    Raises:
        NotPermitted: The system doesn't allow it, or ``ip`` is missing.
    """
    _unshare()
    commands = (
        ("link", "set", "lo", "up"),
        ("link", "add", "veth0", "type", "veth", "peer", "name", "veth1"),
        ("addr", "add", f"{address}/24", "dev", "veth0"),
        ("link", "set", "veth0", "up"),
        ("link", "set", "veth1", "up"),
    )
    for command in commands:
        try:
            subprocess.run(("ip", *command), check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise _refused("the program 'ip' is missing (package iproute2)") from None
        except subprocess.CalledProcessError as error:
            raise _refused(str(error.stderr).strip()) from None
    os.environ[VARIABLE] = address


def inside() -> str | None:
    """The address of the namespace that this process runs in, None outside of one."""
    return os.environ.get(VARIABLE)


def _unshare() -> None:
    if not sys.platform.startswith("linux"):
        raise _refused("only Linux has them")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) == 0:
        return
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        raise _refused(os.strerror(ctypes.get_errno()))
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"0 {uid} 1"),
        ("gid_map", f"0 {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:  # noqa: PTH123
            file.write(text)


def _refused(why: str) -> NotPermitted:
    return NotPermitted(message=f"A network namespace can't be made here: {why}.")


def main(argv: list[str]) -> int:
    """Become the command after ``--`` inside a namespace; returns only on failure."""
    command = argv[1:] if argv[:1] == ["--"] else argv
    if not command:
        sys.stderr.write("usage: python -m sleap_rtc.testing.netns -- COMMAND [ARG …]\n")
        return 2
    try:
        enter()
    except NotPermitted as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
