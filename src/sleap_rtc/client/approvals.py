"""Checkpoints that this machine didn't make: looked into before they are run here.

One that is clean is run. One that isn't is run only if a person says yes, once
per content; that yes is kept as ``<home>/trusted/<BLAKE3 of the file>``.
"""

from __future__ import annotations

from pathlib import Path

from loguru import logger

from sleap_rtc.engines.scanning import scan
from sleap_rtc.errors import NotTrusted
from sleap_rtc.files.durable import write_new
from sleap_rtc.files.hashing import hash_file
from sleap_rtc.library.entries import Entry


class Approvals:
    """What a person of this machine said yes to.

    Args:
        folder: Made with the first yes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def check(self, entry: Entry, *, trust: bool = False) -> None:
        """See that a model may be run on this machine.

        Args:
            entry: The model.
            trust: The person says yes to whatever is found; it is remembered.

        Raises:
            NotTrusted: Its checkpoint isn't clean, and nobody said yes to it.
        """
        record = entry.record
        if record.source == "worker-training" or record.checkpoint is None:
            return  # trained by this machine, or there is nothing to load
        path = entry.directory / record.checkpoint
        verdict = scan(path)
        if verdict.clean:
            return
        _, hashes = hash_file(path, as_path=path.name)
        mark = self._folder / hashes.blake3
        if trust:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_new(mark, f"{record.id}: {verdict.sentence}\n".encode())
            logger.warning("model {} is trusted although {}", record.id, verdict.sentence)
        elif not mark.exists():
            raise NotTrusted(
                who=f"The checkpoint of model {entry.label}",
                why=verdict.sentence,
                hint="If you know where it comes from, add --trust-model; that is remembered.",
            )
