"""The handshake's messages: the first and only ones on a connection until it has succeeded.

Both sides speak at once; neither waits for the other's ``hello``::

    either side                                     the other
      │ ── hello (who, nonce, versions, list n) ──►   │
      │ ◄── hello ──────────────────────────────────  │
      │ ── membership (the list) ─────────────────►   │  only from the side whose n is higher
      │ ── proof (signature) ─────────────────────►   │
      │ ◄── proof ──────────────────────────────────  │  from the other, once it has the list
      │                                               │
      │ ◄── refusal (code, why) ────────────────────  │  instead of going on; then it closes

The rules are in ``auth/handshake.py``, what is signed in ``auth/transcript.py``.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from sleap_rtc.protocol.codec import Codec, Message
from sleap_rtc.protocol.signed import (
    NO_DIGEST,
    Bytes32,
    Chain,
    KeyId,
    RoomName,
    Signature,
    SignedMembership,
)

PROTOCOL_NAME: Final = "sleap-rtc-link"
HANDSHAKE_VERSION: Final = 1
"""Version of the handshake itself; what follows it is negotiated by it."""
HANDSHAKE_SECONDS: Final = 15
"""A connection that hasn't been proven after this many seconds is closed."""
MAX_REFUSAL: Final = 500
"""Characters of a refusal's sentence."""

Side = Literal["offerer", "answerer"]
"""Who made the offer of this connection, and who answered it."""
Purpose = Literal["control", "blocks"]

SessionId = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9-]{1,64}\Z")]
Versions = Annotated[
    tuple[Annotated[int, Meta(ge=1, le=65_535)], ...], Meta(min_length=1, max_length=16)
]
Feature = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9-]{0,31}\Z")]
Features = Annotated[tuple[Feature, ...], Meta(max_length=32)]
PlaceName = Annotated[str, Meta(pattern=r"\A(\w[\w.-]{0,63})?\Z")]


class Hello(Message, frozen=True, tag="hello"):
    """Who speaks, and what for. None of it is believed before the proof.

    Attributes:
        device: The sender's public key.
        chain: Proves that key's place in the room.
        side: The sender's part in making the connection.
        room: The room that both are in.
        session: The link's id; every connection of the link has the same.
        purpose: What the connection is for.
        nonce: 32 random bytes, made for this connection.
        versions: Link protocol versions that the sender speaks.
        features: Optional abilities that the sender has.
        membership: Number of the sender's membership list, 0 without one.
        membership_digest: SHA-256 of that list's payload; zeros without one.
        name: What the sender is called in the room now, a worker above all: the server says so
            too, and here it is signed. Empty where it has no name there.
        handshake: Version of the handshake itself.
    """

    device: KeyId
    chain: Chain
    side: Side
    room: RoomName
    session: SessionId
    purpose: Purpose
    nonce: Bytes32
    versions: Versions
    features: Features = ()
    membership: Annotated[int, Meta(ge=0, lt=2**53)] = 0
    membership_digest: Bytes32 = NO_DIGEST
    name: PlaceName = ""
    handshake: Annotated[int, Meta(ge=1, le=65_535)] = HANDSHAKE_VERSION


class MembershipOffer(Message, frozen=True, tag="membership"):
    """The newer membership list, from the side that has it."""

    membership: SignedMembership


class Proof(Message, frozen=True, tag="proof"):
    """The sender's signature over the transcript of this connection."""

    signature: Signature


class Refusal(Message, frozen=True, tag="refusal"):
    """The sender goes no further. Unproven words: shown to the user, never acted upon.

    Attributes:
        code: The error's stable code.
        why: One sentence.
    """

    code: Annotated[str, Meta(pattern=r"\A[a-z_]{1,64}\Z")]
    why: Annotated[str, Meta(max_length=MAX_REFUSAL)]


HandshakeMessage = Hello | MembershipOffer | Proof | Refusal

handshake_codec: Final = Codec[HandshakeMessage](HandshakeMessage)
