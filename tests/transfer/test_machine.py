from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sleap_rtc.domain import packages
from sleap_rtc.domain.layout import Layout
from sleap_rtc.domain.packages import BLOCK, HASH, FileEntry
from sleap_rtc.errors import DataError, NotFound, SourceChanged
from sleap_rtc.transfer.events import (
    MAX_ASKED,
    MAX_SEVERAL,
    WINDOW,
    Arrived,
    Blame,
    Complete,
    Drop,
    Effect,
    Event,
    Fail,
    Rejected,
    Request,
    Rotten,
    SourceAdded,
    SourceId,
    SourceLeaves,
    SourceLost,
    SourceRefused,
    Store,
    Stored,
    Withdraw,
)
from sleap_rtc.transfer.machine import MAX_FAILURES, Download, Phase

A, B, C = SourceId(1), SourceId(2), SourceId(3)


def layout(*sizes: int) -> Layout:
    return Layout(
        packages.package(
            FileEntry(path=f"f{n:06}", size=size, hashes=bytes(HASH * packages.blocks_of(size)))
            for n, size in enumerate(sizes)
        )
    )


def download(*sizes: int, done: bytes | None = None) -> Download:
    found = layout(*sizes)
    return Download(found, bytes(found.count) if done is None else done)


def asked(effects: list[Effect], source: SourceId | None = None) -> list[int]:
    return [e.block for e in effects if isinstance(e, Request) and source in (None, e.source)]


def failure(effects: list[Effect]) -> str:
    (fail,) = (e for e in effects if isinstance(e, Fail))
    return fail.error.message


def deliver(machine: Download, source: SourceId, block: int, *, right: bool = True) -> list[Effect]:
    store, *more = machine.handle(Arrived(source, block))
    assert store == Store(source, block)
    return more + machine.handle(Stored(block) if right else Rejected(block))


def test_blocks_are_asked_in_order_up_to_the_window() -> None:
    machine = download(4 * BLOCK, 0, 10)
    assert machine.begin() == []
    assert machine.phase is Phase.WAITING
    effects = machine.handle(SourceAdded(A, 2 * BLOCK))
    assert effects == [Request(A, 0), Request(A, 1)]
    assert machine.phase is Phase.RECEIVING
    # The window is free again only when the block is written.
    assert machine.handle(Arrived(A, 0)) == [Store(A, 0)]
    assert machine.handle(Stored(0)) == [Request(A, 2)]
    assert machine.done_bytes == BLOCK


def test_an_empty_package_is_complete_at_once() -> None:
    machine = download(0, 0)
    assert machine.begin() == [Complete()]
    assert machine.handle(SourceAdded(A)) == []


def test_a_resumed_one_asks_for_what_is_missing() -> None:
    machine = download(3 * BLOCK + 7, BLOCK, done=b"\x01\x00\x01\x00\x01")
    assert machine.done_bytes == 3 * BLOCK
    assert (machine.done_of(0), machine.done_of(1), machine.newest) == (2 * BLOCK, BLOCK, None)
    assert asked(machine.handle(SourceAdded(A))) == [1, 3]
    assert deliver(machine, A, 3) == []
    assert (machine.done_of(0), machine.newest) == (2 * BLOCK + 7, 3)
    assert deliver(machine, A, 1) == [Complete()]
    assert machine.done_bytes == 4 * BLOCK + 7


def test_marks_must_fit_the_package() -> None:
    with pytest.raises(ValueError, match="2 marks for 1 blocks"):
        download(1, done=b"\x00\x00")


def test_an_id_is_used_once() -> None:
    machine = download(1)
    machine.handle(SourceAdded(A))
    with pytest.raises(ValueError, match="there already"):
        machine.handle(SourceAdded(A))


def test_a_window_smaller_than_a_block_lets_one_through() -> None:
    machine = download(2 * BLOCK)
    assert asked(machine.handle(SourceAdded(A, 1))) == [0]
    assert asked(deliver(machine, A, 0)) == [1]


def test_small_blocks_are_limited_by_number() -> None:
    machine = download(*[1] * (MAX_ASKED + 5))
    assert len(asked(machine.handle(SourceAdded(A)))) == MAX_ASKED
    machine = download(*[1] * (MAX_SEVERAL + 5))
    effects = machine.handle(SourceAdded(A, most=MAX_SEVERAL))
    assert len(asked(effects)) == MAX_SEVERAL


