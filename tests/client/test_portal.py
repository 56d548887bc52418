from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sleap_rtc.client.portal import Portal


@pytest.fixture
def portal():
    made = Portal()
    yield made
    made.close()
    assert "sleap-rtc" not in {thread.name for thread in threading.enumerate()}


def test_work_is_done_elsewhere_and_its_error_comes_here(portal) -> None:
    async def work(value: int) -> int:
        await asyncio.sleep(0)
        if not value:
            raise KeyError("none")
        return value

    assert portal.call(work(3)) == 3
    with pytest.raises(KeyError):
        portal.call(work(0))


async def test_it_works_within_a_loop(portal) -> None:
    """As in a notebook."""

    async def work() -> str:
        return threading.current_thread().name

    assert portal.call(work()) == "sleap-rtc"


def test_items_come_one_by_one(portal) -> None:
    made = []

    async def items() -> AsyncIterator[int]:
        for number in range(3):
            made.append(number)
            yield number

    found = portal.iterate(items())
    assert next(found) == 0
    assert made == [0]
    assert list(found) == [1, 2]


def test_one_task_enters_and_leaves(portal) -> None:
    tasks = []

    @asynccontextmanager
    async def manager() -> AsyncIterator[str]:
        tasks.append(asyncio.current_task())
        async with asyncio.timeout(60):
            try:
                yield "inside"
            finally:
                tasks.append(asyncio.current_task())

    with portal.hold(manager()) as found:
        assert found == "inside"
        assert len(tasks) == 1
    assert len(tasks) == 2
    assert tasks[0] is tasks[1]
    with pytest.raises(ZeroDivisionError), portal.hold(manager()):
        _ = 1 / 0
    assert len(tasks) == 4


def test_what_cant_be_entered_says_why(portal) -> None:
    @asynccontextmanager
    async def manager() -> AsyncIterator[None]:
        raise KeyError("closed")
        yield

    with pytest.raises(KeyError, match="closed"), portal.hold(manager()):
        pytest.fail("it was entered")


def test_a_closed_one_opens_again_and_one_that_is_forgotten_ends() -> None:
    portal = Portal()

    async def work() -> int:
        return 1

    assert portal.call(work()) == 1
    portal.close()
    portal.close()
    assert portal.call(work()) == 1
    del portal
    gc.collect()
    assert "sleap-rtc" not in {thread.name for thread in threading.enumerate()}
