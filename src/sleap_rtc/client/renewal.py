"""Keeping this device's certificates fresh where it can do so itself."""

from __future__ import annotations

from datetime import UTC, datetime

from sleap_rtc.auth.certificates import verify_chain
from sleap_rtc.auth.issue import make_room, needs_renewal
from sleap_rtc.auth.store import DeviceStore, RoomEntry
from sleap_rtc.errors import NotTrusted


def renewed(store: DeviceStore, entry: RoomEntry) -> RoomEntry:
    """The room with a fresh certificate, where this device has the room's key and needs one."""
    key = store.room_key(entry.room)
    if key is None:
        return entry
    now = datetime.now(UTC)
    device = store.device_key().device
    name = entry.name
    try:
        member = verify_chain(entry.chain, room=entry.room, now=now, who="This device")
    except NotTrusted:
        pass  # it ended while the device was away: the room's key makes a new one all the same
    else:
        if not needs_renewal(member.expires, now):
            return entry
        name = member.name
    chain = make_room(key, device, name=name, now=now)
    fresh = RoomEntry(
        room=entry.room, name=entry.name, server=entry.server, role="owner", chain=chain
    )
    store.save_room(fresh)
    return fresh