def test_what_happens_at_once_is_answered_at_once() -> None:
    machine = download(*[BLOCK] * 8)
    assert asked(machine.handle(SourceAdded(A, 3 * BLOCK), SourceAdded(B, BLOCK))) == [0, 1, 2, 3]
    effects = machine.handle(Arrived(A, 0), Arrived(A, 1), Arrived(B, 3), Arrived(A, 7))
    assert effects == [Store(A, 0), Store(A, 1), Store(B, 3)]
    effects = machine.handle(Stored(1), Rejected(0), Stored(3))
    # The rejected one goes to the other source, and is asked for first.
    assert effects == [Blame(A, 0), Request(A, 4), Request(A, 5), Request(B, 0)]


def test_nothing_is_asked_for_behind_a_failure() -> None:
    machine = download(BLOCK, BLOCK)
    machine.handle(SourceAdded(A))
    for _ in range(MAX_FAILURES - 1):
        deliver(machine, A, 0, right=False)
    machine.handle(Arrived(A, 0), Arrived(A, 1))
    blame, fail = machine.handle(Rejected(0), Stored(1))
    assert blame == Blame(A, 0)
    assert isinstance(fail, Fail)


def test_sources_share_the_work() -> None:
    machine = download(6 * BLOCK)
    assert asked(machine.handle(SourceAdded(A, 2 * BLOCK))) == [0, 1]
    assert asked(machine.handle(SourceAdded(B, 3 * BLOCK))) == [2, 3, 4]
    assert deliver(machine, B, 3) == [Request(B, 5)]


def test_a_costly_source_is_asked_for_neighbours_together() -> None:
    machine = download(20 * BLOCK)
    assert asked(machine.handle(SourceAdded(A, 6 * BLOCK, run=3 * BLOCK))) == [0, 1, 2, 3, 4, 5]
    assert asked(machine.handle(SourceAdded(B, 2 * BLOCK))) == [6, 7]
    assert deliver(machine, A, 0) == []
    assert deliver(machine, A, 1) == []
    assert asked(deliver(machine, B, 6)) == [8]
    assert asked(deliver(machine, A, 2)) == [9, 10, 11]


def test_an_idle_source_helps_from_behind_until_both_meet() -> None:
    machine = download(8 * BLOCK)
    assert asked(machine.handle(SourceAdded(A))) == list(range(8))
    assert machine.handle(SourceAdded(B)) == [Request(B, block) for block in (7, 6, 5, 4)]
    assert machine.handle(Arrived(B, 7)) == [Store(B, 7), Withdraw(A, 7)]
    assert machine.handle(Stored(7)) == []  # it is not idle yet
    assert machine.handle(Arrived(A, 7)) == []  # it came too late
    # Whoever is first counts, whichever of the two it is.
    assert machine.handle(Arrived(A, 4)) == [Store(A, 4), Withdraw(B, 4)]
    for block in (6, 5):
        assert machine.handle(Arrived(B, block)) == [Store(B, block), Withdraw(A, block)]
    assert machine.handle(Stored(4)) == []
    assert machine.handle(Stored(6)) == []
    assert machine.handle(Stored(5)) == [Request(B, 3), Request(B, 2)]
    for block in (0, 1, 2, 3):
        assert machine.handle(Arrived(A, block))[0] == Store(A, block)
    effects = [effect for block in (0, 1, 2, 3) for effect in machine.handle(Stored(block))]
    assert effects == [Complete()]


def test_connections_of_one_peer_share_its_line() -> None:
    machine = download(40 * BLOCK)
    assert len(asked(machine.handle(SourceAdded(A, 12 * BLOCK, peer="gpu-1")))) == 12
    assert len(asked(machine.handle(SourceAdded(B, 12 * BLOCK, peer="gpu-1")))) == 6
    assert len(asked(machine.handle(SourceAdded(C, 12 * BLOCK, peer="gpu-2")))) == 12
    # The first one goes on when it has less than its part.
    assert [deliver(machine, A, block) for block in range(6)] == [[]] * 6
    assert deliver(machine, A, 6) == [Request(A, 30)]

    machine = download(2 * BLOCK)
    machine.handle(SourceAdded(A, peer="gpu-1"))
    assert machine.handle(SourceAdded(B, peer="gpu-1")) == []
    assert machine.handle(SourceAdded(C, peer="gpu-2")) == [Request(C, 1)]
    assert machine.handle(SourceLost(A)) == [Request(B, 0)]


