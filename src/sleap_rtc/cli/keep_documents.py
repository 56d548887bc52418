"""What ``--json`` prints of the commands that carry a library elsewhere; see ``documents.py``."""

from __future__ import annotations

from typing import Final, Literal

from sleap_rtc.cli.documents import Shown


class LeftOutShown(Shown, frozen=True):
    """A model that is not in the file, or not with all its files: its directory, and why."""

    directory: str
    why: str


class ExportDocument(Shown, frozen=True):
    """``export-registry``: the file, and what is in it."""

    path: str
    models: int
    aliases: int
    left_out: tuple[LeftOutShown, ...]


class BackupDocument(Shown, frozen=True):
    """``backup``: the archive with its size in bytes, and what is in it.

    Attributes:
        path: The archive.
        size: Its bytes.
        models: Number of models.
        aliases: Number of aliases.
        files_size: Bytes of the models' files in it.
        left_out: What could not be saved.
    """

    path: str
    size: int
    models: int
    aliases: int
    files_size: int
    left_out: tuple[LeftOutShown, ...]


class OutcomeShown(Shown, frozen=True):
    """What became of a model or an alias.

    Attributes:
        kind: Which of them.
        name: Its id, or the alias, as it came.
        fate: ``added``; ``renamed``, under another id; ``known``, here already; ``deleted``, here,
            and stays so; ``taken``, an alias that names something else here; ``refused``.
        now: The model's id here; null where it has none.
        why: What there is to say.
    """

    kind: Literal["model", "alias"]
    name: str
    fate: Literal["added", "renamed", "known", "deleted", "taken", "refused"]
    now: str | None
    why: str


class MergeDocument(Shown, frozen=True):
    """``import-registry`` and ``restore``.

    Attributes:
        source: What was read.
        models: Fate → number of models.
        aliases: Fate → number of aliases.
        outcomes: One each, the first 10,000.
        more: Number of those that are not listed.
    """

    source: str
    models: dict[str, int]
    aliases: dict[str, int]
    outcomes: tuple[OutcomeShown, ...]
    more: int


KEEPING: Final[dict[str, type[Shown]]] = {
    "export-registry": ExportDocument,
    "import-registry": MergeDocument,
    "backup": BackupDocument,
    "restore": MergeDocument,
}
"""Command → what it prints."""
