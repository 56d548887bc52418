"""Nobody comes in after the end, and the end waits for who is in."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from sleap_rtc.transports.gate import Gate


def test_closing_waits_for_who_is_in() -> None:
    gate, go_on = Gate(), threading.Event()
    left: list[int] = []

    def pass_through(number: int) -> None:
        assert gate.enter()
        entered.wait(10)
        go_on.wait(10)
        left.append(number)
        gate.leave()

    entered = threading.Barrier(3)
    with ThreadPoolExecutor(3) as pool:
        inside = [pool.submit(pass_through, number) for number in range(2)]
        entered.wait(10)
        closing = pool.submit(gate.close)
        while gate.enter():
            gate.leave()
        assert not closing.done()
        go_on.set()
        closing.result(10)
        assert sorted(left) == [0, 1]
        for each in inside:
            each.result(10)
    assert not gate.enter()
    gate.close()
