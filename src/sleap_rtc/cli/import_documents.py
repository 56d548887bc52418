"""What ``import-model --json`` prints; see ``documents.py``."""

from __future__ import annotations

from typing import Final, Literal

from sleap_rtc.cli.documents import ErrorShown, Shown
from sleap_rtc.cli.model_documents import ModelShown
from sleap_rtc.domain.models import Tier


class ImportedShown(Shown, frozen=True):
    """A model that was imported.

    Attributes:
        model: It, as it is in the library now.
        source: Where it was.
        added: False if its files were in the library already, as this model.
        way: Whether its files are links to there, copies, moved out of an archive, or lay in the
            library without a record.
        safety: How far its files may be trusted, by the worst of them.
        found: What was found in them, empty if nothing was.
        trusted: Whether ``--trust`` said yes to it.
        wanted_alias: The alias that it couldn't get; null if all went well.
        suggestions: Free aliases to take instead.
        notes: Files that were left out, configurations that can't be read.
    """

    model: ModelShown
    source: str
    added: bool
    way: Literal["link", "copy", "move", "adopt"]
    safety: Tier
    found: str
    trusted: bool
    wanted_alias: str | None
    suggestions: tuple[str, ...]
    notes: tuple[str, ...]


class NotImportedShown(Shown, frozen=True):
    """What was found, and is not imported; the error says why."""

    source: str
    error: ErrorShown


class ImportDocument(Shown, frozen=True):
    """``import-model``: everything that was found, in the order of the paths."""

    imported: tuple[ImportedShown, ...]
    skipped: tuple[NotImportedShown, ...]


IMPORTS: Final[dict[str, type[Shown]]] = {"import-model": ImportDocument}
"""Name of the schema's file → the document."""
