"""Bytes to messages and back, with bounds.

A message is one JSON object in UTF-8 with a ``type``, at most 64 KiB long: the
size that every WebRTC library carries whole. Whatever the bytes are, reading
gives a message or raises :class:`~sleap_rtc.errors.ProtocolError`; it doesn't
recurse, allocate or wait beyond what the size allows.

Messages of later versions may have fields that this one doesn't know: they are
kept. A ``type`` that isn't known is an error that names it.
"""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar, get_args

import msgspec

from sleap_rtc.domain.values import Value, from_plain, to_plain
from sleap_rtc.errors import DataError, ProtocolError

MAX_MESSAGE: Final = 64 * 1024
"""Bytes of the largest message."""

M = TypeVar("M", bound=Value)


class Message(Value, frozen=True, kw_only=True, tag_field="type"):
    """Base of everything that is sent; each kind sets its own ``tag``."""


class Body(Value, frozen=True, kw_only=True, tag_field="op"):
    """Base of what a link's requests ask, its replies say and its notices tell."""


class Codec(Generic[M]):
    """Reads and writes one closed set of messages.

    Args:
        union: The messages that may arrive, as ``A | B | C`` or one class.
    """

    def __init__(self, union: Any) -> None:
        kinds = get_args(union) or (union,)
        self._kinds: dict[str, type[M]] = {str(kind.__struct_config__.tag): kind for kind in kinds}

    def decode(self, data: bytes | str, *, peer: str) -> M:
        """Read one message.

        Args:
            data: What arrived.
            peer: Names the sender in errors.

        Raises:
            ProtocolError: Too large, not JSON, of no known type, or not of its type's shape.
        """
        raw = data.encode("utf-8", "replace") if isinstance(data, str) else data
        if len(raw) > MAX_MESSAGE:
            raise ProtocolError(peer=peer, why=f"a message of {len(raw)} bytes")
        try:
            plain = msgspec.json.decode(raw)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise ProtocolError(peer=peer, why="a message that is not JSON") from None
        tag = plain.get("type") if isinstance(plain, dict) else None
        kind = self._kinds.get(tag) if isinstance(tag, str) else None
        if kind is None:
            shown = str(tag)[:40]
            raise ProtocolError(peer=peer, why=f"a message of the unknown type {shown!r}")
        try:
            return from_plain(kind, plain, what=f"message {tag!r}")
        except DataError as error:
            raise ProtocolError(
                peer=peer, why=f"a bad message: {error.message.rstrip('.')}"
            ) from None

    def encode(self, message: M) -> bytes:
        """Write one message.

        Raises:
            ValueError: It is larger than 64 KiB; senders split what can grow.
        """
        data = msgspec.json.encode(to_plain(message))
        if len(data) > MAX_MESSAGE:
            raise ValueError(f"a message of {len(data)} bytes; {MAX_MESSAGE} are allowed")
        return data
