"""Requests, answers and pings of one authenticated connection, as a pure machine.

It is given messages and the time, and returns what to do::

    session.ask(body, …)          → [Send]
    session.handle(frame, now)    → [Send | Asked | Withdrawn | Answered | Told | Left]
    session.tick(now)             → [Send | Answered | Silent | Heard | Dead]

Rules: a request is answered once; one that arrives again while it is worked on
is dropped, and one that arrives again after that gets the same answer (the last
:data:`~sleap_rtc.protocol.link.MAX_REQUESTS` answers are kept, of up to
:data:`KEPT_BYTES` together). One that was withdrawn is as if it had never been
asked. An answer that comes after its deadline, or to nothing, is dropped.
Anything heard counts as a sign of life, not only pongs.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from itertools import islice
from typing import Final

import msgspec

from sleap_rtc.errors import (
    Conflict,
    DeadlineExceeded,
    ProtocolError,
    SleapRtcError,
    from_wire,
    to_wire,
)
from sleap_rtc.protocol import link
from sleap_rtc.protocol.link import AnyReply, AnyRequest, Failure, Frame, NoticeBody, Reply

KEPT_BYTES: Final = 1024 * 1024
"""Bytes of all answers that are kept: whoever asks for long ones costs no more than others."""


class Send(msgspec.Struct, frozen=True):
    """Send this message."""

    frame: Frame


class Asked(msgspec.Struct, frozen=True):
    """The peer asks; answer with :meth:`Session.answer` or :meth:`Session.refuse`."""

    id: str
    body: AnyRequest
    within_s: float


class Withdrawn(msgspec.Struct, frozen=True):
    """The peer doesn't want the answer to ``id`` any more; one that is given still is dropped."""

    id: str


class Answered(msgspec.Struct, frozen=True):
    """Our request ``id`` has its answer: a body or an error."""

    id: str
    result: AnyReply | SleapRtcError


class Told(msgspec.Struct, frozen=True):
    """The peer tells of something that we follow."""

    body: NoticeBody


class Left(msgspec.Struct, frozen=True):
    """The peer said goodbye."""

    reason: str


class Silent(msgspec.Struct, frozen=True):
    """Nothing was heard for :data:`~sleap_rtc.protocol.link.SILENT_AFTER_S` seconds."""


class Heard(msgspec.Struct, frozen=True):
    """The peer was silent and is heard again."""


class Dead(msgspec.Struct, frozen=True):
    """Nothing was heard for :data:`~sleap_rtc.protocol.link.DEAD_AFTER_S` seconds."""


Effect = Send | Asked | Withdrawn | Answered | Told | Left | Silent | Heard | Dead


