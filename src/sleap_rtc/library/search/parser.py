r"""Reads a search, and writes it.

::

    search     = { condition }
    condition  = ["-"] ( NAME ":" values | NAME comparison value | text )
    comparison = "<=" | ">=" | "<" | ">" | "="         blanks may stand around it
    values     = text { "," text }
    text       = WORD ["*"] | '"' … '"' ["*"]          in quotes, \" and \\ stand for " and \

The last word of a search may be a beginning, since it may still be typed. Any
text is a search or an :class:`InvalidSearch` that says where and why.
"""

from __future__ import annotations

import calendar
import math
import re
import unicodedata
from difflib import get_close_matches
from typing import Final, NoReturn, cast

from sleap_rtc.errors import InvalidSearch
from sleap_rtc.library.search.conditions import (
    COMPARED,
    FIELDS,
    SYNONYMS,
    Compare,
    Comparison,
    Condition,
    Day,
    Field,
    Is,
    Made,
    Search,
    Text,
    Words,
)

MAX_LENGTH: Final = 1_000
"""Characters of a search."""
MAX_CONDITIONS: Final = 32
MAX_VALUES: Final = 32

_NAMED: Final = re.compile(r"([^\W\d]\w*)(?:(:)|(\s*)(<=|>=|<|>|=))")
_BARE: Final = re.compile(r"[\w./@+][\w./@+-]*")
_NUMBER: Final = re.compile(
    r"[+-]?(\d{1,40}(\.\d{0,40})?|\.\d{1,40})(e[+-]?\d{1,3})?", re.IGNORECASE | re.ASCII
)
_COUNT: Final = re.compile(r"\d{1,15}", re.ASCII)
_SIZE: Final = re.compile(r"(\d{1,16}(?:\.\d{1,15})?)([kmgt]?)(i?)b?", re.IGNORECASE | re.ASCII)
_UNIT: Final = re.compile(r"[^\S\n]+([kmgt]i?b)(?!\S)", re.IGNORECASE | re.ASCII)
_DAY: Final = re.compile(r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2}))?)?", re.ASCII)
_POWER: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_FIRST_YEAR: Final = 1970
_LAST_YEAR: Final = 9998


def parse(text: str) -> Search:
    """Read a search.

    Args:
        text: What a person typed, up to 1,000 characters.

    Raises:
        InvalidSearch: It can't be read; the error says where, why, and what there is.
    """
    return _Reader(text).search()


