"""Signed requests for a store that is a folder: what S3 puts into a URL, as a token.

::

    <base URL>/<Base64 of the ticket's JSON>.<Base64 of its HMAC-SHA256>

The server that made it is the one that takes it; the key stays in the folder. Pure.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from sleap_rtc.errors import NotPermitted
from sleap_rtc.storage.objects import (
    MAX_PART,
    MAX_SECONDS,
    Crc32c,
    Key,
    PartNumber,
    Sha256,
)

MAX_TOKEN: Final = 4_096
"""Characters of the longest token."""


class Ticket(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one request may do.

    Attributes:
        method: ``GET`` reads an object, ``PUT`` sends a part, or a content in one piece.
        key: Of the object.
        expires: Seconds since 1970, until when.
        upload: The upload's id, for a part; empty for a content in one piece.
        number: Of the part.
        size: Bytes of the part or the content: exactly so many.
        sha256: Of it, unless it is a part that is pinned by the next.
        crc32c: Of a part.
        blake3: Of a content in one piece, where it is to be compared too.
        replacing: Whether a content takes the place of what is there.
    """

    method: Literal["GET", "PUT"]
    key: Key
    expires: Annotated[int, Meta(ge=0, le=1 << 40)]
    upload: Annotated[str, Meta(pattern=r"\A([0-9a-f]{32})?\Z")] = ""
    number: PartNumber = 1
    size: Annotated[int, Meta(ge=0, le=MAX_PART)] = 0
    sha256: Sha256 = bytes(32)
    crc32c: Crc32c | None = None
    blake3: Annotated[str, Meta(pattern=r"\A([0-9a-f]{64})?\Z")] = ""
    replacing: bool = False

    @property
    def what(self) -> str:
        """Names what may be sent, or read: ``part 3 of KEY``."""
        return f"part {self.number} of {self.key}" if self.upload else self.key


def seal(ticket: Ticket, key: bytes) -> str:
    """The ticket as a token for a URL."""
    body = _encoded(msgspec.json.encode(ticket))
    return f"{body}.{_encoded(_mac(body, key))}"


def unseal(token: str, key: bytes, *, method: str, now: datetime) -> Ticket:
    """The ticket that a token holds.

    Args:
        token: As it came in a URL.
        key: That it must be signed with.
        method: That it is used with; ``HEAD`` counts as ``GET``.
        now: The time.

    Raises:
        NotPermitted: It isn't ours, is for another method, or has expired.
    """
    body, _, mac = token.partition(".")
    if len(token) > MAX_TOKEN or not token.isascii():
        raise NotPermitted(message="The link is not one of this server.")
    if not hmac.compare_digest(mac, _encoded(_mac(body, key))):
        raise NotPermitted(message="The link is not one of this server.")
    try:
        ticket = msgspec.json.decode(_decoded(body), type=Ticket)
    except (msgspec.DecodeError, binascii.Error) as error:
        raise NotPermitted(message="The link was made by another version.") from error
    if ticket.method != ("GET" if method == "HEAD" else method):
        raise NotPermitted(message=f"The link is good for {ticket.method}, not for {method[:10]}.")
    if now.timestamp() > ticket.expires:
        raise NotPermitted(message="The link has expired; ask for a fresh one.")
    return ticket


def expiry(now: datetime, seconds: int) -> datetime:
    """When something ends that is good for some seconds, on a whole one.

    Raises:
        ValueError: Not 1 to `MAX_SECONDS`.
    """
    if not 1 <= seconds <= MAX_SECONDS:
        raise ValueError(f"a request is good for 1 to {MAX_SECONDS} seconds, not {seconds}")
    return now.replace(microsecond=0) + timedelta(seconds=seconds)


def _mac(body: str, key: bytes) -> bytes:
    return hmac.digest(key, b"sleap-rtc ticket 1\0" + body.encode(), "sha256")


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
