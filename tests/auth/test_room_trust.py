from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sleap_rtc.auth import issue
from sleap_rtc.auth.handshake import Handshake, Refuse, Send, Setup
from sleap_rtc.auth.membership import Membership
from sleap_rtc.auth.room_trust import RoomTrust
from sleap_rtc.auth.store import DeviceStore, RoomEntry
from sleap_rtc.domain.ids import RoomId
from sleap_rtc.errors import NotTrusted, UnknownRoom, WorkerChanged
from sleap_rtc.protocol.handshake import Hello
from sleap_rtc.testing.made_room import MadeRoom

COMMON: dict[str, Any] = {
    "session": "session-1",
    "purpose": "control",
    "own_fingerprint": bytes(32),
    "peer_fingerprint": bytes([1]) * 32,
    "expected": None,
}


@pytest.fixture
def store(tmp_path: Path, house: MadeRoom) -> DeviceStore:
    store = DeviceStore(tmp_path, host="lab-1")
    key = store.device_key()
    chain = issue.make_room(house.room_key, key.device, name="laptop", now=house.now)
    store.save_room(
        RoomEntry(room=house.room, name="lab", server="http://127.0.0.1", role="owner", chain=chain)
    )
    return store


def setup(store: DeviceStore, house: MadeRoom) -> Setup:
    trust = RoomTrust(store, house.room)
    return trust.setup(side="offerer", nonce=bytes(32), now=house.now, **COMMON)


def test_a_handshake_starts_from_the_store(store: DeviceStore, house: MadeRoom) -> None:
    (effect,) = Handshake(setup(store, house)).start()
    assert isinstance(effect, Send)
    assert isinstance(effect.message, Hello)
    assert effect.message.device == store.device_key().device


def test_what_was_learnt_counts_in_the_next_handshake(store: DeviceStore, house: MadeRoom) -> None:
    trust = RoomTrust(store, house.room)
    newer = house.next_list()
    invite, device = house.key(100).device, house.key(3).device
    trust.save_membership(newer)
    trust.save_invite(invite, device)
    found = setup(store, house)
    assert found.membership == newer
    assert found.seen_invites == {invite: device}
    with pytest.raises(NotTrusted, match="another one has used it"):
        trust.save_invite(invite, house.key(4).device)


def test_a_removed_device_does_not_even_start(store: DeviceStore, house: MadeRoom) -> None:
    removed = house.next_list(revoked=(store.device_key().device,))
    RoomTrust(store, house.room).save_membership(removed)
    (effect,) = Handshake(setup(store, house)).start()
    assert isinstance(effect, Refuse)
    assert "removed from room" in effect.error.message


def test_a_room_that_was_left(store: DeviceStore, house: MadeRoom) -> None:
    with pytest.raises(UnknownRoom):
        RoomTrust(store, RoomId("a" * 32)).setup(
            side="answerer", nonce=bytes(32), now=house.now, **COMMON
        )


def test_a_worker_keeps_its_device(store: DeviceStore, house: MadeRoom) -> None:
    trust = RoomTrust(store, house.room, name="laptop")
    one, other = house.key(3).device, house.key(4).device

    def begin() -> Setup:
        return trust.setup(
            side="offerer",
            nonce=bytes(32),
            now=house.now,
            **COMMON,
            expected_worker="gpu-1",
        )

    assert (begin().name, begin().expected_worker, begin().known_worker) == (
        "laptop",
        "gpu-1",
        None,
    )
    trust.save_worker("gpu-1", one, instead_of=None)
    assert begin().known_worker == one
    with pytest.raises(WorkerChanged):
        trust.save_worker("GPU-1", other, instead_of=None)
    trust.save_worker("gpu-1", other, instead_of=one)
    assert begin().known_worker == other


def test_a_newer_list_is_told_once_it_is_kept(store: DeviceStore, house: MadeRoom) -> None:
    told: list[int] = []
    newer = house.next_list()

    def on_newer(membership: Membership) -> None:
        assert store.membership(house.room) == membership
        told.append(membership.number)

    RoomTrust(store, house.room, on_newer=on_newer).save_membership(newer)
    assert told == [1]
