"""The base of every value that is stored or sent.

A value written by a later sleap-rtc may carry fields that this one doesn't
know. They are kept in ``unknown`` and written back where they were, so that an
old program in the middle never loses what a new one said::

    {"id": "…", "colour": "red"}  →  Thing(id="…", unknown={"colour": "red"})
                                  →  {"id": "…", "colour": "red"}

msgspec drops unknown fields, so reading goes bytes → plain → lifted → struct,
and writing the other way. Both directions follow the declared types, never the
data: a user's dictionary may hold any key.

A :class:`Document` is a value that stands alone (a file, a message with a life
of its own) and says its ``format``, ``major.minor``. A newer minor is read; a
newer major is refused with :class:`~sleap_rtc.errors.NewerFormat`.
"""

from __future__ import annotations

import functools
import types
import typing
from typing import Annotated, Any, ClassVar, Final, TypeVar, Union, get_args, get_origin

import msgspec

from sleap_rtc.errors import DataError, NewerFormat

MAX_DOCUMENT: Final = 16 * 1024 * 1024
"""Bytes of the largest document that is read; a record of a big model is under 1 MiB."""

_UNKNOWN: Final = "unknown"


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A frozen value that keeps the fields it doesn't know.

    Attributes:
        unknown: Fields of a later version, as plain values.
    """

    unknown: dict[str, Any] = {}


class Document(Value, frozen=True, kw_only=True, omit_defaults=False):
    """A value that stands alone and names its format.

    Attributes:
        format: ``major.minor`` of what was read, or of what this version writes.
    """

    MAJOR: ClassVar[int] = 1

    format: str = "1.0"


V = TypeVar("V", bound=Value)


def decode(kind: type[V], data: bytes, *, what: str, limit: int = MAX_DOCUMENT) -> V:
    """Read a value from JSON.

    Args:
        kind: The class to read.
        data: UTF-8 JSON.
        what: Names the thing in errors, for example a file's path.
        limit: Bytes allowed.

    Raises:
        DataError: Too large, not JSON, or not of this shape.
        NewerFormat: A document of a later major format.
    """
    if len(data) > limit:
        raise DataError(what=what, why=f"it has {len(data)} bytes, more than the {limit} allowed")
    try:
        plain = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DataError(what=what, why=f"it is not JSON ({error})") from None
    return from_plain(kind, plain, what=what)


def from_plain(kind: type[V], plain: object, *, what: str) -> V:
    """Build a value from dictionaries, lists, strings and numbers.

    Raises:
        DataError: Not of this shape.
        NewerFormat: A document of a later major format.
    """
    if issubclass(kind, Document):
        _check_format(kind, plain, what)
    try:
        return msgspec.convert(_lift(kind, plain), kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise DataError(what=what, why=str(error) or "it is nested too deeply") from None


def to_plain(value: Value) -> dict[str, Any]:
    """The value as dictionaries, lists, strings and numbers, unknown fields in their places."""
    plain: dict[str, Any] = _lower(type(value), msgspec.to_builtins(value))
    return plain


def encode(value: Value) -> bytes:
    """The value as compact UTF-8 JSON."""
    return msgspec.json.encode(to_plain(value))


def encode_pretty(value: Value) -> bytes:
    """The value as JSON that people read: indented by 2, keys in declared order, final newline."""
    return msgspec.json.format(encode(value), indent=2) + b"\n"


def _check_format(kind: type[Document], plain: object, what: str) -> None:
    found = plain.get("format") if isinstance(plain, dict) else None
    if found is None:
        return
    major, dot, minor = found.partition(".") if isinstance(found, str) else ("", "", "")
    if not (dot and major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()):
        raise DataError(what=what, why=f"its format {str(found)[:40]!r} is not of the form 1.0")
    if len(major) > 6 or int(major) > kind.MAJOR:
        raise NewerFormat(what=what, found=found[:40], known=f"{kind.MAJOR}.x")


@functools.cache
def _fields(kind: type[Value]) -> dict[str, tuple[str, Any]]:
    """Encoded name → (field name, type) of every field but ``unknown``."""
    hints = typing.get_type_hints(kind, include_extras=False)
    return {
        field.encode_name: (field.name, hints[field.name])
        for field in msgspec.structs.fields(kind)
        if field.name != _UNKNOWN
    }


@functools.cache
def _tag(kind: type[Value]) -> tuple[str, object] | None:
    config = kind.__struct_config__
    return None if config.tag_field is None else (config.tag_field, config.tag)


def _member(options: tuple[Any, ...], plain: object) -> Any:
    """The member of a union that plain data is meant for, or None where it doesn't matter."""
    values = [o for o in options if isinstance(o, type) and issubclass(o, Value)]
    if isinstance(plain, dict) and values:
        for kind in values:
            tag = _tag(kind)
            if tag is None or plain.get(tag[0]) == tag[1]:
                return kind
        return None
    containers = [o for o in options if get_origin(o) in (list, tuple, dict)]
    wanted = dict if isinstance(plain, dict) else (list, tuple)
    return next((o for o in containers if issubclass(get_origin(o), wanted)), None)


def _walk(kind: Any, plain: Any, at_value: Any) -> Any:
    """Apply ``at_value`` to every dictionary that stands for a Value, innermost first."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _walk(get_args(kind)[0], plain, at_value)
    if origin in (Union, types.UnionType):
        member = _member(get_args(kind), plain)
        return plain if member is None else _walk(member, plain, at_value)
    if origin in (list, tuple) and isinstance(plain, (list, tuple)):
        inner = get_args(kind)
        if not inner or (origin is tuple and len(inner) != 2):
            return plain
        return [_walk(inner[0], item, at_value) for item in plain]
    if origin is dict and isinstance(plain, dict):
        inner = get_args(kind)[1]
        return {key: _walk(inner, item, at_value) for key, item in plain.items()}
    if isinstance(kind, type) and issubclass(kind, Value) and isinstance(plain, dict):
        return at_value(kind, plain)
    return plain


def _lift(kind: Any, plain: Any) -> Any:
    def at_value(struct: type[Value], found: dict[Any, Any]) -> dict[str, Any]:
        fields, tag = _fields(struct), _tag(struct)
        lifted: dict[str, Any] = {}
        unknown: dict[str, Any] = {}
        for key, item in found.items():
            if key in fields:
                lifted[key] = _lift(fields[key][1], item)
            elif tag is not None and key == tag[0]:
                lifted[key] = item
            else:
                unknown[key] = item
        if unknown:
            lifted[_UNKNOWN] = unknown
        return lifted

    return _walk(kind, plain, at_value)


def _lower(kind: Any, plain: Any) -> Any:
    def at_value(struct: type[Value], found: dict[str, Any]) -> dict[str, Any]:
        fields = _fields(struct)
        unknown = found.pop(_UNKNOWN, {})
        lowered = {
            key: _lower(fields[key][1], item) if key in fields else item
            for key, item in found.items()
        }
        return lowered | {key: item for key, item in unknown.items() if key not in lowered}

    return _walk(kind, plain, at_value)
