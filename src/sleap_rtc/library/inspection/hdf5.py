"""HDF5, as Keras and SLEAP up to 1.4 write it: is it whole, is it a model, would it run something.

The library that reads HDF5 is not let near a stranger's file. The superblock
tells where the file ends; the rest is looked through as bytes, since a Keras
model's architecture is JSON text in it, and the one kind of layer that holds
code is called ``Lambda`` there.
"""

from __future__ import annotations

import re
from typing import Final

from sleap_rtc.library.inspection.content import Content

MAGIC: Final = b"\x89HDF\r\n\x1a\n"

_SUPERBLOCK: Final = 96
_MARKS: Final = (b"layer_names", b"model_weights", b"keras_version", b"weight_names")


def _spelled(word: str) -> bytes:
    """A pattern for a word in JSON, however its letters are escaped."""
    letters = (
        b"(?:%b|\\\\u00(?i:%02x))" % (re.escape(letter).encode(), ord(letter)) for letter in word
    )
    return b"".join(letters)


LAMBDA: Final = re.compile(b'\\\\?"' + _spelled("Lambda") + b'\\\\?"')
"""A Lambda layer in the JSON of a Keras model's architecture."""


def check(content: Content) -> None:
    """See that an HDF5 file isn't cut.

    Raises:
        Damaged: It is, or its beginning can't be read.
    """
    start = find(content)
    if start is None:
        raise content.damaged("it is not HDF5")
    block = content.at(start, min(_SUPERBLOCK, content.size - start)).ljust(_SUPERBLOCK, b"\0")
    version = block[8]
    if version in (0, 1):
        width, at = block[13], 24 + 4 * version
    elif version in (2, 3):
        width, at = block[9], 12
    else:
        raise content.damaged(f"it is HDF5 of version {version}, which isn't known")
    if width not in (2, 4, 8):
        raise content.damaged("its first block can't be read")
    if start + at + 3 * width > content.size:
        raise content.ends()
    # Three addresses: of the first byte, of something else, of the end, counted from the first.
    base = int.from_bytes(block[at : at + width], "little")
    end = int.from_bytes(block[at + 2 * width : at + 3 * width], "little")
    if end in (0, (1 << 8 * width) - 1):
        raise content.damaged("it was not closed when it was written")
    if base + end > content.size:
        raise content.ends()


def find(content: Content) -> int | None:
    """Where the superblock is: at the beginning, or behind a user's block; None if nowhere."""
    offset = 0
    while offset + len(MAGIC) <= content.size and offset <= 1 << 20:
        if content.at(offset, len(MAGIC)) == MAGIC:
            return offset
        offset = offset * 2 or 512
    return None


def look_through(content: Content) -> tuple[bool, bool]:
    """Whether it has a model's weights in it, and whether a layer that holds code."""
    weights = code = False
    for piece in content.pieces(overlap=256):
        weights = weights or any(mark in piece for mark in _MARKS)
        code = code or LAMBDA.search(piece) is not None
        if weights and code:
            break
    return weights, code
