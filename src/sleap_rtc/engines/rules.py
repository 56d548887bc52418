"""Rules for the values of a configuration that comes from somebody else.

A schema is a mapping from key to a rule or to a further mapping. Checking a
configuration against it gives what is allowed, and every key that isn't, with the
reason: nothing that isn't named in a schema ever reaches a trainer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


class Number(msgspec.Struct, frozen=True):
    """A number from ``low`` to ``high``, both included; a whole float counts as an integer."""

    low: float
    high: float
    integer: bool = False


class Numbers(msgspec.Struct, frozen=True):
    """Up to ``most`` numbers, each as ``each`` says."""

    each: Number
    most: int = 16


class Flag(msgspec.Struct, frozen=True):
    """True or false."""


class Choice(msgspec.Struct, frozen=True):
    """One of a few texts."""

    options: tuple[str, ...]


class Word(msgspec.Struct, frozen=True):
    """A short text of letters, digits, ``_``, ``.`` and ``-``: never a path."""


class Names(msgspec.Struct, frozen=True):
    """Names of points or animals, or pairs of them."""

    pairs: bool = False
    most: int = 1_000


class Name(msgspec.Struct, frozen=True):
    """The name of a point."""


class ByWorker(msgspec.Struct, frozen=True):
    """Taken from nobody: the worker sets it, whatever the configuration says."""


class Nothing(msgspec.Struct, frozen=True):
    """Nothing but null, false or emptiness is taken, for the reason given."""

    why: str


class Either(msgspec.Struct, frozen=True):
    """What one of several rules takes."""

    rules: tuple[Any, ...]


Rule = Number | Numbers | Flag | Choice | Word | Names | Name | ByWorker | Nothing | Either
Schema = Mapping[str, Any]
"""Key to :data:`Rule` or to a further schema."""


class Checked(msgspec.Struct, frozen=True):
    """What a schema made of a configuration.

    Attributes:
        allowed: What the trainer may get.
        refused: Dotted key to the reason.
        replaced: Dotted keys with a value of which the worker takes its own instead.
    """

    allowed: dict[str, Any]
    refused: dict[str, str]
    replaced: list[str]


def check(plain: Mapping[str, Any], schema: Schema) -> Checked:
    """Check a configuration against a schema.

    A key whose value is null is always taken: it leaves the matter to the trainer. Where the
    schema knows the key the null is kept, else it is dropped.
    """
    checked = Checked(allowed={}, refused={}, replaced=[])
    checked.allowed.update(_mapping(plain, schema, "", checked))
    return checked


def _mapping(plain: Mapping[str, Any], schema: Schema, path: str, into: Checked) -> dict[str, Any]:
    allowed: dict[str, Any] = {}
    for key, value in plain.items():
        name = path + key
        rule = schema.get(key)
        if rule is None:
            if value is not None:
                into.refused[name] = "it is not known to this worker"
        elif isinstance(rule, ByWorker):
            if not _is_empty(value):
                into.replaced.append(name)
        elif isinstance(rule, Nothing):
            if not _is_empty(value):
                into.refused[name] = rule.why
        elif isinstance(rule, Mapping) and isinstance(value, Mapping):
            allowed[key] = _mapping(value, rule, name + ".", into)
        else:
            why, taken = _take(rule, value)
            if why:
                into.refused[name] = why
            else:
                allowed[key] = taken
    return allowed


def _is_empty(value: Any) -> bool:
    """Whether a value says nothing: null, false, or emptiness at any depth."""
    if isinstance(value, Mapping):
        return all(_is_empty(item) for item in value.values())
    return value is None or value is False or value in ("", [])


def _take(rule: Rule | Schema, value: Any) -> tuple[str, Any]:
    """The reason against a value, empty if there is none, and the value to use."""
    if value is None:
        return "", None
    match rule:
        case Mapping():
            return "it must be a mapping", None
        case Number():
            return _number(rule, value)
        case Numbers():
            return _numbers(rule, value)
        case Flag():
            return ("", value) if isinstance(value, bool) else ("it must be true or false", None)
        case Choice():
            fits = isinstance(value, str) and value in rule.options
            return ("", value) if fits else (f"it must be one of {', '.join(rule.options)}", None)
        case Word():
            fits = isinstance(value, str) and _WORD.fullmatch(value) is not None
            return ("", value) if fits else ("it must be a short name", None)
        case Name():
            return ("", value) if _is_name(value) else ("it must be a name", None)
        case Names():
            return _names(rule, value)
        case Either():
            return _either(rule, value)
        case _:
            raise AssertionError(rule)


def _number(rule: Number, value: Any) -> tuple[str, Any]:
    kind = "a whole number" if rule.integer else "a number"
    bounds = f"it must be {kind} from {rule.low:g} to {rule.high:g}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return bounds, None
    if rule.integer and value != int(value):
        return bounds, None
    if not rule.low <= value <= rule.high:
        return bounds, None
    return "", int(value) if rule.integer else value


def _numbers(rule: Numbers, value: Any) -> tuple[str, Any]:
    if not isinstance(value, list) or len(value) > rule.most:
        return f"it must be a list of up to {rule.most} numbers", None
    taken = []
    for item in value:
        why, number = _number(rule.each, item)
        if why:
            return why, None
        taken.append(number)
    return "", taken


def _names(rule: Names, value: Any) -> tuple[str, Any]:
    if not isinstance(value, list) or len(value) > rule.most:
        return f"it must be a list of up to {rule.most} names", None
    for item in value:
        parts = item if rule.pairs else [item]
        if not isinstance(parts, list) or (rule.pairs and len(parts) != 2):
            return "it must be a list of pairs of names", None
        if not all(_is_name(part) for part in parts):
            return "it must hold names", None
    return "", value


def _is_name(value: Any) -> bool:
    """Text that is only text: OmegaConf would replace ``${…}``, and take ``???`` for missing."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= 200
        and value.isprintable()
        and "${" not in value
        and value != "???"
    )


def _either(rule: Either, value: Any) -> tuple[str, Any]:
    reasons = []
    for option in rule.rules:
        why, taken = _take(option, value)
        if not why:
            return "", taken
        reasons.append(why.removeprefix("it must be "))
    return "it must be " + ", or ".join(reasons), None
