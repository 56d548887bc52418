"""Which library makes WebRTC connections: the fast one where it can be loaded, else the portable.

Both talk to each other, so each side chooses for itself.
"""

from __future__ import annotations

from sleap_rtc.config import WebRtcLibrary
from sleap_rtc.errors import UsageError
from sleap_rtc.transports import portable, webrtc
from sleap_rtc.transports.peer import Peer


def shell(choice: WebRtcLibrary = "auto") -> type[Peer]:
    """The class that makes connections.

    Args:
        choice: The setting ``webrtc_library``.

    Raises:
        UsageError: None is installed, or not the one that is asked for.
    """
    if choice == "portable":
        portable.library()
        return portable.PortableWebRtc
    try:
        webrtc.library()
    except UsageError:
        if choice == "fast":
            raise
    else:
        return webrtc.WebRtc
    try:
        portable.library()
    except UsageError:
        raise UsageError(
            message="WebRTC is not installed.",
            hint="pip install 'sleap-rtc[peer]', or 'sleap-rtc[peer-portable]' on older systems",
        ) from None
    return portable.PortableWebRtc
