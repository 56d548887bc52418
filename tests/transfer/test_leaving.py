"""A source that leaves in good order, as the machine sees it."""

from __future__ import annotations

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.transfer.events import (
    Arrived,
    Blame,
    Complete,
    Request,
    SourceAdded,
    SourceLeaves,
    SourceLost,
    Stored,
    Withdraw,
)
from sleap_rtc.transfer.machine import Phase

from .test_machine import A, B, C, asked, deliver, download


def test_a_source_that_leaves_ends_what_it_has_begun() -> None:
    machine = download(6 * BLOCK)
    machine.handle(SourceAdded(A, 4 * BLOCK))
    machine.handle(SourceAdded(B, BLOCK))
    deliver(machine, A, 0)
    found = machine.handle(SourceLeaves(A))
    # Two are taken to be under way from it; the rest is asked of others as they have room.
    assert found == [Withdraw(A, 3), Withdraw(A, 5)]
    assert machine.handle(SourceLeaves(A)) == []
    assert deliver(machine, B, 4) == [Request(B, 3)]
    assert deliver(machine, A, 1) == []
    assert machine.handle(Arrived(A, 3)) == []
    assert deliver(machine, B, 3) == [Request(B, 5)]
    # What it sends wrong is asked of others, too.
    assert deliver(machine, A, 2, right=False) == [Blame(A, 2)]
    assert deliver(machine, B, 5) == [Request(B, 2)]
    assert machine.phase is Phase.RECEIVING
    assert machine.handle(SourceLost(A)) == []
    assert deliver(machine, B, 2) == [Complete()]


def test_the_last_source_that_has_left_is_waited_for() -> None:
    machine = download(4 * BLOCK)
    machine.handle(SourceAdded(A))
    assert machine.handle(SourceLeaves(A)) == [Withdraw(A, 2), Withdraw(A, 3)]
    assert deliver(machine, A, 0) == []
    assert machine.phase is Phase.RECEIVING
    assert deliver(machine, A, 1) == []
    assert machine.phase is Phase.WAITING
    assert asked(machine.handle(SourceAdded(B, 2 * BLOCK))) == [2, 3]
    assert machine.handle(SourceLeaves(B)) == []
    # It is gone before it could.
    machine.handle(SourceLost(B))
    assert machine.phase is Phase.WAITING
    assert machine.handle(SourceAdded(C)) == [Request(C, 2), Request(C, 3)]
    machine.handle(Arrived(C, 2))
    machine.handle(Arrived(C, 3))
    assert machine.handle(SourceLeaves(C)) == []
    machine.handle(Stored(2))
    assert machine.phase is Phase.RECEIVING
    assert machine.handle(Stored(3)) == [Complete()]
    # One of which nothing was asked is gone at once.
    machine = download(BLOCK)
    machine.handle(SourceAdded(A))
    machine.handle(SourceAdded(B, peer="x"))
    machine.handle(SourceAdded(C, peer="x"))
    assert machine.handle(SourceLeaves(C)) == []
    assert machine.handle(SourceLeaves(B)) == []
    assert deliver(machine, A, 0)[-1] == Complete()
