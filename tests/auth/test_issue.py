from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from sleap_rtc.auth import issue
from sleap_rtc.auth.certificates import LIFETIME, verify_chain
from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.errors import InvalidName, NotTrusted
from sleap_rtc.testing.made_room import MadeRoom

MINUTE = timedelta(minutes=1)


def granted(house: MadeRoom, device: SigningKey, **changes: Any) -> Any:
    plain: dict[str, Any] = {"device": device.device, "name": "w", "role": "member"}
    plain |= {"room": house.room, "now": house.now}
    return issue.grant(house.owner, house.owner_chain, **(plain | changes))


@pytest.mark.parametrize("name", ["", "a b", "-a", "a\n", "x" * 65, "a/b"])
def test_names_are_checked(house: MadeRoom, worker: SigningKey, name: str) -> None:
    with pytest.raises(InvalidName):
        issue.make_room(house.room_key, house.owner.device, name=name, now=house.now)
    with pytest.raises(InvalidName):
        house.joined(worker, name=name)
    with pytest.raises(InvalidName):
        granted(house, worker, name=name)


def test_nothing_is_made_that_the_other_side_would_refuse(
    house: MadeRoom, other_house: MadeRoom, worker: SigningKey
) -> None:
    with pytest.raises(NotTrusted, match=r"another room|doesn't begin with the key"):
        granted(house, worker, room=other_house.room)
    with pytest.raises(NotTrusted, match="signed by somebody else"):
        issue.grant(
            worker,
            house.owner_chain,
            room=house.room,
            device=worker.device,
            name="w",
            role="member",
            now=house.now,
        )
    with pytest.raises(NotTrusted, match="signed by somebody else"):
        issue.join(house.key(77), house.invited(), device=worker.device, name="w", now=house.now)


def test_dates_are_whole_seconds(house: MadeRoom) -> None:
    now = house.now + timedelta(microseconds=7)
    chain = issue.make_room(house.room_key, house.owner.device, name="o", now=now)
    assert verify_chain(chain, room=house.room, now=now).expires == house.now + LIFETIME


def test_renewal_is_due_after_half_the_time(house: MadeRoom) -> None:
    expires = house.now + LIFETIME
    assert not issue.needs_renewal(expires, house.now + timedelta(days=14))
    assert issue.needs_renewal(expires, house.now + timedelta(days=16))


@pytest.mark.parametrize(
    "bad", [{"uses": 0}, {"uses": 1001}, {"lasts": timedelta(0)}, {"lasts": LIFETIME + MINUTE}]
)
def test_invites_are_bounded(house: MadeRoom, bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="30 days"):
        issue.invite(
            house.owner,
            house.owner_chain,
            room=house.room,
            invite_key=house.key(9).device,
            role="worker",
            now=house.now,
            **bad,
        )
