"""What ``doctor`` looks at of the system's network: what fast and long lines need."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sleap_rtc.cli.machine_documents import CheckShown
from sleap_rtc.domain.units import format_bytes
from sleap_rtc.transports.datagrams import ROOM

SETTING: Final = "net.core.rmem_max"
"""How much room a program may ask for in a socket, for what arrives."""
_PLACE: Final = Path("/proc/sys")


def sockets(place: Path = _PLACE) -> CheckShown | None:
    """Whether sockets may have the room that WebRTC needs; None where the system doesn't tell.

    Args:
        place: Where Linux shows its settings.
    """
    try:
        most = int(place.joinpath(*SETTING.split(".")).read_text("ascii"))
    except (OSError, ValueError):
        return None
    if most >= ROOM:
        words = f"may have the {format_bytes(ROOM)} that WebRTC needs"
        return CheckShown(name="sockets", status="ok", message=words, hint="")
    return CheckShown(
        name="sockets",
        status="note",
        message=f"{SETTING} is {format_bytes(most)}: when this machine is busy, or the line long, "
        "WebRTC loses packets and is slower",
        hint=f"As an administrator: sysctl -w {SETTING}={ROOM} (in /etc/sysctl.d it stays so).",
    )
