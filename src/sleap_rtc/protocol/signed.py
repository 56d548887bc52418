"""What a signed document looks like on the wire and in a file.

::

    {"format": "1.0", "context": "certificate/invite",
     "payload": "<base64>", "signer": "<64 hex digits>", "signature": "<base64>"}

The payload is the document's bytes exactly as they were signed. They are never
written anew to check a signature, so another JSON writer, or a field of a later
version, can't break one. ``context`` says what the signature was made for and
is part of what is signed (see ``auth/keys.py``). These are shapes alone;
``auth/signed.py`` makes and opens them.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from sleap_rtc.domain.ids import DeviceId, RoomId
from sleap_rtc.domain.values import Document

MAX_PAYLOAD: Final = 32 * 1024
"""Bytes of the largest payload: base64 of it fits one message, with what vouches for it."""
MAX_CHAIN: Final = 4
"""Links of the longest chain: an owner who joined by an invite, and a device invited by them."""
NO_DIGEST: Final = bytes(32)
"""What stands for the digest of a membership list where there is none yet."""

KeyId = Annotated[DeviceId, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
"""An Ed25519 public key in hex: a device's, a room's or an invite's."""
RoomName = Annotated[RoomId, Meta(pattern=r"\A[a-z2-7]{32}\Z")]
Context = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9/-]{0,63}\Z")]
Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]


class Signed(Document, frozen=True):
    """A document and the signature over its bytes.

    Attributes:
        context: What it was signed as; a signature is good for no other.
        payload: The document, JSON, exactly as signed.
        signer: The key that is said to have signed it.
        signature: Ed25519, 64 bytes.
    """

    context: Context
    payload: Annotated[bytes, Meta(max_length=MAX_PAYLOAD)]
    signer: KeyId
    signature: Signature


Chain = Annotated[tuple[Signed, ...], Meta(min_length=1, max_length=MAX_CHAIN)]
"""Certificates from a room's key down to a device, each signed by the key before it."""


class SignedMembership(Document, frozen=True):
    """A membership list, with the chain of the owner who signed it.

    Attributes:
        signed: The :class:`~sleap_rtc.auth.membership.MembershipList`.
        chain: The signer's, from the room's key to the signing device.
    """

    signed: Signed
    chain: Chain
