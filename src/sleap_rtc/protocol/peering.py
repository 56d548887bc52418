"""How two peers arrange a WebRTC connection, through the server's ``relay``.

::

    offerer                                        answerer
      │ ── offer (attempt, session, purpose, sdp) ──► │
      │ ◄──────────── answer (attempt, sdp) ───────── │   or decline (attempt, code)
      │ ◄──────── candidate (attempt, …) ───────────► │   as they are found
      │ ── offer (attempt, restart) ────────────────► │   new network path, same connection
      │ ◄──────────── answer (attempt, sdp) ───────── │

The server could change any of this. It gains nothing: the handshake that runs
over the finished connection signs the fingerprints of the descriptions that
each side really applied.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from msgspec import Meta

from sleap_rtc.errors import ProtocolError
from sleap_rtc.protocol.codec import Codec, Message
from sleap_rtc.protocol.handshake import Purpose

Id = Annotated[str, Meta(pattern=r"\A[0-9a-f-]{36}\Z")]
Sdp = Annotated[str, Meta(min_length=1, max_length=16 * 1024)]

MAX_CANDIDATES: Final = 64
"""Candidates of one side that are taken; a laptop with many networks has about twenty."""

_WORD: Final = re.compile("fingerprint", re.IGNORECASE)
_FINGERPRINT: Final = re.compile(
    r"(?:\A|(?<=\n))a=fingerprint:sha-256 ([0-9A-F]{2}(?::[0-9A-F]{2}){31})(?=\r?\n|\Z)",
    re.IGNORECASE | re.ASCII,
)


class Offer(Message, frozen=True, tag="offer"):
    """Let us connect. ``restart`` renews the network path of an attempt that is connected."""

    attempt: Id
    session: Id
    purpose: Purpose
    sdp: Sdp
    restart: bool = False


class Answer(Message, frozen=True, tag="answer"):
    """Yes."""

    attempt: Id
    sdp: Sdp


class Candidate(Message, frozen=True, tag="candidate"):
    """An address that might work. An empty ``candidate`` is the last one."""

    attempt: Id
    candidate: Annotated[str, Meta(max_length=1024)]
    mid: Annotated[str, Meta(max_length=64)] | None = None
    line: Annotated[int, Meta(ge=0, le=64)] | None = None


class Decline(Message, frozen=True, tag="decline"):
    """No, and why."""

    attempt: Id
    code: Annotated[str, Meta(max_length=64)]
    message: Annotated[str, Meta(max_length=1_000)] = ""


Peering = Offer | Answer | Candidate | Decline

peering: Final = Codec[Peering](Peering)


def fingerprint_of(sdp: str, *, peer: str) -> bytes:
    """The SHA-256 certificate fingerprint in a session description, 32 bytes.

    A line that WebRTC might read as a fingerprint and this function doesn't would let the server
    put its own certificate beside the one that the handshake signs. So every mention of the word
    has to be a line of exactly the form that libraries write, and all have to say the same.

    Raises:
        ProtocolError: Not exactly one certificate, one by another hash, or another form.
    """
    found = _FINGERPRINT.findall(sdp)
    if len(found) != len(_WORD.findall(sdp)):
        raise ProtocolError(peer=peer, why="a description with an odd fingerprint")
    values = {value.upper() for value in found}
    if len(values) != 1:
        raise ProtocolError(peer=peer, why=f"a description with {len(values)} certificates")
    return bytes.fromhex(values.pop().replace(":", ""))
