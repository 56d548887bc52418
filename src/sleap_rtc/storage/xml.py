"""What little of XML a store's answers are made of.

Nothing in them is trusted: no document type, so no entities; the caller bounds the size.
"""

from __future__ import annotations

from typing import TypeAlias
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from sleap_rtc.errors import DataError

__all__ = ["Node", "error", "escape", "nodes", "parse", "text"]

Node: TypeAlias = ET.Element


def parse(data: bytes, what: str) -> Node:
    """Read an answer.

    Args:
        data: Its bytes.
        what: Names the store in the error.

    Raises:
        DataError: It is no XML, or has a document type.
    """
    # As bytes it would be missed in UTF-16; no store writes that.
    if b"<!" in data or b"\0" in data:
        raise DataError(what=what, why="its answer has a document type, which none needs")
    try:
        root = ET.fromstring(data)  # noqa: S314 - no document types, see above
    except (ET.ParseError, ValueError, RecursionError) as error:
        raise DataError(what=what, why=f"its answer is no XML ({error})") from None
    return root


def text(node: Node, name: str, *, default: str | None = None) -> str:
    """The text of the first child with a name, whatever its namespace.

    Raises:
        DataError: There is none, and no default.
    """
    found = next(iter(nodes(node, name)), None)
    if found is not None:
        return found.text or ""
    if default is None:
        raise DataError(what="a store's answer", why=f"it has no {name}")
    return default


def nodes(node: Node, name: str) -> list[Node]:
    """The children with a name, whatever their namespace."""
    return [child for child in node if child.tag.rpartition("}")[2] == name]


def error(data: bytes) -> str | None:
    """The code of the error that a body tells of, 80 characters at most; None if it tells none."""
    if not data.lstrip().startswith(b"<") or b"<Error" not in data[:2_000]:
        return None
    try:
        root = parse(data, "a store's answer")
    except DataError:
        return "an answer that can't be read"
    if root.tag.rpartition("}")[2] != "Error":
        return None
    return text(root, "Code", default="an error without a code")[:80]
