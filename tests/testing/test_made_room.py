"""The made room: whole, valid, and the same every time."""

from __future__ import annotations

from sleap_rtc.auth.certificates import verify_chain
from sleap_rtc.auth.handshake import Setup
from sleap_rtc.testing.made_room import NOON, MadeRoom


def test_it_is_the_same_every_time_and_another_for_another_seed() -> None:
    assert MadeRoom().room == MadeRoom().room
    assert MadeRoom().owner_chain == MadeRoom().owner_chain
    assert MadeRoom(seed=1).room != MadeRoom().room
    assert MadeRoom().key(3).device != MadeRoom().key(4).device


def test_its_people_are_members() -> None:
    house = MadeRoom()
    owner = verify_chain(house.owner_chain, room=house.room, now=NOON)
    worker = verify_chain(house.joined(house.key(3)), room=house.room, now=NOON)
    assert (owner.role, owner.device) == ("owner", house.owner.device)
    assert (worker.role, worker.device) == ("worker", house.key(3).device)


def test_its_lists_are_numbered() -> None:
    house = MadeRoom()
    first = house.next_list()
    assert (house.no_list().number, first.number, house.next_list(first).number) == (0, 1, 2)


def test_its_setups_fit_each_other() -> None:
    house = MadeRoom()
    sides = [
        house.setup(house.owner, house.owner_chain, "offerer"),
        house.setup(house.key(3), house.joined(house.key(3)), "answerer", purpose="blocks"),
    ]
    assert all(isinstance(side, Setup) for side in sides)
    assert sides[0].own_fingerprint == sides[1].peer_fingerprint
    assert sides[0].peer_fingerprint == sides[1].own_fingerprint
    assert sides[0].nonce != sides[1].nonce
    assert [side.purpose for side in sides] == ["control", "blocks"]
