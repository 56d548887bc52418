"""Where the parts of a large JSON document stand, so that it need not be held in memory.

::

    {"models": {"3f2a9c01": {…}, "77aa01bc": {…}}, …}
                            └─┬┘
                              offset and length: all that is known of a part

Only strings, brackets and what stands between members are looked at, at some
60 MB/s; what is wrong within a part is found by whoever decodes that part, and
says nothing about the others. The document may have been made to do harm: what
is held of it is bounded, be it one text, or all names together.
"""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from sleap_rtc.domain.values import MAX_DOCUMENT
from sleap_rtc.errors import DataError

Read = Callable[[int, int], bytes]
"""Bytes of a document from an offset on, so many; fewer where it ends."""

MAX_NAMES: Final = 256 * 1024 * 1024
"""Bytes of all names that are remembered of a document."""

_PIECE: Final = 1 << 20
_LENGTH_BITS: Final = 48
_LENGTH: Final = (1 << _LENGTH_BITS) - 1

_SPACE: Final = re.compile(rb"[ \t\n\r]*+")
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_WITHIN: Final = re.compile(
    rb'[^"{}\[\]]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"{}\[\]]*+)*+', re.DOTALL
)
"""All up to the next bracket, or to a string that goes on past what was read."""
_BARE: Final = re.compile(rb'[^\s,:"{}\[\]]++')


class Parts(Mapping[str, msgspec.Raw]):
    """The members of an object in a document, each read when it is asked for.

    Of one that is larger than any document may be, enough is read to be too much.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._places: dict[str, int] = {}

    def note(self, name: str, offset: int, length: int) -> None:
        """Remember where a member is; of two with one name the later one counts."""
        self._places[name] = offset << _LENGTH_BITS | length

    def __getitem__(self, name: str) -> msgspec.Raw:
        place = self._places[name]
        return msgspec.Raw(_content(self._read, place >> _LENGTH_BITS, place & _LENGTH))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _content(read: Read, offset: int, length: int) -> bytes:
    return read(offset, min(length, MAX_DOCUMENT + 1))


def reader(fd: int) -> Read:
    """Reads a file, whatever its name is by then, which is closed with the last who could ask.

    Args:
        fd: The open file, which can be read anywhere; another descriptor of it is kept.
    """
    return _File(os.dup(fd))


class _File:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        weakref.finalize(self, os.close, fd)

    def __call__(self, offset: int, size: int) -> bytes:
        return os.pread(self._fd, size, offset)


class Scanner:
    """Goes through a document from its beginning to its end."""

    def __init__(self, read: Read, *, what: str) -> None:
        """Begin.

        Args:
            read: Reads the document.
            what: Names it in errors.
        """
        self._read = read
        self._what = what
        self._buffer = b""
        self._start = 0
        """Offset of the buffer in the document."""
        self._at = 0
        """Where the scan is in the buffer."""
        self._names = 0

    def at_object(self) -> bool:
        """Whether an object begins here."""
        return self._next() == b"{"

    def members(self) -> Iterator[str]:
        """The names in the object that begins here; whoever asks passes over the value of each.

        Raises:
            DataError: It is no object, or not JSON.
        """
        self._expect(b"{")
        if self._next() == b"}":
            self._at += 1
            return
        while True:
            yield self._name()
            if self._expect(b",", b"}") == b"}":
                return

    def place(self) -> tuple[int, int]:
        """Offset and length of the value that begins here, which is passed over.

        Raises:
            DataError: It is not JSON, as far as that is looked at, or a text in it is too large.
        """
        opening = self._next()
        if opening in b"{[":
            return self._enclosed()
        return self._matching(_STRING if opening == b'"' else _BARE)

    def content(self) -> bytes:
        """The value that begins here, or its beginning; raises as :meth:`place`."""
        return _content(self._read, *self.place())

    def finish(self) -> None:
        """Check that nothing but white space follows.

        Raises:
            DataError: Something does.
        """
        while not self._passed_space():
            if not self._read_on():
                return
        raise self._wrong("something follows it")

    def _name(self) -> str:
        if self._next() != b'"':
            raise self._wrong(f"no name stands at {self._start + self._at:,}")
        raw = self._read(*self._matching(_STRING))
        self._expect(b":")
        self._names += len(raw)
        if self._names > MAX_NAMES:
            raise self._wrong("the names in it are too long")
        try:
            return msgspec.json.decode(raw, type=str)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._wrong(str(error)) from None

    def _next(self) -> bytes:
        """The next byte that is no white space."""
        while not self._passed_space():
            self._more()
        return self._buffer[self._at : self._at + 1]

    def _passed_space(self) -> bool:
        """Pass over white space; whether something else was met in what was read."""
        self._at = _SPACE.match(self._buffer, self._at).end()  # type: ignore[union-attr]
        return self._at < len(self._buffer)

    def _expect(self, *wanted: bytes) -> bytes:
        found = self._next()
        if found not in wanted:
            raise self._wrong(f"{found!r} stands at {self._start + self._at:,}")
        self._at += 1
        return found

    def _enclosed(self) -> tuple[int, int]:
        """An object or a list."""
        begin, depth = self._start + self._at, 0
        while True:
            self._at = _WITHIN.match(self._buffer, self._at).end()  # type: ignore[union-attr]
            bracket = self._buffer[self._at : self._at + 1]
            if bracket in (b"", b'"'):  # the end of what was read, or a string that isn't whole
                self._more()
                continue
            self._at += 1
            depth += 1 if bracket in b"{[" else -1
            if not depth:
                return begin, self._start + self._at - begin

    def _matching(self, form: re.Pattern[bytes]) -> tuple[int, int]:
        """A string, or a word or number."""
        while True:
            match = form.match(self._buffer, self._at)
            if match is not None and match.end() < len(self._buffer):
                begin, length = self._start + self._at, match.end() - self._at
                self._at = match.end()
                return begin, length
            if match is None and form is _BARE:
                raise self._wrong(f"no value stands at {self._start + self._at:,}")
            self._more()

    def _more(self) -> None:
        if not self._read_on():
            raise self._wrong("it ends in the middle")

    def _read_on(self) -> bool:
        """Read more, unless the document ends; what was passed over is forgotten."""
        self._buffer = self._buffer[self._at :]
        self._start += self._at
        self._at = 0
        if len(self._buffer) > MAX_DOCUMENT:
            raise self._wrong(f"a text in it has more than {MAX_DOCUMENT >> 20} MiB")
        piece = self._read(self._start + len(self._buffer), _PIECE)
        self._buffer += piece
        return bool(piece)

    def _wrong(self, why: str) -> DataError:
        return DataError(what=self._what, why=f"it is not a registry's JSON ({why})")
