from __future__ import annotations

import asyncio

import pytest

from sleap_rtc.transports.throttle import Throttle


class FakeTime:
    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


async def test_bytes_pass_at_the_rate() -> None:
    time = FakeTime()
    throttle = Throttle(1_000, clock=time.clock, sleep=time.sleep)
    for _ in range(9):
        await throttle.take(250)
    assert time.now == pytest.approx(2.0)
    assert len(time.slept) == 8


async def test_who_is_cancelled_while_waiting_used_nothing() -> None:
    time = FakeTime()
    never = asyncio.Event()

    async def sleep(_: float) -> None:
        await never.wait()

    throttle = Throttle(1_000, clock=time.clock, sleep=sleep)
    waiting = asyncio.create_task(throttle.take(1_000_000))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await throttle.take(250)


async def test_a_setting_that_limits_nothing_has_none() -> None:
    assert Throttle.of(None) is None
    throttle = Throttle.of(1_000_000_000)
    assert throttle is not None
    await throttle.take(1)