def form(search: Search) -> str:
    """Write a search so that reading it gives the same one."""
    last = len(search.conditions) - 1
    return " ".join(
        ("-" if condition.negated else "") + _form(condition, last=n == last)
        for n, condition in enumerate(search.conditions)
    )


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def search(self) -> Search:
        text = self._text
        if len(text) > MAX_LENGTH:
            why = f"A search has up to {MAX_LENGTH:,} characters, not {len(text):,}"
            self._refuse(MAX_LENGTH, 1, why)
        for n, char in enumerate(text):
            if not char.isspace() and unicodedata.category(char) in ("Cc", "Cs"):
                self._refuse(n, 1, f"The character {char!a} can't be searched for")
        found: list[Condition] = []
        while self._skip_blanks():
            if len(found) == MAX_CONDITIONS:
                self._refuse(self._at, 1, f"A search has up to {MAX_CONDITIONS} conditions")
            found.append(self._condition())
        return Search(conditions=tuple(found))

    def _condition(self) -> Condition:
        negated = self._text[self._at] == "-"
        self._at += negated
        if self._blank(self._at):
            self._refuse(self._at - 1, 1, "'-' stands before what must not be there, without blank")
        named = _NAMED.match(self._text, self._at)
        if named is not None:
            return self._about_field(named, negated=negated)
        if self._text[self._at] in ":<>=":
            self._refuse(self._at, 1, f"No field stands before {self._text[self._at]!r}")
        start, quoted = self._at, self._text[self._at] == '"'
        word = self._value(stop="")
        self._check_words(word, start)
        if not (quoted or negated or self._skip_blanks()):
            word = Text(word.text, prefix=True)
        return Words(word, negated)

    def _about_field(self, named: re.Match[str], *, negated: bool) -> Condition:
        start, end = named.span(1)
        name = named[1].casefold()
        name = SYNONYMS.get(name, name)
        field = FIELDS.get(name)
        if field is None:
            near = get_close_matches(name, (*FIELDS, *SYNONYMS), n=1)
            meant = f"; did you mean {near[0]!r}" if near else ""
            quoted = "To find the words themselves, put them between quotation marks."
            self._refuse(
                start,
                end - start,
                f"There is no field {named[1]!r} to search by{meant}",
                f"Fields: {', '.join(FIELDS)}. {quoted}",
            )
        how = cast("Comparison", "=" if named[2] else named[4])
        if how != "=" and field.kind not in COMPARED:
            at = named.start(4)
            compared = (n for n, f in FIELDS.items() if f.kind in COMPARED)
            self._refuse(
                at,
                len(how),
                f"{name} can't be compared by {how!r}: it takes ':'",
                f"{', '.join(compared)} can be compared.",
            )
        self._at = named.end()
        if not named[2]:
            self._skip_blanks()
        if self._blank(self._at):
            self._refuse(self._at, 1, f"A value is missing after {named[0]!r}", _takes(field))
        if field.kind in COMPARED:
            return self._compared(name, field, how, negated=negated)
        texts = [self._one_of(name, field)]
        while self._text[self._at : self._at + 1] == ",":
            self._at += 1
            if len(texts) == MAX_VALUES:
                self._refuse(self._at, 1, f"{name} takes up to {MAX_VALUES} values")
            if self._blank(self._at):
                self._refuse(self._at, 1, "A value is missing after ','", _takes(field))
            texts.append(self._one_of(name, field))
        return Is(name, tuple(texts), negated)

    def _one_of(self, name: str, field: Field) -> Text:
        start = self._at
        value = self._value(stop=",")
        if field.kind == "words":
            self._check_words(value, start)
        elif field.kind == "choice":
            value = Text(value.text.casefold(), value.prefix)
            if value.prefix or value.text not in field.choices:
                near = get_close_matches(value.text, field.choices, n=1)
                meant = f"; did you mean {near[0]!r}" if near else ""
                self._refuse(
                    start, self._at - start, f"{value.text!r} is no {name}{meant}", _takes(field)
                )
        elif not value.text:
            self._refuse(start, max(self._at - start, 1), f"A value for {name} is missing")
        return value

    def _compared(self, name: str, field: Field, how: Comparison, *, negated: bool) -> Condition:
        start = self._at
        text = self._value(stop="").text
        if field.kind == "size" and (unit := _UNIT.match(self._text, self._at)):
            text += unit[1]
            self._at = unit.end()
        read = {"number": _number, "count": _count, "size": _size, "date": _day}[field.kind]
        value = read(text)
        if value is None:
            why = f"{text!r} is not a value for {name}"
            self._refuse(start, self._at - start, why, _takes(field))
        if isinstance(value, Day):
            return Made(name, how, value, negated)
        return Compare(name, how, value, negated)

    def _value(self, *, stop: str) -> Text:
        """A word, up to a blank or a character of ``stop``, or what is between quotes."""
        if self._text[self._at] == '"':
            return self._quoted()
        start = self._at
        while not self._blank(self._at) and self._text[self._at] not in stop:
            if self._text[self._at] == '"':
                why = "A quotation mark inside a word: put the whole between quotation marks"
                self._refuse(self._at, 1, why)
            self._at += 1
        word = self._text[start : self._at]
        return Text(word[:-1], prefix=True) if word.endswith("*") else Text(word)

    def _quoted(self) -> Text:
        start = self._at
        found: list[str] = []
        self._at += 1
        while (char := self._text[self._at : self._at + 1]) != '"':
            if char == "\\":
                self._at += 1
                char = self._text[self._at : self._at + 1]
                if char and char not in '"\\':
                    why = (
                        f"Only '\"' and '\\' may follow '\\' between quotation marks, not {char!r}"
                    )
                    self._refuse(self._at, 1, why)
            if not char:
                self._refuse(start, 1, "The quotation mark is not closed")
            found.append(char)
            self._at += 1
        self._at += 1
        prefix = self._text[self._at : self._at + 1] == "*"
        self._at += prefix
        if not self._blank(self._at) and self._text[self._at] != ",":
            self._refuse(self._at, 1, "A blank is missing after the quotation mark")
        return Text("".join(found), prefix)

    def _check_words(self, word: Text, start: int) -> None:
        if not any(char.isalnum() for char in word.text):
            length = max(self._at - start, 1)
            self._refuse(start, length, f"{word.text!r} has neither letters nor digits to look for")

    def _skip_blanks(self) -> bool:
        """Go on to what isn't blank; whether there is anything."""
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1
        return self._at < len(self._text)

    def _blank(self, at: int) -> bool:
        return at >= len(self._text) or self._text[at].isspace()

    def _refuse(self, at: int, length: int, why: str, hint: str = "") -> NoReturn:
        raise InvalidSearch(
            why=why,
            at=at + 1,
            length=length,
            text=self._text[: MAX_LENGTH + 1],
            hint=hint or None,
        )


