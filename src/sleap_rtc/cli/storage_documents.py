"""What ``--json`` prints of the commands that set up storage, and of ``--explain``.

See ``documents.py``.
"""

from __future__ import annotations

from typing import Any, Final

from sleap_rtc.cli.documents import Shown


class SetUpShown(Shown, frozen=True):
    """One thing that was to be set.

    Attributes:
        bucket: Its name; ``account`` for what belongs to none.
        what: What was to be set.
        done: Whether it is.
        why: Where it isn't: what the store said.
    """

    bucket: str
    what: str
    done: bool
    why: str


class InitStorageDocument(Shown, frozen=True):
    """``server-init-storage``.

    Attributes:
        steps: What was set, in order; none with ``--policies``.
        pins_content: Whether a link is refused for other bytes; null with ``--policies``.
        pins_ranges: Whether a range of a replaced object is refused; null with ``--policies``.
        policies: By role, the least that it needs; documents that the store takes.
        budget_command: Sets the budget's alert by hand; empty where no budget is named.
    """

    steps: tuple[SetUpShown, ...]
    pins_content: bool | None
    pins_ranges: bool | None
    policies: dict[str, Any]
    budget_command: str


class WayShown(Shown, frozen=True):
    """One way that content could take, as ``--transport`` names it, and why it is used or not."""

    way: str
    why: str


class PlanDocument(Shown, frozen=True):
    """``--explain``: by which way content would go. Nothing is sent.

    Attributes:
        size: Bytes of the content.
        stored: Bytes of it that storage has; null where it wasn't asked, or can't be used.
        ways: Those that are used, the first before all others.
        without: The others.
    """

    size: int
    stored: int | None
    ways: tuple[WayShown, ...]
    without: tuple[WayShown, ...]


STORAGE: Final[dict[str, type[Shown]]] = {
    "server-init-storage": InitStorageDocument,
    "plan": PlanDocument,
}
"""Name of the schema's file → the document."""
