"""Making and opening signed documents; their shape is in ``protocol/signed.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from sleap_rtc.auth.keys import SigningKey, verify
from sleap_rtc.domain.values import Document, decode, encode
from sleap_rtc.errors import DataError, NotTrusted
from sleap_rtc.protocol.signed import MAX_CHAIN, MAX_PAYLOAD, Chain, Signed

D = TypeVar("D", bound=Document)

MAX_TEXT = 48 * 1024
"""Characters of the longest signed document as JSON text."""


def seal(key: SigningKey, context: str, document: Document, *, what: str) -> Signed:
    """Sign a document.

    Args:
        key: The signer.
        context: What it is signed as.
        document: Its bytes are written here, once.
        what: Names it in errors.

    Raises:
        DataError: It is larger than may travel.
    """
    payload = encode(document)
    if len(payload) > MAX_PAYLOAD:
        raise DataError(
            what=what, why=f"it has {len(payload)} bytes, and {MAX_PAYLOAD} can be signed"
        )
    return Signed(
        context=context, payload=payload, signer=key.device, signature=key.sign(context, payload)
    )


def open_signed(signed: Signed, kind: type[D], context: str, *, who: str, what: str) -> D:
    """Check a signature and read what it signs, in this order.

    Whether the signer may sign such a thing is the caller's question.

    Args:
        signed: As it came.
        kind: The document that is expected.
        context: What it must have been signed as.
        who: Names the one that isn't trusted when it fails.
        what: Names the document in errors.

    Raises:
        NotTrusted: Signed as something else, or the signature is wrong.
        DataError: The signer signed something that is no such document.
        NewerFormat: A later version's.
    """
    if signed.context != context:
        raise NotTrusted(who=who, why=f"{what} was signed as {signed.context}")
    verify(
        signed.signer,
        context,
        signed.payload,
        signed.signature,
        who=who,
        why=f"the signature of {what} is wrong",
    )
    return decode(kind, signed.payload, what=what, limit=MAX_PAYLOAD)


def chain_to_texts(chain: Chain) -> tuple[str, ...]:
    """A chain as JSON texts, one per link: how it goes to the server."""
    return tuple(encode(link).decode("utf-8") for link in chain)


def chain_from_texts(texts: Sequence[str], *, what: str = "the chain") -> Chain:
    """Read a chain from JSON texts. Nothing is verified yet.

    Raises:
        DataError: Too few, too many, too long, or not signed documents.
    """
    if not 1 <= len(texts) <= MAX_CHAIN:
        raise DataError(what=what, why=f"it has {len(texts)} links; 1 to {MAX_CHAIN} are allowed")
    return tuple(
        decode(Signed, text.encode("utf-8", "replace"), what=what, limit=MAX_TEXT) for text in texts
    )
