r"""The words on the Unix socket between a worker's daemon and a job's runner.

JSON objects, one a line, at most 64 KiB::

    daemon → runner                     runner → daemon
    {"type":"watch","since":12}         {"type":"grown","last":15}      as often as there is more
    {"type":"order","id":…,"command":…} {"type":"taken","id":…}         it is in the log
                                        {"type":"refused","id":…,"why":{…}}

The events themselves are read from the log, which both can see: so they have
no size limit here, and a slow reader costs the runner nothing.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, TypeVar

from msgspec import Meta

from sleap_rtc.domain.values import Value
from sleap_rtc.errors import ProtocolError, SleapRtcError, from_wire
from sleap_rtc.jobs.events import Command
from sleap_rtc.protocol.codec import MAX_MESSAGE, Codec, Message
from sleap_rtc.worker.runner.plan import Refusal

LIMIT: Final = MAX_MESSAGE + 1
"""Bytes that a stream reader buffers: a message and its newline."""

Number = Annotated[int, Meta(ge=0)]
RequestId = Annotated[str, Meta(min_length=1, max_length=64)]


class Watch(Message, frozen=True, tag="watch"):
    """Tell me when there are events behind ``since``."""

    since: Number = 0


class Order(Message, frozen=True, tag="order"):
    """Command the job; the same ``id`` again is the same request."""

    id: RequestId
    command: Command
    by: Annotated[str, Meta(max_length=128)] = ""


class Grown(Message, frozen=True, tag="grown"):
    """The log reaches up to event ``last``."""

    last: Number


class Taken(Message, frozen=True, tag="taken"):
    """The command is in the log, and is done or will be."""

    id: RequestId


class Refused(Message, frozen=True, tag="refused"):
    """The command makes no sense now."""

    id: RequestId
    why: Refusal


REQUESTS: Final[Codec[Watch | Order]] = Codec(Watch | Order)
ANSWERS: Final[Codec[Grown | Taken | Refused]] = Codec(Grown | Taken | Refused)

M = TypeVar("M", bound=Value)


async def receive(reader: asyncio.StreamReader, codec: Codec[M], *, peer: str) -> M | None:
    """The next message, None at the end of the stream.

    Raises:
        ProtocolError: A line that is too long, or no message.
        ConnectionError: The connection broke.
    """
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        raise ProtocolError(peer=peer, why=f"a line of more than {LIMIT} bytes") from None
    return codec.decode(line, peer=peer)


def refusal(error: SleapRtcError) -> Refusal:
    """An error in the form in which it travels."""
    return Refusal(
        code=error.code, message=error.message[:8_000], hint=error.hint_text, details=error.details
    )


def raised(why: Refusal) -> SleapRtcError:
    """The error that travelled."""
    return from_wire(why.code, why.details, message=why.message, hint=why.hint)
