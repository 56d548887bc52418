"""Rooms of fixed keys at a fixed time."""

from __future__ import annotations

import pytest

from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.testing.made_room import MadeRoom


@pytest.fixture
def house() -> MadeRoom:
    return MadeRoom()


@pytest.fixture
def other_house() -> MadeRoom:
    return MadeRoom(seed=7)


@pytest.fixture
def worker(house: MadeRoom) -> SigningKey:
    return house.key(3)
