"""Fetching from a source that leaves in good order, and from the last one that goes."""

from __future__ import annotations

import asyncio

import pytest

from sleap_rtc.client.counting import CountedSources
from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import LinkLost
from sleap_rtc.transports.base import Sources

from .places import MakePlace, Meddled


class Going(Meddled):
    """Sends nothing before it is told to, and goes behind that."""

    leaving = False

    def __init__(self, packed) -> None:
        super().__init__(packed, self._wait, name="going")
        self.asked_all, self.send, self.gone = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.withdrawn: list[int] = []

    async def _wait(self, _file: int, block: int) -> None:
        if self.asked.total() == 8:
            self.asked_all.set()
        try:
            await self.send.wait()
        except asyncio.CancelledError:
            self.withdrawn.append(block)
            raise


@pytest.mark.parametrize("counts", [False, True], ids=["plain", "counted"])
async def test_what_it_has_begun_still_comes_and_the_rest_from_others(
    make_place: MakePlace, counts: bool
) -> None:
    place = make_place({"large": 8 * BLOCK})
    going, other = Going(place.packed), Meddled(place.packed, name="other")
    live = Sources(going)
    counted = CountedSources(live)
    with counted.current() as following:
        fetching = asyncio.create_task(place.fetch(live=following if counts else live))
        await going.asked_all.wait()
        going.leaving = True
        live.remove(going)
        await asyncio.sleep(0)
        assert len(going.withdrawn) == 6
        going.send.set()
        while place.told[-1].done < 2 * BLOCK:  # noqa: ASYNC110 - nobody else is there yet
            await asyncio.sleep(0.01)
        live.add(other)
        place.check(await fetching)
    assert sorted(going.withdrawn) == [2, 3, 4, 5, 6, 7]
    # Nothing was sent twice.
    assert sorted(block for _, block in other.asked) == [2, 3, 4, 5, 6, 7]
    going.close()
    other.close()


async def test_one_that_is_gone_before_it_could_costs_nothing_but_time(
    make_place: MakePlace,
) -> None:
    place = make_place({"large": 8 * BLOCK})

    class Cut(Going):
        async def _wait(self, file: int, block: int) -> None:
            await super()._wait(file, block)
            raise LinkLost(peer="going", why="its line was cut")

    going, other = Cut(place.packed), Meddled(place.packed, name="other")
    live = Sources(going)
    fetching = asyncio.create_task(place.fetch(live=live))
    await going.asked_all.wait()
    going.leaving = True
    live.remove(going)
    going.send.set()
    live.add(other)
    place.check(await fetching)
    assert other.asked.total() == 8
    going.close()
    other.close()


async def test_with_none_left_the_last_reason_is_said(make_place: MakePlace) -> None:
    place = make_place({"large": 2 * BLOCK})

    async def cut(_file: int, _block: int) -> bytes | None:
        raise LinkLost(peer="gpu-1", why="nothing was heard from it any more")

    source = Meddled(place.packed, cut, name="gpu-1")
    with pytest.raises(LinkLost, match=r"the last one was gpu-1, which went: nothing was heard"):
        await place.fetch(source, patience=0.05)
    source.close()
