"""The session machine: every state meets every event."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from sleap_rtc.domain.ids import DeviceId, RoomId
from sleap_rtc.errors import NotTrusted
from sleap_rtc.protocol.signaling import GetMembership, Refused, SignedIn, SignIn
from sleap_rtc.server import session as s

DEVICE = DeviceId("ab" * 32)
SIGN_IN = SignIn(version=1, device=DEVICE, signature="cd" * 64, name="laptop")
REQUEST = GetMembership(id=7, room=RoomId("a" * 32))
STATES: list[s.State] = [
    s.Challenged(nonce="00"),
    s.Checking(sign_in=SIGN_IN),
    s.Online(device=DEVICE),
    s.Ended(),
]
EVENTS: list[s.Event] = [
    SIGN_IN,
    REQUEST,
    s.Accepted(connection="c", ice_servers=(), may_create_rooms=True),
    s.Failed(error=NotTrusted(who="It", why="so")),
    s.Late(seconds=10),
]


def refused(effects: tuple[Any, ...]) -> Refused:
    send, close = effects
    assert isinstance(close, s.Close)
    assert close.code == 1008
    assert isinstance(send.message, Refused)
    assert close.reason == send.message.code
    return send.message


def test_the_good_way() -> None:
    state, (challenge,) = s.start("ab" * 32)
    assert isinstance(challenge, s.Send)
    state, (check,) = s.step(state, SIGN_IN)
    assert check == s.Check(sign_in=SIGN_IN, nonce="ab" * 32)
    state, (welcome,) = s.step(state, EVENTS[2])
    assert isinstance(welcome, s.Send)
    assert isinstance(welcome.message, SignedIn)
    assert welcome.message.may_create_rooms
    assert s.step(state, REQUEST) == (state, (s.Perform(request=REQUEST),))


@pytest.mark.parametrize(("state", "event"), list(itertools.product(STATES, EVENTS)))
def test_every_state_and_every_event(state: s.State, event: s.Event) -> None:
    after, effects = s.step(state, event)
    if isinstance(after, s.Ended) and not isinstance(state, s.Ended):
        assert refused(effects).id is None
    if any(isinstance(effect, s.Perform) for effect in effects):
        assert isinstance(state, s.Online)
    if any(isinstance(effect, s.Check) for effect in effects):
        assert isinstance(state, s.Challenged)
    if isinstance(state, s.Ended):
        assert (after, effects) == (state, ())


@pytest.mark.parametrize(
    ("state", "event", "code"),
    [
        (STATES[0], REQUEST, "not_signed_in"),
        (STATES[0], EVENTS[4], "deadline_exceeded"),
        (STATES[1], EVENTS[4], "deadline_exceeded"),
        (STATES[0], EVENTS[3], "not_trusted"),
        (STATES[1], EVENTS[3], "not_trusted"),
        (STATES[2], EVENTS[3], "not_trusted"),
        (STATES[1], SIGN_IN, "protocol"),
        (STATES[2], SIGN_IN, "protocol"),
        (STATES[0], SignIn(version=9, device=DEVICE, signature="", name="x"), "version_mismatch"),
    ],
)
def test_what_ends_a_session(state: s.State, event: s.Event, code: str) -> None:
    after, effects = s.step(state, event)
    assert after == s.Ended()
    assert refused(effects).code == code


def test_a_deadline_that_comes_late_changes_nothing() -> None:
    assert s.step(STATES[2], s.Late(seconds=10)) == (STATES[2], ())
