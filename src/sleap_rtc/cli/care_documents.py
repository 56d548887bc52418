"""What ``--json`` prints of the commands that look after the library; see ``documents.py``."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from sleap_rtc.cli.documents import Shown


class SyncStepShown(Shown, frozen=True):
    """What comparing did with one model.

    Attributes:
        change: ``updated``, ``added``, ``missing``, ``deleted`` (here, and stays so), ``refused``.
        id: Its id here; there, where it has none here.
        label: What it is called.
        model_type: The head.
        why: What there is to say.
    """

    change: Literal["updated", "added", "missing", "deleted", "refused"]
    id: str
    label: str
    model_type: str
    why: str


class SyncedShown(Shown, frozen=True):
    """A worker that was compared with; ``more`` of its models were too many to be looked at."""

    worker: str
    same: int
    more: int
    steps: tuple[SyncStepShown, ...]


class UnreachedShown(Shown, frozen=True):
    """A worker that could not be asked; ``last_seen`` is when a model of it was last seen there."""

    worker: str
    why: str
    last_seen: datetime | None


class SyncDocument(Shown, frozen=True):
    """``sync``."""

    room: str
    workers: tuple[SyncedShown, ...]
    unreached: tuple[UnreachedShown, ...]


CARE: Final[dict[str, type[Shown]]] = {
    "sync": SyncDocument,
}
"""Name of the schema's file → the document."""
