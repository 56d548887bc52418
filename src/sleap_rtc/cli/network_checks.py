"""What ``doctor`` looks at of the system's network: what long lines need."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sleap_rtc.cli.machine_documents import CheckShown
from sleap_rtc.domain.units import format_bytes
from sleap_rtc.transports.datagrams import ROOM

SETTINGS: Final = ("net.core.rmem_max", "net.core.wmem_max")
"""How much room a program may ask for in a socket, for what arrives and for what leaves."""
_PLACE: Final = Path("/proc/sys")


def sockets(place: Path = _PLACE) -> CheckShown | None:
    """Whether sockets may have the room that long lines need; None where the system doesn't tell.

    Args:
        place: Where Linux shows its settings.
    """
    found: dict[str, int] = {}
    for name in SETTINGS:
        try:
            found[name] = int(place.joinpath(*name.split(".")).read_text("ascii"))
        except (OSError, ValueError):
            return None
    small = {name: size for name, size in found.items() if size < ROOM}
    if not small:
        words = f"sockets may have the {format_bytes(ROOM)} that long lines need"
        return CheckShown(name="long lines", status="ok", message=words, hint="")
    told = ", ".join(f"{name} is {format_bytes(size)}" for name, size in small.items())
    settings = " ".join(f"{name}={ROOM}" for name in small)
    return CheckShown(
        name="long lines",
        status="note",
        message=f"{told}: transfers over long or busy lines lose packets and are slower",
        hint=f"As an administrator: sysctl -w {settings} (in /etc/sysctl.d it stays so).",
    )
