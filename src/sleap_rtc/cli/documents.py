"""What ``--json`` prints, one shape per command; ``docs/reference/json.md`` shows each.

The shapes are promises: fields are added, never renamed or taken away. Sizes
are bytes, durations seconds, times UTC in ISO 8601, ids whole.
"""

from __future__ import annotations

from typing import Final

import msgspec


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what is shown."""


class ErrorShown(Shown, frozen=True):
    """Why it didn't work.

    Attributes:
        code: Stable, for programs; docs/errors.md lists them.
        message: One sentence.
        hint: What to do, where there is something to say.
        exit_code: The process's.
    """

    code: str
    message: str
    hint: str
    exit_code: int


class FailedShown(Shown, frozen=True):
    """One of several things that were asked for, and why it failed; the others went on."""

    name: str
    error: ErrorShown


class ErrorDocument(Shown, frozen=True):
    """What any command prints that fails before it has a result."""

    error: ErrorShown


ERRORS: Final[dict[str, type[Shown]]] = {"error": ErrorDocument}
"""Name of the schema's file → the document."""
