"""A room's storage, as a device of the room asks for it: opened when it is first needed.

The bytes go to wherever the server's links lead. Everything here blocks; threads
may share it. Needs the extra ``http``.
"""

from __future__ import annotations

import importlib.util
import threading
from typing import TYPE_CHECKING, Final

import sleap_rtc
from sleap_rtc.auth.store import DeviceStore, RoomEntry
from sleap_rtc.config import Settings
from sleap_rtc.errors import UsageError
from sleap_rtc.net.address import parse_server

if TYPE_CHECKING:
    from sleap_rtc.net.api import ServerApi
    from sleap_rtc.storage.remote import RemoteStore
    from sleap_rtc.storage.service import Area

_NEEDED: Final = "httpcore2"


class RoomStorage:
    """One area of a room: as a rule ``uploads``, datasets on their way, kept for a day.

    Args:
        settings: Where the device's key is, and what the device is called.
        room: The room.
        area: The area; in ``rooms`` models' files stay.
    """

    def __init__(self, settings: Settings, room: RoomEntry, area: Area = "uploads") -> None:
        self._settings, self._room, self._area = settings, room, area
        self._lock = threading.Lock()
        self._api: ServerApi | None = None
        self._store: RemoteStore | None = None

    @property
    def can(self) -> bool:
        """Whether what it needs is installed."""
        return importlib.util.find_spec(_NEEDED) is not None

    def open(self) -> RemoteStore:
        """The storage; asking it signs in at the server.

        Raises:
            UsageError: What it needs isn't installed.
        """
        with self._lock:
            if self._store is None:
                self._store = self._made()
            return self._store

    def close(self) -> None:
        """End its connections; who waits to ask again gives up."""
        with self._lock:
            if self._api is not None:
                self._api.close()
            self._api = self._store = None

    def _made(self) -> RemoteStore:
        if not self.can:
            raise UsageError(
                message="Storage is asked over HTTP, which is not installed here.",
                hint="pip install 'sleap-rtc[http]'",
            )
        # Most of what imports this module never asks the storage for anything.
        from sleap_rtc.net.api import ServerApi  # noqa: PLC0415
        from sleap_rtc.storage.remote import RemoteStore  # noqa: PLC0415

        settings = self._settings
        key = DeviceStore(settings.home).device_key()
        self._api = ServerApi(
            parse_server(self._room.server, insecure=settings.insecure),
            device=key.device,
            sign=key.sign,
            name=settings.name,
            program=f"sleap-rtc {sleap_rtc.__version__}",
            offline=settings.offline,
        )
        return RemoteStore(self._api, self._room.room, self._area)
