"""How much one device may ask at a time."""

from __future__ import annotations

import asyncio

import pytest

from sleap_rtc.errors import Conflict
from sleap_rtc.protocol.link import MAX_REQUESTS
from sleap_rtc.worker.turns import AT_WORK, Turns


class Work:
    """Requests that are worked on until the test says so."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.at_work: list[str] = []
        self.done = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def _ask(self, device: str) -> None:
        async with self.turns.of(device):
            self.at_work.append(device)
            await self.done.wait()

    async def ask(self, device: str, times: int = 1) -> None:
        self.tasks += [asyncio.create_task(self._ask(device)) for _ in range(times)]
        await asyncio.sleep(0)

    async def finish(self) -> None:
        self.done.set()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
async def work():
    made = Work()
    yield made
    await made.finish()


async def test_one_devices_requests_wait_and_anothers_dont(work):
    await work.ask("a", AT_WORK + 1)
    await work.ask("b")
    assert work.at_work == ["a"] * AT_WORK + ["b"]
    await work.finish()
    assert work.at_work.count("a") == AT_WORK + 1


async def test_beyond_the_bound_it_is_refused_until_some_are_answered(work):
    await work.ask("a", MAX_REQUESTS)
    with pytest.raises(Conflict, match="256 requests of this device"):
        async with work.turns.of("a"):
            pass
    work.tasks[-1].cancel()
    await asyncio.gather(work.tasks[-1], return_exceptions=True)
    await work.ask("a")
    await work.finish()
    assert len(work.at_work) == MAX_REQUESTS


async def test_nothing_is_kept_of_a_device_that_asks_nothing(work):
    await work.ask("a", 3)
    await work.finish()
    assert work.turns._devices == {}
