"""Ed25519 keys of devices, rooms and invites, and what they sign.

A signature is never over a payload alone but over::

    "sleap-rtc/" | context | 0x00 | payload

so that what was signed as one thing can't be shown as another. The contexts:

=======================  =========================================================
``certificate/…``        the links of a chain (``auth/certificates.py``)
``membership``           an owner's list (``auth/membership.py``)
``handshake/…``          one per side of a connection (``auth/transcript.py``)
``sign-in``              a server's challenge (``protocol/signaling.py``)
=======================  =========================================================

All cryptography is the library's (``cryptography``).
"""

from __future__ import annotations

import re
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from sleap_rtc.domain.ids import DeviceId
from sleap_rtc.errors import NotTrusted

SEED: Final = 32
"""Bytes of a key's secret half."""

_CONTEXT: Final = re.compile(r"[a-z][a-z0-9/-]{0,63}")


class SigningKey:
    """The secret half of a key pair. Its ``repr`` shows the public half alone.

    Attributes:
        device: The public key in hex; a device's id is exactly this.
        public: The public key, 32 bytes.
    """

    __slots__ = ("_private", "device", "public")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public: Final = private.public_key().public_bytes_raw()
        self.device: Final = DeviceId(self.public.hex())

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key, from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        """The key with this secret.

        Raises:
            ValueError: Not 32 bytes.
        """
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @property
    def seed(self) -> bytes:
        """The secret itself, 32 bytes: for storing it, and for nothing else."""
        return self._private.private_bytes_raw()

    def sign(self, context: str, payload: bytes) -> bytes:
        """The signature, 64 bytes, over the context and the payload."""
        return self._private.sign(_message(context, payload))

    def __repr__(self) -> str:
        return f"SigningKey(device={self.device!r})"


def verify(
    public: str | bytes, context: str, payload: bytes, signature: bytes, *, who: str, why: str
) -> None:
    """Check a signature.

    Args:
        public: The signer's public key: hex, or 32 bytes.
        context: What it must have been signed as.
        payload: The bytes as signed.
        signature: 64 bytes; any others are refused.
        who: Names the one that isn't trusted when it fails.
        why: The rest of that sentence.

    Raises:
        NotTrusted: The signature isn't this key's over this context and payload.
    """
    try:
        raw = bytes.fromhex(public) if isinstance(public, str) else public
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, _message(context, payload))
    except (InvalidSignature, ValueError):
        raise NotTrusted(who=who, why=why) from None


def _message(context: str, payload: bytes) -> bytes:
    if _CONTEXT.fullmatch(context) is None:
        raise RuntimeError(f"{context!r} is no signature context")
    return b"sleap-rtc/" + context.encode("ascii") + b"\0" + payload