def test_an_idle_connection_takes_over_what_another_of_its_peer_hasnt_begun() -> None:
    machine = download(8 * BLOCK)
    assert len(asked(machine.handle(SourceAdded(A, peer="gpu-1")))) == 8
    moved = [(Withdraw(A, block), Request(B, block)) for block in (5, 6, 7)]
    assert machine.handle(SourceAdded(B, peer="gpu-1")) == [each for pair in moved for each in pair]
    # What A sends of them all the same comes too late.
    assert machine.handle(Arrived(A, 7)) == []
    for block in (7, 6):
        assert deliver(machine, B, block) == []
    assert deliver(machine, B, 5) == [Withdraw(A, 3), Request(B, 3), Withdraw(A, 4), Request(B, 4)]
    assert deliver(machine, B, 3) == []
    # Two are taken to be under way from A.
    assert deliver(machine, B, 4) == [Withdraw(A, 2), Request(B, 2)]
    assert deliver(machine, B, 2) == []
    assert deliver(machine, A, 0) == []
    assert deliver(machine, A, 1) == [Complete()]


def test_small_blocks_that_may_be_in_one_answer_are_not_taken_over() -> None:
    machine = download(*[BLOCK // 4] * 12)
    assert len(asked(machine.handle(SourceAdded(A, peer="gpu-1")))) == 12
    moved = [(Withdraw(A, block), Request(B, block)) for block in (10, 11)]
    assert machine.handle(SourceAdded(B, peer="gpu-1")) == [each for pair in moved for each in pair]


def test_what_is_asked_twice_is_bounded() -> None:
    machine = download(30 * BLOCK)
    machine.handle(SourceAdded(A, 15 * BLOCK))
    machine.handle(SourceAdded(B, 15 * BLOCK))
    twice = asked(machine.handle(SourceAdded(C, 30 * BLOCK)))
    assert len(twice) == 8  # half of what one of them owes
    more = asked(machine.handle(SourceAdded(SourceId(4), 30 * BLOCK)))
    assert len(twice + more) == WINDOW // BLOCK
    assert machine.handle(SourceAdded(SourceId(5), 30 * BLOCK)) == []
    # No more than three are asked for a block.
    machine = download(BLOCK)
    found = [asked(machine.handle(SourceAdded(SourceId(n)))) for n in range(1, 5)]
    assert found == [[0], [0], [0], []]
    assert machine.handle(Arrived(B, 0)) == [Store(B, 0), Withdraw(A, 0), Withdraw(C, 0)]
    assert len({*twice, *more}) == len(twice + more)


@pytest.mark.parametrize("dies", [A, B])
def test_either_may_die_while_both_are_asked(dies: SourceId) -> None:
    machine = download(2 * BLOCK)
    machine.handle(SourceAdded(A))
    assert machine.handle(SourceAdded(B)) == [Request(B, 1)]
    left = B if dies == A else A
    # What both were asked for stays asked of the other one.
    assert machine.handle(SourceLost(dies)) == ([Request(B, 0)] if left == B else [])
    assert deliver(machine, left, 1) == []
    assert deliver(machine, left, 0) == [Complete()]


def test_nobody_helps_with_what_it_sent_wrong() -> None:
    machine = download(BLOCK)
    machine.handle(SourceAdded(A))
    assert machine.handle(SourceAdded(B)) == [Request(B, 0)]
    machine.handle(Arrived(A, 0))
    assert machine.handle(Rejected(0)) == [Blame(A, 0), Request(B, 0)]
    assert deliver(machine, B, 0) == [Complete()]


def test_what_a_lost_source_owed_is_asked_of_another() -> None:
    machine = download(4 * BLOCK)
    machine.handle(SourceAdded(A, 3 * BLOCK))
    assert machine.handle(SourceAdded(B, BLOCK)) == [Request(B, 3)]
    machine.handle(Arrived(A, 1))
    assert machine.handle(SourceLost(A)) == []  # B's window is full
    assert machine.handle(Arrived(A, 0)) == []  # too late
    assert machine.handle(Stored(1)) == []  # but this one had come
    assert deliver(machine, B, 3) == [Request(B, 0)]
    assert deliver(machine, B, 0) == [Request(B, 2)]
    assert deliver(machine, B, 2) == [Complete()]


def test_losing_all_sources_is_waiting() -> None:
    machine = download(2 * BLOCK)
    machine.handle(SourceAdded(A))
    assert machine.handle(SourceLost(A)) == []
    assert machine.handle(SourceLost(A)) == []
    assert machine.phase is Phase.WAITING
    assert asked(machine.handle(SourceAdded(B))) == [0, 1]


def test_a_bad_block_alone_is_asked_again_of_another() -> None:
    machine = download(4 * BLOCK)
    machine.handle(SourceAdded(A, 2 * BLOCK))
    machine.handle(SourceAdded(B, 2 * BLOCK))
    effects = deliver(machine, A, 0, right=False)
    assert effects == [Blame(A, 0)]  # A has room, but not for this block
    assert deliver(machine, B, 2) == [Request(B, 0)]
    assert deliver(machine, B, 0) == []
    assert deliver(machine, A, 1) == [Request(A, 3)]
    assert deliver(machine, B, 3)[-1] == Complete()


def test_a_bad_block_is_asked_again_of_the_same_if_there_is_no_other() -> None:
    machine = download(2 * BLOCK)
    machine.handle(SourceAdded(A))
    assert deliver(machine, A, 1, right=False) == [Blame(A, 1), Request(A, 1)]
    assert deliver(machine, A, 1, right=False) == [Blame(A, 1), Request(A, 1)]
    assert "f000000 is damaged: block 2 of 2 was wrong 3 times" in failure(
        deliver(machine, A, 1, right=False)
    )
    assert machine.phase is Phase.FAILED
    assert machine.handle(SourceAdded(B)) == []


def test_a_bad_block_goes_to_a_source_that_comes_later() -> None:
    machine = download(BLOCK)
    machine.handle(SourceAdded(A))
    assert deliver(machine, A, 0, right=False) == [Blame(A, 0), Request(A, 0)]
    assert machine.handle(SourceLost(A)) == []
    assert machine.handle(SourceAdded(B)) == [Request(B, 0)]
    assert deliver(machine, B, 0) == [Complete()]


def test_a_source_of_bad_blocks_is_dropped_while_there_is_another() -> None:
    machine = download(20 * BLOCK)
    machine.handle(SourceAdded(A, 4 * BLOCK))
    machine.handle(SourceAdded(B, 4 * BLOCK))
    effects: list[Effect] = []
    for block in range(MAX_FAILURES):
        effects += deliver(machine, A, block, right=False)
    (drop,) = (e for e in effects if isinstance(e, Drop))
    assert drop.source == A
    assert "3 of its blocks were damaged" in drop.error.message
    last: list[Effect] = []
    waiting = [4, 5, 6, 7]
    while waiting:
        last = deliver(machine, B, waiting.pop())
        waiting += asked(last, B)
    assert last == [Complete()]


def test_a_peer_of_bad_blocks_cant_fail_it_by_its_many_connections() -> None:
    machine = download(4 * BLOCK)
    bad = (A, B, C)
    good = SourceId(4)
    waiting: list[Effect] = []
    for source in bad:
        waiting += machine.handle(SourceAdded(source, 9 * BLOCK, peer="bad"))
    waiting += machine.handle(SourceAdded(good, BLOCK, peer="good"))
    # The bad one is always quicker, and one of its connections is gone before it is found out.
    for _ in range(20):
        requests = [each for each in waiting if isinstance(each, Request)]
        requests.sort(key=lambda each: each.source == good)
        waiting.remove(requests[0])
        source, block = requests[0].source, requests[0].block
        effects = machine.handle(Arrived(source, block))
        if Store(source, block) in effects:
            if source == A:
                effects += machine.handle(SourceLost(A))
            effects += machine.handle(Stored(block) if source == good else Rejected(block))
        assert not any(isinstance(each, Fail) for each in effects)
        if Complete() in effects:
            break
        gone = [Request(each.source, each.block) for each in effects if isinstance(each, Withdraw)]
        waiting = [each for each in waiting + effects if each not in gone]
    assert machine.phase is Phase.COMPLETE


def test_a_changed_file_ends_it_unless_somebody_else_has_the_right_one() -> None:
    machine = download(2 * BLOCK)
    machine.handle(SourceAdded(A))
    machine.handle(SourceAdded(B))
    changed = SourceChanged(path="labels.slp")
    assert machine.handle(SourceRefused(A, changed)) == [Drop(A, changed), Request(B, 0)]
    effects = machine.handle(SourceRefused(B, changed))
    assert failure(effects) == "labels.slp changed while it was being sent."
    assert machine.handle(SourceRefused(A, SourceChanged(path="x"))) == []


def test_a_refusal_is_final_only_from_the_last_source() -> None:
    machine = download(2 * BLOCK)
    machine.handle(SourceAdded(A, BLOCK))
    machine.handle(SourceAdded(B, BLOCK))
    gone = NotFound(message="no longer here")
    effects = machine.handle(SourceRefused(A, gone))
    assert effects == [Drop(A, gone)]
    assert machine.handle(SourceRefused(A, gone)) == []
    assert machine.handle(SourceRefused(B, gone)) == [Drop(B, gone), Fail(gone)]


def test_blocks_that_rot_on_the_disk_are_asked_again() -> None:
    machine = download(2 * BLOCK)
    machine.handle(SourceAdded(A))
    assert machine.handle(Rotten((0,))) == []  # not complete: not checked either
    for time_ in range(MAX_FAILURES):
        blocks = [0, 1] if not time_ else [1]
        done = [effect for block in blocks for effect in deliver(machine, A, block)]
        assert done == [Complete()]
        assert machine.phase is Phase.COMPLETE
        assert machine.done_bytes == 2 * BLOCK
        effects = machine.handle(Rotten((1,)))
        if time_ < MAX_FAILURES - 1:
            assert machine.done_bytes == BLOCK
            assert effects == [Request(A, 1)]
    assert "wrong 3 times" in failure(effects)


def test_rot_without_a_source_waits_for_one() -> None:
    machine = download(BLOCK)
    machine.handle(SourceAdded(A))
    deliver(machine, A, 0)
    machine.handle(SourceLost(A))
    assert machine.phase is Phase.COMPLETE
    assert machine.handle(Rotten((0,))) == []
    assert machine.phase is Phase.WAITING
    assert machine.handle(SourceAdded(B)) == [Request(B, 0)]
    assert deliver(machine, B, 0) == [Complete()]
    assert machine.handle(Rotten(())) == [Complete()]


@pytest.mark.parametrize(
    "event",
    [
        Arrived(A, 0),
        Arrived(A, 99),
        Stored(0),
        Stored(99),
        Rejected(0),
        SourceLost(B),
        SourceLeaves(B),
    ],
)
def test_what_isnt_under_way_is_ignored(event: Event) -> None:
    machine = download(2 * BLOCK, done=b"\x01\x00")
    machine.handle(SourceAdded(A))
    assert machine.handle(event) == []
    assert deliver(machine, A, 1) == [Complete()]


class Driven:
    """A machine in a world where anything may happen; checks every effect."""

    def __init__(self, found: Layout, have: bytes, window: int) -> None:
        self.layout = found
        self.have = have
        self.window = window
        self.machine = Download(found, have)
        self.requests: list[Request] = []
        self.storing: list[int] = []
        self.withdrawn: list[Request] = []
        self.stored: Counter[int] = Counter()
        self.rejected: Counter[int] = Counter()
        self.alive: list[SourceId] = []
        self.leaving: list[SourceId] = []
        self.senders: dict[int, SourceId] = {}
        self.ended: Complete | Fail | None = None
        self._ids = iter(range(1, 1_000))
        self.take(self.machine.begin())

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            assert self.ended is None
            match effect:
                case Request():
                    self._check(effect)
                    self.requests.append(effect)
                case Withdraw():
                    gone = Request(effect.source, effect.block)
                    self.requests.remove(gone)
                    self.withdrawn.append(gone)
                case Store():
                    self.storing.append(effect.block)
                    self.senders[effect.block] = effect.source
                case Drop():
                    (self.alive if effect.source in self.alive else self.leaving).remove(
                        effect.source
                    )
                case Blame():
                    assert self.rejected[effect.block]
                    assert self.senders[effect.block] == effect.source
                case Complete() | Fail():
                    self.ended = effect

    def _check(self, request: Request) -> None:
        assert request.source in self.alive
        assert not self.have[request.block]
        assert not self.stored[request.block]
        assert request.block not in self.storing
        there = {*self.alive, *self.leaving}
        under_way = [other for other in self.requests if other.source in there]
        if request.block in {other.block for other in under_way}:
            # Only at the end, of three at most, and no more than a window of it all.
            count = Counter(other.block for other in under_way)
            assert count[request.block] < 3
            assert all(self.rejected[block] for block in self._missing(under_way))
            again = sum(self.layout.size(block) * (n - 1) for block, n in count.items())
            assert again + self.layout.size(request.block) <= WINDOW
        mine = [other.block for other in under_way if other.source == request.source]
        assert not mine or sum(map(self.layout.size, [*mine, request.block])) <= self.window

    def _missing(self, under_way: list[Request]) -> set[int]:
        """Blocks that nobody was asked for."""
        asked_for = {other.block for other in under_way} | set(self.storing)
        return {
            block
            for block, had in enumerate(self.have)
            if not had and not self.stored[block] and block not in asked_for
        }

    def choices(self) -> list[str]:
        found = ["add"] if len(self.alive) < 3 else []
        found += ["arrive"] * 3 if self.requests else []
        found += ["late"] if self.withdrawn else []
        found += ["store", "store", "store", "reject"] if self.storing else []
        found += ["lose", "leave"] if self.alive else []
        found += ["lose a leaving one"] if self.leaving else []
        return [] if self.ended else found

    def step(self, what: str, which: int = 0) -> None:
        if what == "add":
            self.alive.append(SourceId(next(self._ids)))
            run = 2 * BLOCK if self.alive[-1] % 2 else 0
            self.take(self.machine.handle(SourceAdded(self.alive[-1], self.window, run)))
        elif what == "arrive":  # also from a source that is lost by now
            request = self.requests.pop(which % len(self.requests))
            self.take(self.machine.handle(Arrived(request.source, request.block)))
        elif what == "late":  # it was on its way already
            request = self.withdrawn.pop(which % len(self.withdrawn))
            if request not in self.requests:
                assert self.machine.handle(Arrived(request.source, request.block)) == []
        elif what == "lose":
            self.take(self.machine.handle(SourceLost(self.alive.pop(which % len(self.alive)))))
        elif what == "leave":
            self.leaving.append(self.alive.pop(which % len(self.alive)))
            self.take(self.machine.handle(SourceLeaves(self.leaving[-1])))
        elif what == "lose a leaving one":
            self.take(self.machine.handle(SourceLost(self.leaving.pop(which % len(self.leaving)))))
        elif what == "store":
            block = self.storing.pop(which % len(self.storing))
            self.stored[block] += 1
            self.take(self.machine.handle(Stored(block)))
        else:
            block = self.storing.pop(which % len(self.storing))
            self.rejected[block] += 1
            self.take(self.machine.handle(Rejected(block)))
        # Who leaves is there until it owes nothing, and what it sent is stored.
        owe = {request.source for request in self.requests}
        owe |= {self.senders[block] for block in self.storing}
        waiting = not self.alive and owe.isdisjoint(self.leaving) and self.ended is None
        assert (self.machine.phase is Phase.WAITING) == waiting


@settings(max_examples=150)
@given(
    st.lists(st.integers(0, 3 * BLOCK), min_size=1, max_size=8),
    st.sampled_from([1, BLOCK, 3 * BLOCK, 12 * BLOCK]),
    st.data(),
)
def test_any_order_of_events_ends_well_or_says_why(
    sizes: list[int], window: int, data: st.DataObject
) -> None:
    found = layout(*sizes)
    have = bytes(data.draw(st.lists(st.booleans(), min_size=found.count, max_size=found.count)))
    world = Driven(found, have, window)
    for _ in range(data.draw(st.integers(0, 60))):
        if choices := world.choices():
            world.step(data.draw(st.sampled_from(choices)), data.draw(st.integers(0, 50)))

    # From here on all goes well, and then it must come to an end.
    if world.ended is None and not world.alive:
        world.step("add")
    while world.ended is None:
        assert world.requests or world.storing, "nothing is under way and nothing has ended"
        world.step("store" if world.storing else "arrive")

    if isinstance(world.ended, Complete):
        here = [had + world.stored[block] for block, had in enumerate(have)]
        assert here == [1] * found.count
        assert world.machine.done_bytes == sum(sizes)
        assert [world.machine.done_of(file) for file in range(len(sizes))] == sizes
        assert max(world.rejected.values(), default=0) < MAX_FAILURES
    else:
        block = next(b for b, count in world.rejected.items() if count == MAX_FAILURES)
        file, index = found.locate(block)
        assert isinstance(world.ended.error, DataError)
        assert found.package.files[file].path in world.ended.error.message
        assert f"block {index + 1} of" in world.ended.error.message


class Line:
    """A source that gives one block after the other, each in the same time."""

    def __init__(self, source: SourceId, seconds: float) -> None:
        self.source, self.seconds = source, seconds
        self.queue: list[int] = []
        self.ready = 0.0


@settings(max_examples=60)
@given(
    st.integers(1, 60),
    st.lists(st.sampled_from([0.01, 0.02, 0.1, 1.0, 10.0]), min_size=1, max_size=3),
    st.integers(0, 2),
)
def test_a_download_takes_hardly_longer_than_the_quickest_source_alone(
    blocks: int, speeds: list[float], late: int
) -> None:
    machine = download(blocks * BLOCK)
    lines = {SourceId(n): Line(SourceId(n), seconds) for n, seconds in enumerate(speeds, 1)}
    now = joined = 0.0
    sent = 0
    complete = False

    def take(effects: list[Effect]) -> None:
        nonlocal complete, sent
        for effect in effects:
            match effect:
                case Request():
                    line = lines[effect.source]
                    if not line.queue:
                        line.ready = now + line.seconds
                    line.queue.append(effect.block)
                case Withdraw():
                    line = lines[effect.source]
                    if line.queue[0] == effect.block:  # it was half sent
                        line.ready = now + line.seconds
                    line.queue.remove(effect.block)
                case Store():
                    sent += 1
                    take(machine.handle(Stored(effect.block)))
                case Complete():
                    complete = True

    quickest = min(speeds)
    for n, line in enumerate(lines.values()):
        if n == late:  # what the others were asked for, they owe
            now += 3 * quickest
            joined = now
        take(machine.handle(SourceAdded(line.source)))
    while not complete:
        line = min((each for each in lines.values() if each.queue), key=lambda each: each.ready)
        now = max(now, line.ready)
        block = line.queue.pop(0)
        line.ready = now + line.seconds
        take(machine.handle(Arrived(line.source, block)))
    assert sent == blocks
    assert now <= joined + (blocks + 2) * quickest + 1e-6


def seconds_per_event(machine: Download) -> float:
    """What it takes on the average to fetch everything, from one source after the other."""
    begun = time.process_time()
    source = A
    waiting = asked(machine.handle(SourceAdded(source)))
    events = 0
    complete = False
    while waiting:
        block = waiting.pop()
        machine.handle(Arrived(source, block))
        effects = machine.handle(Stored(block))
        waiting += asked(effects)
        events += 1
        complete = Complete() in effects
        if events % 1_000 == 0 and not complete:  # the search for missing blocks begins anew
            machine.handle(SourceLost(source))
            source = SourceId(source + 1)
            waiting = asked(machine.handle(SourceAdded(source)))
    assert complete
    return (time.process_time() - begun) / events


@pytest.mark.parametrize("kind", ["one large file", "small files"])
def test_an_event_costs_what_it_changes(kind: str) -> None:
    """Were all blocks looked at for each, ten times as many would make it ten times as long."""

    def seconds(blocks: int) -> float:
        large = kind == "one large file"
        return seconds_per_event(download(blocks * BLOCK) if large else download(*[10] * blocks))

    assert seconds(20_000) < 5 * seconds(2_000)