class Session:
    """The machine. Times are seconds of any clock that never goes back.

    Args:
        now: The present time.
        peer: Names the peer in errors.
    """

    def __init__(self, *, now: float, peer: str) -> None:
        self._peer = peer
        self._waiting: dict[str, tuple[float, float]] = {}
        self._working: set[str] = set()
        self._answers: OrderedDict[str, tuple[Frame, int]] = OrderedDict()
        self._kept = 0
        self._heard_at = now
        self._ping_at = now
        self._often_until = now
        self._pings: dict[int, float] = {}
        self._n = 0
        self._silent = False
        self._round_trips: deque[float] = deque(maxlen=link.QUICKEST_PINGS)

    @property
    def silent(self) -> bool:
        """Whether the peer counts as silent."""
        return self._silent

    @property
    def quickest_s(self) -> float | None:
        """Seconds of the quickest round trip of a ping of late; None before a few have come back.

        A busy machine delays some: one says little.
        """
        return min(self._round_trips) if len(self._round_trips) >= link.FIRST_PINGS else None

    @property
    def recent_s(self) -> float | None:
        """Seconds of the quicker round trip of the last two pings; None before there were some."""
        return min(islice(reversed(self._round_trips), link.RECENT_PINGS), default=None)

    def ask(self, body: AnyRequest, *, id: str, now: float, within_s: float) -> list[Effect]:  # noqa: A002
        """Ask the peer; the answer comes as :class:`Answered`.

        Args:
            body: What is asked.
            id: The request's id; the same id is the same request.
            now: The present time.
            within_s: Seconds until an answer isn't waited for any more, up to 3,600.

        Raises:
            Conflict: As many requests wait as the peer puts up with.
        """
        if id not in self._waiting and len(self._waiting) >= link.MAX_REQUESTS:
            what = f"{link.MAX_REQUESTS} requests to {self._peer} wait for an answer already."
            raise Conflict(message=what)
        self._waiting[id] = (now + within_s, within_s)
        return [Send(link.Request(id=id, within_s=within_s, body=body))]

    def forget(self, id: str) -> list[Effect]:  # noqa: A002
        """Give up a request of ours."""
        if self._waiting.pop(id, None) is None:
            return []
        return [Send(link.Withdraw(id=id))]

    def answer(self, id: str, body: AnyReply, *, size: int = 0) -> list[Effect]:  # noqa: A002
        """Answer the peer's request; ``size`` is the answer's, in bytes."""
        return self._close(id, Reply(id=id, body=body), size)

    def refuse(self, id: str, error: SleapRtcError) -> list[Effect]:  # noqa: A002
        """Refuse the peer's request."""
        failure = Failure(id=id, **to_wire(error))
        size = len(failure.message) + len(failure.hint) + sum(map(len, failure.details.values()))
        return self._close(id, failure, size)

    def handle(self, frame: Frame, now: float) -> list[Effect]:
        """Take a message that has arrived.

        Raises:
            ProtocolError: The peer breaks the rules; the connection is to be closed.
        """
        effects = self.heard(now)
        match frame:
            case link.Request():
                return effects + self._asked(frame)
            case Reply():
                return effects + self._answered(frame.id, frame.body)
            case Failure():
                error = from_wire(frame.code, frame.details, message=frame.message, hint=frame.hint)
                return effects + self._answered(frame.id, error)
            case link.Withdraw():
                return effects + self._withdrawn(frame.id)
            case link.Notice():
                return [*effects, Told(frame.body)]
            case link.Ping():
                return [*effects, Send(link.Pong(n=frame.n))]
            case link.Pong():
                sent = self._pings.pop(frame.n, None)
                if sent is not None:
                    self._round_trips.append(now - sent)
                return effects
            case link.Bye():
                return [*effects, Left(frame.reason)]

    def heard(self, now: float) -> list[Effect]:
        """Something arrived, of whatever kind."""
        self._heard_at = max(self._heard_at, now)
        if not self._silent:
            return []
        self._silent = False
        return [Heard()]

    def ping_often(self, now: float) -> None:
        """Ping with every tick for the next second: it matters how the line is just now."""
        self._often_until = now + link.OFTEN_S

    def tick(self, now: float) -> list[Effect]:
        """Let time pass; to be called about four times a second."""
        effects: list[Effect] = []
        for id_, (deadline, seconds) in list(self._waiting.items()):
            if now >= deadline:
                del self._waiting[id_]
                error = DeadlineExceeded(what=f"An answer of {self._peer}", seconds=f"{seconds:g}")
                effects += [Send(link.Withdraw(id=id_)), Answered(id_, error)]
        quiet = now - self._heard_at
        if quiet >= link.DEAD_AFTER_S:
            return [*effects, Dead()]
        if quiet >= link.SILENT_AFTER_S and not self._silent:
            self._silent = True
            effects.append(Silent())
        if now >= self._ping_at or now < self._often_until:
            self._n += 1
            self._ping_at = now + (link.PING_EVERY_S if self._n >= link.FIRST_PINGS else 0.0)
            self._pings = {n: at for n, at in self._pings.items() if now - at < link.DEAD_AFTER_S}
            self._pings[self._n] = now
            effects.append(Send(link.Ping(n=self._n)))
        return effects

    def _asked(self, frame: link.Request) -> list[Effect]:
        if frame.id in self._working:
            return []
        if frame.id in self._answers:
            return [Send(self._answers[frame.id][0])]
        if len(self._working) >= link.MAX_REQUESTS:
            why = f"more than {link.MAX_REQUESTS} requests at a time"
            raise ProtocolError(peer=self._peer, why=why)
        self._working.add(frame.id)
        return [Asked(frame.id, frame.body, frame.within_s)]

    def _withdrawn(self, id: str) -> list[Effect]:  # noqa: A002
        if id not in self._working:
            return []
        self._working.discard(id)
        return [Withdrawn(id)]

    def _answered(self, id: str, result: AnyReply | SleapRtcError) -> list[Effect]:  # noqa: A002
        if self._waiting.pop(id, None) is None:
            return []
        return [Answered(id, result)]

    def _close(self, id: str, frame: Reply | Failure, size: int) -> list[Effect]:  # noqa: A002
        if id not in self._working:
            return []
        self._working.discard(id)
        self._answers[id] = frame, size
        self._kept += size
        while len(self._answers) > link.MAX_REQUESTS or self._kept > KEPT_BYTES:
            self._kept -= self._answers.popitem(last=False)[1][1]
        return [Send(frame)]
