"""Certificates stay fresh: an owner's own, and those of the members."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from sleap_rtc.auth.certificates import verify_chain
from sleap_rtc.auth.issue import grant, join, make_room
from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.auth.signed import chain_to_texts
from sleap_rtc.auth.store import DeviceStore, RoomEntry
from sleap_rtc.client.renewal import adopted, is_due, renewals, renewed
from sleap_rtc.domain.ids import room_id_of
from sleap_rtc.errors import NotTrusted
from sleap_rtc.testing.made_room import MadeRoom


def owned(tmp_path, *, days_ago: int, keep_key: bool = True) -> tuple[DeviceStore, RoomEntry]:
    store = DeviceStore(tmp_path)
    key = SigningKey.generate()
    made = datetime.now(UTC) - timedelta(days=days_ago)
    chain = make_room(key, store.device_key().device, name="ada", now=made)
    room = room_id_of(key.public)
    entry = RoomEntry(room=room, name="lab", server="https://lab.org", role="owner", chain=chain)
    if keep_key:
        store.save_room_key(key)
    store.save_room(entry)
    return store, entry


def expiry(entry: RoomEntry) -> datetime:
    now = datetime.now(UTC)
    return verify_chain(entry.chain, room=entry.room, now=now, who="This device").expires


def test_a_young_certificate_stays(tmp_path):
    store, entry = owned(tmp_path, days_ago=3)
    assert renewed(store, entry, now=datetime.now(UTC)) == entry


def test_an_old_one_and_one_that_ended_are_made_anew(tmp_path):
    for days in (20, 90):
        store, entry = owned(tmp_path / str(days), days_ago=days)
        fresh = renewed(store, entry, now=datetime.now(UTC))
        assert expiry(fresh) > datetime.now(UTC) + timedelta(days=29)
        assert store.room("lab") == fresh


def test_without_the_rooms_key_nothing_can_be_done(tmp_path):
    store, entry = owned(tmp_path, days_ago=20, keep_key=False)
    assert renewed(store, entry, now=datetime.now(UTC)) == entry


# ── by the server, from an owner ─────────────────────────────────────────────


def member_of(house, number=3, **changes):
    """A device that joined a room, and its chain as it goes to the server."""
    return chain_to_texts(house.joined(house.key(number), **changes))


@pytest.fixture
def house():
    return MadeRoom()


@pytest.fixture
def owner(tmp_path, house):
    """The store of an owner, with the room's key."""
    store = DeviceStore(tmp_path)
    chain = make_room(house.room_key, store.device_key().device, name="laptop", now=house.now)
    entry = RoomEntry(
        room=house.room, name="lab", server="https://lab.org", role="owner", chain=chain
    )
    store.save_room(entry)
    return store, entry


def later(house, days):
    return house.now + timedelta(days=days)


def fresh(owner, house, days):
    """The owner's room, with a certificate that was renewed just now."""
    store, entry = owner
    chain = make_room(
        house.room_key, store.device_key().device, name="laptop", now=later(house, days)
    )
    return msgspec.structs.replace(entry, chain=chain)


@pytest.mark.parametrize("days", [16, 29, 35, 59])
def test_an_owner_renews_who_is_due(owner, house, days):
    now, entry = later(house, days), fresh(owner, house, days)
    (chain,) = renewals(owner[0], entry, [member_of(house)], now=now)
    member = verify_chain(chain, room=house.room, now=now)
    assert (member.device, member.name, member.role) == (house.key(3).device, "gpu-1", "worker")
    assert member.expires > now + timedelta(days=29)


@pytest.mark.parametrize("days", [3, 75])
def test_who_is_not_due_yet_or_long_gone_is_left(owner, house, days):
    entry = fresh(owner, house, days)
    assert renewals(owner[0], entry, [member_of(house)], now=later(house, days)) == []


