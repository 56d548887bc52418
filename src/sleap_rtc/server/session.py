"""One connection's session: plain state; what is to be done comes out as effects.

::

             sign_in                 accepted
    Challenged ────────► Checking ────────────► SignedIn ──► request: perform
        │                    │ rejected             │ ▲          │
        │ deadline, fault,   ▼                      │ └──────────┘
        └─ anything else ► Ended ◄── fault ─────────┘

Nothing but a sign-in is listened to before one succeeds. The nonce is one
connection's, so a signature can't be used again on another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from sleap_rtc.domain.ids import DeviceId
from sleap_rtc.errors import (
    DeadlineExceeded,
    NotSignedIn,
    ProtocolError,
    SleapRtcError,
    VersionMismatch,
)
from sleap_rtc.protocol.signaling import (
    SIGNALING_VERSION,
    Challenge,
    FromServer,
    IceServer,
    Refused,
    Request,
    SignedIn,
    SignIn,
)

VERSIONS: Final = (SIGNALING_VERSION,)
"""Signaling versions that this server speaks."""

POLICY: Final = 1008
"""The WebSocket close code for what a device did, or who it is."""

# ── states ───────────────────────────────────────────────────────────────────


class Challenged(msgspec.Struct, frozen=True):
    """The challenge with this nonce was sent."""

    nonce: str


class Checking(msgspec.Struct, frozen=True):
    """A sign-in is being checked."""

    sign_in: SignIn


class Online(msgspec.Struct, frozen=True):
    """The device is signed in."""

    device: DeviceId


class Ended(msgspec.Struct, frozen=True):
    """The connection is to be closed."""


State = Challenged | Checking | Online | Ended

# ── events, beside the messages of a device ──────────────────────────────────


class Accepted(msgspec.Struct, frozen=True):
    """The sign-in is good."""

    connection: str
    ice_servers: tuple[IceServer, ...]
    may_create_rooms: bool


class Failed(msgspec.Struct, frozen=True):
    """The sign-in is not good, or what came is no message."""

    error: SleapRtcError


class Late(msgspec.Struct, frozen=True):
    """The time to sign in is over."""

    seconds: float


Event = SignIn | Request | Accepted | Failed | Late

# ── effects ──────────────────────────────────────────────────────────────────


class Send(msgspec.Struct, frozen=True):
    """Send this to the device."""

    message: FromServer


class Check(msgspec.Struct, frozen=True):
    """Find out whether the sign-in is good; answer with Accepted or Failed."""

    sign_in: SignIn
    nonce: str


class Perform(msgspec.Struct, frozen=True):
    """Do what the device asks, and answer it."""

    request: Request


class Close(msgspec.Struct, frozen=True):
    """Close the connection, after what was sent."""

    code: int
    reason: str


Effect = Send | Check | Perform | Close
Step = tuple[State, tuple[Effect, ...]]


def start(nonce: str) -> Step:
    """The state of a new connection.

    Args:
        nonce: 32 random bytes in hex.
    """
    return Challenged(nonce=nonce), (Send(Challenge(nonce=nonce, versions=VERSIONS)),)


def step(state: State, event: Event) -> Step:
    """What an event makes of a session.

    Returns:
        The new state, and what to do, in order.
    """
    kind = Request if isinstance(event, Request) else type(event)
    return _TABLE.get((type(state), kind), _ignore)(state, event)


def _check(state: Challenged, event: SignIn) -> Step:
    if event.version not in VERSIONS:
        return _end(
            VersionMismatch(
                peer="The device",
                theirs=str(event.version),
                ours=", ".join(str(version) for version in VERSIONS),
            )
        )
    return Checking(sign_in=event), (Check(sign_in=event, nonce=state.nonce),)


def _welcome(state: Checking, event: Accepted) -> Step:
    message = SignedIn(
        version=state.sign_in.version,
        connection=event.connection,
        ice_servers=event.ice_servers,
        may_create_rooms=event.may_create_rooms,
    )
    return Online(device=state.sign_in.device), (Send(message),)


def _fail(_state: State, event: Failed) -> Step:
    return _end(event.error)


def _not_yet(_state: Challenged, _event: Any) -> Step:
    return _end(NotSignedIn(server="the server"))


def _late(_state: State, event: Late) -> Step:
    return _end(DeadlineExceeded(what="Signing in", seconds=f"{event.seconds:g}"))


def _again(_state: State, _event: SignIn) -> Step:
    return _end(ProtocolError(peer="the device", why="a second sign-in"))


def _perform(state: Online, event: Any) -> Step:
    return state, (Perform(event),)


def _ignore(state: State, _event: Event) -> Step:
    return state, ()


def _end(error: SleapRtcError) -> Step:
    return Ended(), (Send(Refused.because(error)), Close(code=POLICY, reason=error.code))


_TABLE: Final[dict[tuple[type, Any], Callable[[Any, Any], Step]]] = {
    (Challenged, SignIn): _check,
    (Challenged, Request): _not_yet,
    (Challenged, Failed): _fail,
    (Challenged, Late): _late,
    (Checking, Accepted): _welcome,
    (Checking, Failed): _fail,
    (Checking, Late): _late,
    (Checking, SignIn): _again,
    (Online, Request): _perform,
    (Online, SignIn): _again,
    (Online, Failed): _fail,
}
"""Every transition there is. What isn't listed changes nothing: it comes after the end, or late."""
