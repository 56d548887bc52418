"""The base of every value that is stored or sent.

A value written by a later sleap-rtc may carry fields that this one doesn't
know. They are kept in ``unknown`` and written back where they were, so that an
old program in the middle never loses what a new one said::

    {"id": "…", "colour": "red"}  →  Thing(id="…", unknown={"colour": "red"})
                                  →  {"id": "…", "colour": "red"}

msgspec would drop unknown fields, so reading goes bytes → plain → lifted →
struct, and writing the other way. Both directions follow the declared types,
never the data: a user's dictionary may hold any key. Most data has no unknown
field, and is read in one step, in an eighth of the time; that step refuses
unknown fields, and then the long way is taken.

A :class:`Document` is a value that stands alone (a file, a message with a life
of its own) and says its ``format``, ``major.minor``. A newer minor is read; a
newer major is refused with :class:`~sleap_rtc.errors.NewerFormat`.
"""

from __future__ import annotations

import functools
import threading
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Final, TypeVar, Union, get_args, get_origin

import msgspec

from sleap_rtc.errors import DataError, NewerFormat

MAX_DOCUMENT: Final = 16 * 1024 * 1024
"""Bytes of the largest document that is read; a record of a big model is under 1 MiB."""

_BUILDING: Final = threading.Lock()
"""Held while msgspec learns what a class has: a second thread would use what is half known, and
the process would crash. Nothing else waits for it."""

_FIRST: Final = "1.0"
_UNKNOWN: Final = "unknown"
_UNKNOWN_BYTES: Final = _UNKNOWN.encode()
_UNKNOWN_FIELD: Final = b'"unknown"'
_NONE_UNKNOWN: Final = b'"unknown":{},'
"""What stands before the format of a document that has no unknown fields of its own."""