def _takes(field: Field) -> str:
    if field.choices:
        return f"One of {', '.join(field.choices)}."
    return {
        "words": 'Words, with quotation marks around several, as in notes:"left eye".',
        "exact": "Its name; with * at the end, the beginning of its name.",
        "number": "A number, as 0.01 or 1e-3.",
        "count": "A whole number, as 50.",
        "size": "Bytes, as 500KB, 100MB or 1.5GB.",
        "date": "A year, a month or a day, as 2026, 2026-03 or 2026-03-01.",
    }[field.kind]


def _number(text: str) -> float | None:
    number = float(text) if _NUMBER.fullmatch(text) else math.inf
    return number if math.isfinite(number) else None


def _count(text: str) -> int | None:
    return int(text) if _COUNT.fullmatch(text) else None


def _size(text: str) -> int | None:
    match = _SIZE.fullmatch(text)
    if match is None or (match[3] and not match[2]):
        return None
    size = float(match[1]) * (1024 if match[3] else 1000) ** _POWER[match[2].lower()]
    return round(size) if size <= 2**53 else None


def _day(text: str) -> Day | None:
    match = _DAY.fullmatch(text)
    if match is None:
        return None
    year, month, day = (int(part) if part else None for part in match.groups())
    if year is None or not _FIRST_YEAR <= year <= _LAST_YEAR:
        return None
    if month is not None and not 1 <= month <= 12:
        return None
    if month and day is not None and not 1 <= day <= calendar.monthrange(year, month)[1]:
        return None
    return Day(year, month, day)


def _form(condition: Condition, *, last: bool) -> str:
    match condition:
        case Words(text=text, negated=negated):
            return _form_word(text, begins=last and not negated)
        case Is(field=field, texts=texts):
            return f"{field}:{','.join(_form_text(text) for text in texts)}"
        case Compare(field=field, how=how, number=number):
            return f"{field}{how}{number!r}"
        case Made(field=field, how=how, day=day):
            return f"{field}{how}{day}"


def _form_word(text: Text, *, begins: bool) -> str:
    """A word; where bare ones are beginnings, one that is whole needs quotation marks."""
    if begins and _BARE.fullmatch(text.text):
        return text.text if text.prefix else f'"{text.text}"'
    return _form_text(text)


def _form_text(text: Text) -> str:
    star = "*" if text.prefix else ""
    if _BARE.fullmatch(text.text):
        return text.text + star
    escaped = text.text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"{star}'
