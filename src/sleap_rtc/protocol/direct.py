"""Direct connections: content past WebRTC, between two peers that a link has proven to each other.

Whoever fetches content over a block connection may ask for a direct one. Both
sides say over the link where they can be reached, with a certificate and a
secret; both try to connect to the other, for :data:`WITHIN_S` seconds::

    fetcher                                   server of the content
      │ ── open_direct (end) ───────────────────► │   over the link
      │ ◄──────────────── direct_opened (end) ─── │
      │ ◄═══ TCP with TLS 1.3, or a Unix socket ═► │   whoever gets through connects
      │ ── proof of the side that connects ─────► │   32 bytes, or the other way round
      │ ◄── proof of the side that listens ────── │   32 bytes
      │ ── one byte 01 ─────────────────────────► │   the fetcher uses this connection
      │ ── frames ──────────────────────────────► │   get listing, get block, withdraw
      │ ◄────────────────────────────── frames ── │   data, end, refuse

The frames are those of ``protocol/frames.py``, each behind its length in four
bytes, big-endian. A data frame may hold a whole block, the others are as short
as they are elsewhere. Requests are numbered from 1 on; one is answered after the
other, in that order, and one that is withdrawn is refused in its turn. The
credit is that of the block connection.

A certificate is made anew by every process and is good for nothing by itself:
the other side takes exactly these bytes for the whole of its trust. The secrets
are used once. The proofs are made of both secrets, both certificates and the
session, so a connection belongs to one announcement of one link.
"""

from __future__ import annotations

import struct
from typing import Annotated, Final

from blake3 import blake3
from msgspec import Meta

from sleap_rtc.domain.models import Hex64
from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.domain.values import Value
from sleap_rtc.protocol.codec import MAX_MESSAGE, Body

FEATURE: Final = "direct"
"""The feature of a link that both sides need for it."""
WITHIN_S: Final = 10.0
"""Seconds after which an announcement is void: nobody is let in any more."""
MAX_ADDRESSES: Final = 16
MAX_PATH: Final = 100
"""Bytes of the longest path of a Unix socket, on every system."""

PROOF: Final = 32
USE: Final = b"\x01"
LENGTH: Final = struct.Struct(">I")
DATA_HEAD: Final = struct.Struct(">BII")
"""Of a data frame: kind, request and offset; see ``protocol/frames.py``."""
MAX_DATA: Final = DATA_HEAD.size + BLOCK
"""Bytes of the longest data frame on a direct connection."""
MAX_OTHER: Final = MAX_MESSAGE
"""Bytes of the longest of the others."""

_CONTEXT: Final = "sleap-rtc/direct/1"


class Address(Value, frozen=True):
    """Where a peer listens.

    Attributes:
        host: An IP address; names are never looked up.
        port: TCP port; those of well-known services are not for this.
    """

    host: Annotated[str, Meta(pattern=r"\A[0-9a-f.:]{2,45}\Z")]
    port: Annotated[int, Meta(ge=1024, le=65535)]


class End(Value, frozen=True):
    """One side of a direct connection. The secret is in no ``repr``.

    Attributes:
        certificate: The process's certificate, X.509 in DER, as hex digits.
        secret: 32 random bytes as hex digits, for this announcement alone.
        addresses: Where it listens.
        path: Its Unix socket, for a peer on the same machine; empty without one.
    """

    certificate: Annotated[str, Meta(pattern=r"\A([0-9a-f]{2}){1,2048}\Z")]
    secret: Hex64
    addresses: Annotated[tuple[Address, ...], Meta(max_length=MAX_ADDRESSES)] = ()
    path: Annotated[str, Meta(max_length=MAX_PATH)] = ""

    def __repr__(self) -> str:
        return f"End(addresses={self.addresses!r}, path={self.path!r})"


class OpenDirect(Body, frozen=True, tag="open_direct"):
    """Let me fetch over a direct connection, too: here I am. For block connections alone."""

    end: End


class DirectOpened(Body, frozen=True, tag="direct_opened"):
    """Here I am: whoever reaches the other first connects."""

    end: End


def proofs(session: str, fetcher: End, server: End) -> tuple[bytes, bytes]:
    """What the side that connects sends, and what the side that listens answers.

    Args:
        session: The link's id.
        fetcher: The end of the side that asked.
        server: The end of the side that answered.
    """
    parts = (session, fetcher.secret, server.secret, fetcher.certificate, server.certificate)
    material = b"".join(LENGTH.pack(len(part)) + part.encode() for part in parts)
    key = blake3(material, derive_key_context=_CONTEXT).digest()
    return blake3(b"connects", key=key).digest(), blake3(b"listens", key=key).digest()