class Value(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    gc=False,
):
    """A frozen value that keeps the fields it doesn't know.

    Values hold no loops, so the garbage collector doesn't look at them: a page of models has
    thousands, and its rounds took a tenth of a list's time.

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

    format: str = _FIRST


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
    value = _in_one_step(kind, data)
    if value is not None:
        return value
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
    _learnt(kind)
    try:
        return msgspec.convert(_lift_step(kind)(plain), kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise DataError(what=what, why=str(error) or "it is nested too deeply") from None


def to_plain(value: Value) -> dict[str, Any]:
    """The value as dictionaries, lists, strings and numbers, unknown fields in their places."""
    plain: dict[str, Any] = _lower_step(type(value))(msgspec.to_builtins(value))
    return plain


def encode(value: Value) -> bytes:
    """The value as compact UTF-8 JSON."""
    data = msgspec.json.encode(value)
    # Where no part of it has unknown fields, nothing is to be put elsewhere.
    if isinstance(value, Document):
        end = f'"format":"{value.format}"}}'.encode()
        if data.endswith(_NONE_UNKNOWN + end):
            data = data[: -len(_NONE_UNKNOWN + end)] + end
    if _UNKNOWN_FIELD not in data:
        return data
    return msgspec.json.encode(to_plain(value))


def encode_pretty(value: Value) -> bytes:
    """The value as JSON that people read: indented by 2, keys in declared order, final newline."""
    return pretty(encode(value))


def pretty(data: bytes) -> bytes:
    """JSON as people read it: indented by 2, with a final newline."""
    return msgspec.json.format(data, indent=2) + b"\n"


def _in_one_step(kind: type[V], data: bytes) -> V | None:
    """The value, if nothing in the data wants a second look; what is wrong is not said here."""
    # A field of this name, however it is written, would be taken for ours.
    if _UNKNOWN_BYTES in data or b"\\u" in data:
        return None
    decoder = _decoder(kind)
    if decoder is None:
        return None
    try:
        value: V = decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    if isinstance(value, Document) and value.format != _FIRST:  # which is never too new
        try:
            _check_format(type(value), {"format": value.format}, "")
        except DataError:
            return None
    return value


@functools.cache
def _decoder(kind: type[Value]) -> msgspec.json.Decoder[Any] | None:
    """Reads a kind in one step; None for one that holds other documents, whose formats count."""
    inner = _values_in(kind) - {kind}
    if any(issubclass(value, Document) for value in inner):
        return None
    return _learnt(kind)


@functools.cache
def _learnt(kind: type[Value]) -> msgspec.json.Decoder[Any]:
    """A decoder of a kind; with it msgspec knows the class, and all that are in it."""
    with _BUILDING:
        return msgspec.json.Decoder(kind)


def _values_in(kind: Any, seen: frozenset[Any] = frozenset()) -> frozenset[type[Value]]:
    """All classes of values that data of a type may hold, at any depth."""
    if kind in seen:
        return frozenset()
    found: frozenset[type[Value]] = frozenset()
    inner = get_args(kind)
    kind = _bare(kind)
    if isinstance(kind, type) and issubclass(kind, Value):
        found = frozenset({kind})
        inner = tuple(typing.get_type_hints(kind).values())
    for item in inner:
        found |= _values_in(item, seen | {kind} | found)
    return found


def _bare(kind: Any) -> Any:
    """A class of values that has parameters without them, any other type as it is."""
    origin = get_origin(kind)
    return origin if isinstance(origin, type) and issubclass(origin, Value) else kind


def _check_format(kind: type[Document], plain: object, what: str) -> None:
    found = plain.get("format") if isinstance(plain, dict) else None
    if found is None:
        return
    major, dot, minor = found.partition(".") if isinstance(found, str) else ("", "", "")
    if not (dot and major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()):
        raise DataError(what=what, why=f"its format {str(found)[:40]!r} is not of the form 1.0")
    if len(major) > 6 or int(major) > kind.MAJOR:
        raise NewerFormat(what=what, found=found[:40], known=f"{kind.MAJOR}.x")


Step = Callable[[Any], Any]


@functools.cache
def _known(kind: type[Value]) -> frozenset[str]:
    """Encoded names of every field but ``unknown``, and of the tag."""
    names = {f.encode_name for f in msgspec.structs.fields(kind) if f.name != _UNKNOWN}
    tag = kind.__struct_config__.tag_field
    return frozenset(names | {tag} if tag else names)


@functools.cache
def _nested(kind: type[Value], *, down: bool) -> tuple[tuple[str, Step], ...]:
    """Encoded name and step of every field in which values may be."""
    hints = typing.get_type_hints(kind, include_extras=False)
    steps = (
        (field.encode_name, _step(hints[field.name], down=down))
        for field in msgspec.structs.fields(kind)
        if field.name != _UNKNOWN
    )
    return tuple((name, step) for name, step in steps if step is not None)


@functools.cache
def _step(kind: Any, *, down: bool) -> Step | None:
    """What brings plain data of a type into the form msgspec reads, or, ``down``, back again.

    None for a type that holds no values: its data stays as it is.
    """
    kind = _bare(kind)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _step(inner[0], down=down)
    if origin in (Union, types.UnionType):
        return _union_step(inner, down=down)
    if origin is tuple and not (len(inner) == 2 and inner[1] is Ellipsis):
        return _tuple_step(tuple(_step(item, down=down) for item in inner))
    if origin in (list, tuple):
        return _list_step(_step(inner[0], down=down))
    if origin is dict:
        return _dict_step(_step(inner[1], down=down))
    if isinstance(kind, type) and issubclass(kind, Value):
        return _lower_step(kind) if down else _lift_step(kind)
    return None


@functools.cache
def _lift_step(kind: type[Value]) -> Step:
    known = _known(kind)

    def lift(plain: Any) -> Any:
        if not isinstance(plain, dict):
            return plain
        if issubclass(kind, Document):
            _check_format(kind, plain, kind.__name__)
        if plain.keys() <= known:
            lifted = dict(plain)
        else:
            lifted = {key: item for key, item in plain.items() if key in known}
            lifted[_UNKNOWN] = {key: item for key, item in plain.items() if key not in known}
        for name, step in _nested(kind, down=False):
            if name in lifted:
                lifted[name] = step(lifted[name])
        return lifted

    return lift


@functools.cache
def _lower_step(kind: type[Value]) -> Step:
    known = _known(kind)

    def lower(found: Any) -> Any:
        if not isinstance(found, dict):
            return found
        unknown = found.pop(_UNKNOWN, None)
        for name, step in _nested(kind, down=True):
            if name in found:
                found[name] = step(found[name])
        if unknown:
            found |= {key: item for key, item in unknown.items() if key not in known}
        return found

    return lower


def _list_step(step: Step | None) -> Step | None:
    if step is None:
        return None
    return lambda plain: (
        [step(item) for item in plain] if isinstance(plain, (list, tuple)) else plain
    )


def _tuple_step(steps: tuple[Step | None, ...]) -> Step | None:
    if not any(steps):
        return None

    def walk(plain: Any) -> Any:
        if not isinstance(plain, (list, tuple)) or len(plain) != len(steps):
            return plain
        pairs = zip(steps, plain, strict=True)
        return [item if step is None else step(item) for step, item in pairs]

    return walk


def _dict_step(step: Step | None) -> Step | None:
    if step is None:
        return None
    return lambda plain: (
        {key: step(item) for key, item in plain.items()} if isinstance(plain, dict) else plain
    )


def _union_step(options: tuple[Any, ...], *, down: bool) -> Step | None:
    """The step of the member that plain data is meant for: by its tag, else by its shape."""
    values = [o for o in options if isinstance(o, type) and issubclass(o, Value)]
    by_tag = {kind.__struct_config__.tag: _step(kind, down=down) for kind in values}
    tag = next((kind.__struct_config__.tag_field for kind in values), None)
    shapes = {get_origin(option): _step(option, down=down) for option in options}
    of_dict = shapes.get(dict)
    of_list = shapes.get(list) or shapes.get(tuple)
    if not (values or of_dict or of_list):
        return None

    def walk(plain: Any) -> Any:
        step = None
        if isinstance(plain, dict):
            found = None if tag is None else plain.get(tag)
            step = by_tag.get(found) if found is None or isinstance(found, (str, int)) else None
            step = step or of_dict
        elif isinstance(plain, (list, tuple)):
            step = of_list
        return plain if step is None else step(plain)

    return walk
