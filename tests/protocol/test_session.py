"""The session machine: each request ends once, repeats are harmless, time decides who is there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from sleap_rtc.domain.ids import JobId
from sleap_rtc.errors import (
    BY_CODE,
    Busy,
    Conflict,
    DeadlineExceeded,
    ProtocolError,
    SleapRtcError,
    UnknownModel,
)
from sleap_rtc.jobs.events import JobEvent, StateChanged
from sleap_rtc.protocol import link, session
from sleap_rtc.protocol.link import (
    DEAD_AFTER_S,
    FIRST_PINGS,
    MAX_REQUESTS,
    PING_EVERY_S,
    QUICKEST_PINGS,
    SILENT_AFTER_S,
    Accepted,
    Describe,
    FindModel,
    Reply,
    Request,
    Withdraw,
    frames,
)
from sleap_rtc.protocol.session import (
    Answered,
    Asked,
    Dead,
    Heard,
    Left,
    Send,
    Session,
    Silent,
    Told,
    Withdrawn,
)
from sleap_rtc.testing.made_room import NOON

NOTICE = link.JobHappened(
    job=JobId("01977f00-0000-7000-8000-000000000000"),
    event=JobEvent(n=1, at=NOON, body=StateChanged(state="queued")),
)


def make(now: float = 100.0) -> Session:
    return Session(now=now, peer="gpu-1")


def request(id: str, body: link.RequestBody | None = None) -> Request:  # noqa: A002
    return Request(id=id, within_s=10, body=body or Describe())


def without_pings(effects: list[session.Effect]) -> list[session.Effect]:
    return [e for e in effects if not (isinstance(e, Send) and isinstance(e.frame, link.Ping))]


# ── our requests ─────────────────────────────────────────────────────────────


def test_a_request_is_sent_and_answered() -> None:
    machine = make()
    assert machine.ask(Describe(), id="a", now=100, within_s=5) == [
        Send(Request(id="a", within_s=5, body=Describe()))
    ]
    assert machine.handle(Reply(id="a", body=Accepted()), 101) == [Answered("a", Accepted())]
    assert machine.handle(Reply(id="a", body=Accepted()), 102) == []
    assert without_pings(machine.tick(110)) == [Silent()]


def test_a_failure_is_the_same_error_here() -> None:
    machine = make()
    machine.ask(FindModel(name="x"), id="a", now=100, within_s=5)
    there = make()
    there.handle(request("a", FindModel(name="x")), 100)
    (send,) = there.refuse("a", UnknownModel(name="x", hint="Look at {home}."))
    assert isinstance(send, Send)
    (answered,) = machine.handle(frames.decode(frames.encode(send.frame), peer="gpu-1"), 101)
    assert isinstance(answered, Answered)
    assert type(answered.result) is UnknownModel
    assert str(answered.result) == "There is no model 'x' here."
    assert answered.result.hint_text == "Look at {home}."


@pytest.mark.parametrize("code", sorted(BY_CODE))
@pytest.mark.parametrize("letter", ["x", "\x01", "😀"])
def test_any_refusal_fits_a_message(code: str, letter: str) -> None:
    details = {f"d{n}": letter * 5_000 for n in range(30)}
    error = BY_CODE[code](message=letter * 9_000, hint=letter * 9_000, **details)
    there = make()
    there.handle(request("a" * 64), 100)
    (send,) = there.refuse("a" * 64, error)
    assert isinstance(send, Send)
    assert frames.decode(frames.encode(send.frame), peer="gpu-1") == send.frame


def test_hostile_words_of_a_failure_are_only_words() -> None:
    machine = make()
    for number, details in enumerate(({"self": "a"}, {"hint": "b"}, {"message": "{self}"})):
        machine.ask(Describe(), id=str(number), now=100, within_s=5)
        failure = link.Failure(
            id=str(number), code="usage", message="{x!r}{", hint="{:>9999999999}{", details=details
        )
        (answered,) = machine.handle(failure, 101)
        assert isinstance(answered, Answered)
        assert isinstance(answered.result, SleapRtcError)
        assert answered.result.message == "{x!r}{"
        assert answered.result.hint_text == "{:>9999999999}{"


def test_a_deadline_ends_a_request_and_withdraws_it() -> None:
    machine = make()
    machine.ask(Describe(), id="a", now=100, within_s=2.5)
    assert without_pings(machine.tick(102.4)) == []
    withdrawn, answered = without_pings(machine.tick(102.5))
    assert withdrawn == Send(Withdraw(id="a"))
    assert isinstance(answered, Answered)
    assert isinstance(answered.result, DeadlineExceeded)
    assert str(answered.result) == "An answer of gpu-1 took longer than 2.5 s."
    assert machine.handle(Reply(id="a", body=Accepted()), 103) == []
    assert without_pings(machine.tick(103)) == []


def test_a_forgotten_request_is_withdrawn_once() -> None:
    machine = make()
    machine.ask(Describe(), id="a", now=100, within_s=5)
    assert machine.forget("a") == [Send(Withdraw(id="a"))]
    assert machine.forget("a") == []
    assert machine.handle(Reply(id="a", body=Accepted()), 101) == []


def test_we_ask_no_more_than_the_peer_puts_up_with() -> None:
    machine, there = make(), make()
    for number in range(MAX_REQUESTS):
        (send,) = machine.ask(Describe(), id=str(number), now=100, within_s=5)
        assert isinstance(send, Send)
        there.handle(send.frame, 100)
    with pytest.raises(Conflict, match="256 requests to gpu-1"):
        machine.ask(Describe(), id="more", now=100, within_s=5)
    assert machine.ask(Describe(), id="0", now=100, within_s=5)  # the same again is no more
    machine.forget("7")
    there.handle(Withdraw(id="7"), 100)
    (send,) = machine.ask(Describe(), id="more", now=100, within_s=5)
    assert isinstance(send, Send)
    assert [type(e) for e in there.handle(send.frame, 100)] == [Asked]


# ── the peer's requests ──────────────────────────────────────────────────────


def test_a_request_that_comes_again_is_the_same() -> None:
    machine = make()
    assert machine.handle(request("a"), 100) == [Asked("a", Describe(), 10)]
    assert machine.handle(request("a"), 100) == []
    answer = [Send(Reply(id="a", body=Accepted()))]
    assert machine.answer("a", Accepted()) == answer
    assert machine.answer("a", Accepted()) == []
    assert machine.refuse("a", Busy(what="It", by="")) == []
    assert machine.handle(request("a"), 101) == answer


def test_answers_are_kept_for_a_while_only() -> None:
    machine = make()
    for number in range(MAX_REQUESTS + 1):
        machine.handle(request(str(number)), 100)
        machine.answer(str(number), Accepted())
    assert machine.handle(request("1"), 100) == [Send(Reply(id="1", body=Accepted()))]
    assert machine.handle(request("0"), 100) == [Asked("0", Describe(), 10)]


def test_long_answers_are_kept_for_a_shorter_while() -> None:
    machine = make()
    for number in range(17):
        machine.handle(request(str(number)), 100)
        machine.answer(str(number), Accepted(), size=64 * 1024)
    kept = [number for number in range(17) if str(number) in machine._answers]
    assert kept == list(range(1, 17))
    for number in range(100, 200):
        machine.handle(request(str(number)), 100)
        machine.refuse(str(number), UnknownModel(name="x" * 1_000, hint="y" * 1_000))
    assert sum(size for _, size in machine._answers.values()) <= session.KEPT_BYTES
    assert machine.handle(request("199"), 100) == [Send(machine._answers["199"][0])]


def test_a_withdrawn_request_is_as_if_never_asked() -> None:
    machine = make()
    assert machine.handle(Withdraw(id="a"), 100) == []
    machine.handle(request("a"), 100)
    assert machine.handle(Withdraw(id="a"), 100) == [Withdrawn("a")]
    assert machine.answer("a", Accepted()) == []
    assert machine.handle(Withdraw(id="a"), 100) == []
    assert machine.handle(request("a"), 100) == [Asked("a", Describe(), 10)]


def test_withdrawn_requests_don_t_count() -> None:
    machine = make()
    for number in range(3 * MAX_REQUESTS):
        machine.handle(request(str(number)), 100)
        machine.handle(Withdraw(id=str(number)), 100)
    assert machine.handle(request("a"), 100) == [Asked("a", Describe(), 10)]


def test_too_many_requests_break_the_protocol() -> None:
    machine = make()
    for number in range(MAX_REQUESTS):
        machine.handle(request(str(number)), 100)
    with pytest.raises(ProtocolError, match="more than 256 requests"):
        machine.handle(request("more"), 100)


# ── life ─────────────────────────────────────────────────────────────────────


def test_notices_and_goodbyes_are_passed_on() -> None:
    machine = make()
    assert machine.handle(link.Notice(body=NOTICE), 100) == [Told(NOTICE)]
    assert machine.handle(link.Bye(reason="done"), 100) == [Left("done")]


def test_a_few_pings_at_once_tell_how_far_the_peer_is_and_then_one_goes_out_every_second() -> None:
    machine = make()
    for n in range(1, FIRST_PINGS + 1):
        assert machine.tick(100 + n / 4) == [Send(link.Ping(n=n))]
    last = 100 + FIRST_PINGS / 4
    assert machine.tick(last + PING_EVERY_S / 2) == []
    assert machine.tick(last + PING_EVERY_S) == [Send(link.Ping(n=FIRST_PINGS + 1))]
    for n in range(1, FIRST_PINGS + 1):
        assert machine.quickest_s is None
        # The second one is quicker than the others.
        assert machine.handle(link.Pong(n=n), 100 + n / 4 + (0.25 if n == 2 else 0.5)) == []
    assert machine.quickest_s == 0.25
    for odd in (2, 99, 2**53):
        machine.handle(link.Pong(n=odd), 102)
    assert machine.quickest_s == 0.25
    assert machine.recent_s == 0.25
    assert machine.handle(link.Ping(n=7), 102) == [Send(link.Pong(n=7))]


def test_pings_go_with_every_tick_for_a_second_once_that_was_asked_for() -> None:
    machine = make()
    for n in range(FIRST_PINGS):
        machine.tick(100 + n / 4)
    at = 100 + FIRST_PINGS / 4
    machine.ping_often(at)
    pings = [machine.tick(at + tick / 4) for tick in range(8)]
    assert [len(each) for each in pings] == [1, 1, 1, 1, 0, 0, 0, 1]


def test_how_long_the_line_takes_now_is_told_by_the_last_two_pings() -> None:
    machine = make()
    assert machine.recent_s is None
    found = []
    for n, wait in enumerate((0.1, 0.5, 0.3, 0.4, 0.2), 1):
        machine.tick(100.0 + n)
        machine.handle(link.Pong(n=n), 100.0 + n + wait)
        found.append(round(machine.recent_s or 0.0, 3))
    assert found == [0.1, 0.1, 0.3, 0.3, 0.2]


def test_a_line_that_has_become_longer_is_known_to_be_after_some_minutes() -> None:
    machine = make()
    for n in range(1, QUICKEST_PINGS + 2):
        wait = 0.001 if n == 1 else 0.1
        machine.tick(100.0 + n)
        machine.handle(link.Pong(n=n), 100.0 + n + wait)
        if n == QUICKEST_PINGS:
            assert machine.quickest_s == pytest.approx(0.001)
    assert machine.quickest_s == pytest.approx(0.1)


def test_silence_is_told_once_and_ends_with_a_sound() -> None:
    machine = make()
    assert without_pings(machine.tick(100 + SILENT_AFTER_S - 0.01)) == []
    assert not machine.silent
    assert without_pings(machine.tick(100 + SILENT_AFTER_S)) == [Silent()]
    assert machine.silent
    assert without_pings(machine.tick(101 + SILENT_AFTER_S)) == []
    assert machine.heard(102 + SILENT_AFTER_S) == [Heard()]
    assert not machine.silent
    assert machine.heard(102 + SILENT_AFTER_S) == []


def test_a_dead_peer_is_dead_however_late_one_looks() -> None:
    for late in (DEAD_AFTER_S, 10 * DEAD_AFTER_S):
        machine = make()
        machine.tick(100)
        assert machine.tick(100 + late) == [Dead()]


def test_a_clock_that_stands_still_or_a_late_frame_does_no_harm() -> None:
    machine = make()
    machine.handle(link.Ping(n=1), 110)
    machine.handle(link.Ping(n=2), 105)
    assert without_pings(machine.tick(110 + SILENT_AFTER_S - 0.01)) == []


ids = st.sampled_from([f"r{n}" for n in range(6)])


class Requests(RuleBasedStateMachine):
    """Both directions at random, against plain bookkeeping."""

    ours = Bundle("ours")
    theirs = Bundle("theirs")

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.machine = Session(now=0.0, peer="gpu-1")
        self.open: dict[str, float] = {}
        self.asked = 0
        self.ended = 0
        self.working: set[str] = set()
        self.count = 0

    def take(self, effects: list[session.Effect]) -> list[session.Effect]:
        """Count what ended; every end is of a request that was open."""
        for effect in effects:
            if isinstance(effect, Answered):
                del self.open[effect.id]
                self.ended += 1
        return effects

    @rule(target=ours, within=st.floats(0.1, 30))
    def ask(self, within: float) -> str:
        self.count += 1
        id_ = f"q{self.count}"
        self.machine.ask(Describe(), id=id_, now=self.now, within_s=within)
        self.open[id_] = self.now + within
        self.asked += 1
        return id_

    @rule(id_=ours, failure=st.booleans(), times=st.integers(1, 3))
    def they_answer(self, id_: str, failure: bool, times: int) -> None:
        frame: Any = Reply(id=id_, body=Accepted())
        if failure:
            frame = link.Failure(id=id_, code="busy", message="Busy.")
        for _ in range(times):
            was_open = id_ in self.open
            effects = self.take(self.machine.handle(frame, self.now))
            assert any(isinstance(e, Answered) for e in effects) == was_open

    @rule(id_=consumes(ours))
    def we_give_up(self, id_: str) -> None:
        was_open = self.open.pop(id_, None) is not None
        self.ended += was_open
        assert self.machine.forget(id_) == ([Send(Withdraw(id=id_))] if was_open else [])

    @rule(target=theirs, id_=ids)
    def they_ask(self, id_: str) -> str:
        effects = [
            e for e in self.machine.handle(request(id_), self.now) if not isinstance(e, Heard)
        ]
        if id_ in self.working:
            assert effects == []
        elif effects and isinstance(effects[0], Asked):
            self.working.add(id_)
        else:
            assert effects == [Send(Reply(id=id_, body=Accepted()))]
        return id_

    @rule(id_=theirs)
    def we_answer(self, id_: str) -> None:
        sent = self.machine.answer(id_, Accepted())
        assert bool(sent) == (id_ in self.working)
        self.working.discard(id_)

    @rule(id_=consumes(theirs))
    def they_give_up(self, id_: str) -> None:
        effects = self.machine.handle(Withdraw(id=id_), self.now)
        assert (Withdrawn(id_) in effects) == (id_ in self.working)
        self.working.discard(id_)

    @rule(seconds=st.floats(0, 15))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        due = {id_ for id_, deadline in self.open.items() if self.now >= deadline}
        effects = self.take(self.machine.tick(self.now))
        assert {e.id for e in effects if isinstance(e, Answered)} == due

    @invariant()
    def every_request_is_open_or_has_ended_once(self) -> None:
        if hasattr(self, "open"):
            assert self.asked == self.ended + len(self.open)


TestRequests = Requests.TestCase
