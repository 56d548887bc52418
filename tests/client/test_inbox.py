from __future__ import annotations

import asyncio

import pytest

from sleap_rtc.client.inbox import Inbox


async def test_items_come_in_their_order() -> None:
    inbox: Inbox[int] = Inbox()
    reading = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    for number in range(3):
        inbox.put(number)
    assert [await reading, await inbox.get(), await inbox.get()] == [0, 1, 2]


async def test_only_the_newest_of_a_kind_waits() -> None:
    inbox: Inbox[str] = Inbox()
    inbox.put("10 %", instead="model 0")
    inbox.put("an event")
    for percent in range(20, 100):
        inbox.put(f"{percent} %", instead="model 0")
    assert [await inbox.get(), await inbox.get()] == ["99 %", "an event"]
    inbox.put("100 %", instead="model 0")
    assert await inbox.get() == "100 %"


async def test_the_writer_is_told_once_when_there_is_room_again() -> None:
    told: list[int] = []
    inbox: Inbox[int] = Inbox(limit=4, on_room=lambda: told.append(len(told)))
    for number in range(3):
        inbox.put(number)
    assert not inbox.full
    inbox.put(3)
    assert inbox.full
    assert await inbox.get() == 0
    assert not inbox.full
    assert told == []
    assert await inbox.get() == 1
    assert told == [0]
    assert [await inbox.get(), await inbox.get()] == [2, 3]
    assert told == [0]


async def test_what_doesnt_stop_when_it_is_full_is_kept() -> None:
    inbox: Inbox[int] = Inbox(limit=2)
    for number in range(10):
        inbox.put(number)
    assert [await inbox.get() for _ in range(10)] == list(range(10))


async def test_a_reader_that_gives_up_takes_nothing() -> None:
    inbox: Inbox[int] = Inbox()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(inbox.get(), 0.01)
    inbox.put(1)
    assert await inbox.get() == 1
