"""Why a store says no: S3 by a code in XML, a server that keeps files itself in its words."""

from __future__ import annotations

from sleap_rtc.domain.values import decode
from sleap_rtc.errors import DataError, SleapRtcError, from_wire
from sleap_rtc.protocol.http import ErrorTold
from sleap_rtc.storage import xml


def code_of(status: int, body: bytes) -> str:
    """The code that S3's XML names, else the status."""
    return xml.error(body) or f"HTTP {status}"


def in_its_words(error: SleapRtcError, body: bytes) -> SleapRtcError:
    """An error with the sentence and the hint of the server that refused, if it has any.

    Args:
        error: What the refusal means here.
        body: Of the refusal.
    """
    if not body.lstrip().startswith(b"{"):
        return error
    try:
        told = decode(ErrorTold, body, what="the answer").error
    except DataError:
        return error
    return from_wire(error.code, error.details, message=told.message, hint=told.hint)
