r"""The lines of a job's log: one event each, with its length and a checksum.

::

    0000004f 1c291ca3 {"format":"1.0","n":1,"at":"2026-01-02T03:04:05Z","body":{…}}\n
    ───┬──── ───┬──── ──────────────────────────┬────────────────────────────────
    bytes of  CRC-32 of                     the event, JSON
    the JSON  the JSON

Both numbers are 8 hex digits. Event *n* is line *n*. A line that was not
written to its end, at whatever byte, is told from a whole one; what is behind
the last whole line is not part of the log. Pure: bytes in, events out.
"""

from __future__ import annotations

import zlib
from typing import Final

from sleap_rtc.domain.values import decode, encode
from sleap_rtc.errors import Damaged
from sleap_rtc.jobs.events import JobEvent

HEAD: Final = 18
"""Bytes before the JSON."""
MAX_LINE: Final = 16 * 1024 * 1024
"""Bytes of the largest event; a model's record with 10,000 files has about 2 MiB."""

_HEX: Final = frozenset(b"0123456789abcdef")


def encode_line(event: JobEvent) -> bytes:
    """The line of an event, with its newline.

    Raises:
        ValueError: The event is larger than 16 MiB.
    """
    body = encode(event)
    if len(body) > MAX_LINE:
        raise ValueError(f"an event of {len(body)} bytes; {MAX_LINE} are allowed")
    return b"%08x %08x %b\n" % (len(body), zlib.crc32(body), body)


def line_length(head: bytes) -> int | None:
    """Bytes of a whole line, newline included, from its first 18; None when they are no head."""
    if len(head) < HEAD or head[8] != 0x20 or head[17] != 0x20:
        return None
    if not _HEX.issuperset(head[:8]) or not _HEX.issuperset(head[9:17]):
        return None
    length = int(head[:8], 16)
    return HEAD + length + 1 if length <= MAX_LINE else None


def is_whole(line: bytes) -> bool:
    """Whether these bytes are exactly one undamaged line."""
    return (
        line_length(line[:HEAD]) == len(line)
        and line.endswith(b"\n")
        and zlib.crc32(line[HEAD:-1]) == int(line[9:17], 16)
    )


def decode_line(line: bytes, *, n: int) -> JobEvent:
    """Read the line of event ``n``.

    Raises:
        Damaged: Not one whole line, or its event has another number.
        DataError: The line is whole, and its content is no event.
        NewerFormat: Written by a later sleap-rtc.
    """
    where = f"event {n} of the job log"
    if not is_whole(line):
        raise Damaged(what=where, why="its length or checksum is wrong")
    event = decode(JobEvent, line[HEAD:-1], what=where, limit=MAX_LINE)
    if event.n != n:
        raise Damaged(what=where, why=f"event {event.n} stands in its place")
    return event


def sound_prefix(data: bytes) -> tuple[int, int]:
    """How much of a log's bytes is sound.

    Args:
        data: Bytes from the start of a line.

    Returns:
        Bytes of the whole lines at its beginning, and their number.
    """
    at = lines = 0
    while (length := line_length(data[at : at + HEAD])) is not None:
        if not is_whole(data[at : at + length]):
            break
        at, lines = at + length, lines + 1
    return at, lines
