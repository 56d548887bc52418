"""What is said over the server's HTTP API before anything else: signing in, and errors.

::

    device                                        server
      │ POST /api/challenge ───────────────────────► │
      │ ◄───────────────────────────────── nonce ──  │  good once, for a minute
      │ POST /api/sign-in   device, signature ─────► │  over nonce, address, device, as in
      │ ◄────────────────── token, good for 1 h ──   │  ``protocol/signaling.py``
      │ …   Authorization: Bearer TOKEN ───────────► │

Bodies are JSON objects. Whatever fails is answered with an :class:`ErrorTold`.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from sleap_rtc.domain.models import Line, Utc
from sleap_rtc.domain.places import Name
from sleap_rtc.domain.values import Value
from sleap_rtc.protocol.signed import KeyId

CHALLENGE_PATH: Final = "/api/challenge"
SIGN_IN_PATH: Final = "/api/sign-in"
CHALLENGE_SECONDS: Final = 60
"""Seconds that a challenge may be answered in."""
TOKEN_SECONDS: Final = 3_600
"""Seconds that a token is good for."""


class ChallengeTold(Value, frozen=True):
    """What a device is to sign, and in how many seconds."""

    nonce: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    expires_in: Annotated[int, Meta(ge=0)]


class TokenRequest(Value, frozen=True):
    """Who signs in.

    Attributes:
        device: The device's key.
        nonce: The challenge.
        signature: Over ``sign_in_payload``, in the context of a sign-in, 128 hex digits.
        name: What the device calls itself.
        program: Name and version of the program.
    """

    device: KeyId
    nonce: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    signature: Annotated[str, Meta(pattern=r"\A[0-9a-f]{128}\Z")]
    name: Name
    program: Annotated[str, Meta(max_length=100)] = ""


class TokenTold(Value, frozen=True):
    """What a device shows from now on.

    Attributes:
        token: The secret; the server keeps its hash.
        expires: Until when, by the server's clock.
        expires_in: The same in seconds from now, for devices whose clock is wrong.
    """

    token: Annotated[str, Meta(min_length=20, max_length=200)]
    expires: Utc
    expires_in: Annotated[int, Meta(ge=0)]

    def __repr__(self) -> str:
        return f"TokenTold(expires={self.expires})"


class Failure(Value, frozen=True):
    """Why something failed: a stable code (``docs/errors.md``), a sentence, and what to do."""

    code: Annotated[str, Meta(max_length=64)]
    message: Annotated[str, Meta(max_length=4_000)]
    hint: Line = ""


class ErrorTold(Value, frozen=True):
    """The answer to whatever failed."""

    error: Failure