def test_a_member_that_was_removed_is_not_renewed(owner, house):
    store, entry = owner[0], fresh(owner, house, 20)
    store.save_membership(house.next_list(revoked=(house.key(3).device,)))
    chains = [member_of(house), member_of(house, 4, once=101)]
    (chain,) = renewals(store, entry, chains, now=later(house, 20))
    assert verify_chain(chain, room=house.room, now=later(house, 20)).device == house.key(4).device


def test_the_role_of_the_list_is_granted(owner, house):
    store, entry = owner[0], fresh(owner, house, 20)
    store.save_membership(house.next_list(members={house.key(3).device: "viewer"}))
    (chain,) = renewals(store, entry, [member_of(house)], now=later(house, 20))
    assert verify_chain(chain, room=house.room, now=later(house, 20)).role == "viewer"


def test_what_the_server_makes_up_is_passed_over(owner, house):
    other = MadeRoom(seed=7)
    broken = list(member_of(house))
    broken[-1] = broken[-1].replace("join", "grant")
    offered = [member_of(other), broken, ["{"], [], list(member_of(house))[:-1]]
    entry = fresh(owner, house, 20)
    assert renewals(owner[0], entry, offered, now=later(house, 20)) == []


def test_only_the_rooms_key_renews_an_owner(owner, house):
    store, entry = owner[0], fresh(owner, house, 20)
    second = make_room(house.room_key, house.key(9).device, name="second", now=house.now)
    due = [chain_to_texts(second)]
    assert renewals(store, entry, due, now=later(house, 20)) == []
    store.save_room_key(house.room_key)
    (chain,) = renewals(store, entry, due, now=later(house, 20))
    assert verify_chain(chain, room=house.room, now=later(house, 20)).role == "owner"


def test_who_is_no_owner_renews_nobody(tmp_path, house):
    store = DeviceStore(tmp_path)
    now = later(house, 1)
    chain = join(
        house.key(100), house.invited(), device=store.device_key().device, name="a", now=house.now
    )
    entry = RoomEntry(
        room=house.room, name="lab", server="https://lab.org", role="worker", chain=chain
    )
    assert renewals(store, entry, [member_of(house, 4, once=101)], now=now) == []
    assert renewals(store, entry, [member_of(house, 4, once=101)], now=later(house, 40)) == []


def test_an_owner_whose_own_certificate_ends_soon_makes_no_shorter_one(owner, house):
    store, entry = owner  # without the room's key, made on the same day as the member's
    assert renewals(store, entry, [member_of(house)], now=later(house, 20)) == []


def test_a_renewed_certificate_is_taken_and_a_shorter_one_is_not(tmp_path, house):
    store = DeviceStore(tmp_path)
    device = store.device_key().device
    old = join(house.key(100), house.invited(), device=device, name="a", now=house.now)
    entry = RoomEntry(
        room=house.room, name="lab", server="https://lab.org", role="worker", chain=old
    )
    now = later(house, 20)
    owner_chain = make_room(house.room_key, house.owner.device, name="laptop", now=now)
    new = grant(
        house.owner, owner_chain, room=house.room, device=device, name="a", role="member", now=now
    )
    assert is_due(entry, now=now)
    taken = adopted(store, entry, chain_to_texts(new), now=now)
    assert (taken.chain, taken.role, taken.name) == (new, "member", "lab")
    assert store.room("lab") == taken
    assert not is_due(taken, now=now)
    assert adopted(store, taken, chain_to_texts(old), now=now) == taken
    ended = later(house, 35)
    assert adopted(store, entry, chain_to_texts(new), now=ended).chain == new


def test_another_devices_certificate_is_refused(tmp_path, house):
    store = DeviceStore(tmp_path)
    device = store.device_key().device
    old = join(house.key(100), house.invited(), device=device, name="a", now=house.now)
    entry = RoomEntry(
        room=house.room, name="lab", server="https://lab.org", role="worker", chain=old
    )
    with pytest.raises(NotTrusted, match="another device's"):
        adopted(store, entry, member_of(house, 4, once=101), now=house.now)
    with pytest.raises(NotTrusted):
        adopted(store, entry, member_of(MadeRoom(seed=7)), now=house.now)
