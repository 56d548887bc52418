from __future__ import annotations

import asyncio
import threading

from sleap_rtc.transports.mailbox import Mailbox


async def test_things_of_a_thread_come_in_their_order() -> None:
    came: list[int] = []
    done = asyncio.Event()

    def take(thing: int) -> None:
        came.append(thing)
        if thing == 999:
            done.set()

    mailbox = Mailbox(take)
    threading.Thread(target=lambda: [mailbox.put(n) for n in range(1000)]).start()
    async with asyncio.timeout(60):
        await done.wait()
    assert came == list(range(1000))


async def test_the_loop_is_woken_once_for_what_comes_together() -> None:
    came: list[int] = []
    mailbox = Mailbox(came.append)
    woken = 0
    loop = asyncio.get_running_loop()
    real = loop.call_soon_threadsafe

    def counted(*given: object) -> object:
        nonlocal woken
        woken += 1
        return real(*given)  # type: ignore[arg-type]

    loop.call_soon_threadsafe = counted  # type: ignore[assignment,method-assign]
    for n in range(5):
        mailbox.put(n)
    assert came == []
    await asyncio.sleep(0)
    assert came == [0, 1, 2, 3, 4]
    mailbox.put(5)
    await asyncio.sleep(0)
    assert (came, woken) == ([0, 1, 2, 3, 4, 5], 2)


async def test_it_can_be_emptied_at_once_and_nothing_comes_twice() -> None:
    came: list[str] = []
    mailbox = Mailbox(came.append)
    mailbox.put("one")
    mailbox.empty()
    assert came == ["one"]
    await asyncio.sleep(0)
    assert came == ["one"]


async def test_what_comes_while_it_is_emptied_comes_too() -> None:
    came: list[int] = []

    def take(thing: int) -> None:
        came.append(thing)
        if thing < 3:
            mailbox.put(thing + 1)

    mailbox = Mailbox(take)
    mailbox.put(0)
    await asyncio.sleep(0)
    assert came == [0, 1, 2, 3]


def test_after_the_loop_nothing_is_said() -> None:
    async def make() -> Mailbox[int]:
        return Mailbox(lambda _: None)

    asyncio.run(make()).put(1)
