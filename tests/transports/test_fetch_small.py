"""Fetching many small files: of sources that give several blocks for one question."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.transfer.choice import Kind

from .places import Generous, MakePlace


async def test_small_blocks_are_asked_for_together(make_place: MakePlace) -> None:
    sizes = {f"{n % 3}/{n:02}": n * 100 for n in range(40)} | {"big": 2 * BLOCK + 5}
    place = make_place(sizes)
    spoilt = False

    async def spoil(file: int, block: int) -> bytes | None:
        nonlocal spoilt
        if spoilt or place.packed.package.files[file].path != "1/31":
            return None
        spoilt = True
        return b"x" * 3100

    source = Generous(place.packed, spoil)
    place.check(await place.fetch(source))
    assert max(source.questions) == 5
    assert len(source.questions) <= 12
    # Of those that came together the wrong one alone is asked for again.
    twice = [place.packed.package.files[f].path for (f, _), n in source.asked.items() if n == 2]
    assert twice == ["1/31"]
    assert source.asked.total() == 39 + 3 + 1
    source.close()


async def test_an_answer_that_is_too_short_costs_what_it_lacks(make_place: MakePlace) -> None:
    place = make_place({f"{n}": 10 for n in range(4)})
    cut = False

    class Short(Generous):
        async def several(
            self, package: PackageId, places: Sequence[tuple[int, int]], sizes: Sequence[int]
        ) -> tuple[bytes, Kind]:
            nonlocal cut
            found, kind = await super().several(package, places, sizes)
            whole, cut = cut, True
            return found if whole else found[:15], kind

    source = Short(place.packed)
    place.check(await place.fetch(source))
    assert source.asked == {(0, 0): 1, (1, 0): 2, (2, 0): 2, (3, 0): 2}
    source.close()


async def test_of_what_was_asked_together_some_may_come_from_elsewhere(
    make_place: MakePlace,
) -> None:
    place = make_place({f"{n:02}": 10 for n in range(20)})
    never = asyncio.Event()
    given_up: list[int] = []

    async def get_stuck(file: int, block: int) -> None:
        if slow.asked.total() > 5:
            try:
                await never.wait()
            except asyncio.CancelledError:
                given_up.append(file)
                raise

    slow, quick = Generous(place.packed, get_stuck, name="slow"), Generous(place.packed)
    place.check(await place.fetch(slow, quick, window=100))
    assert given_up
    assert max(quick.asked.values()) == 1
    slow.close()
    quick.close()
