"""Checkpoints that this machine didn't make: looked into before they are run here.

One that is clean is run. One that isn't is run only if a person says yes, once
per content; that yes is kept as ``<home>/trusted/<BLAKE3 of the file>``.
"""

from __future__ import annotations

from pathlib import Path

from loguru import logger

from sleap_rtc.engines.scanning import loadable, scan
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
            NotTrusted: A file that an engine may load isn't clean, and nobody said yes to it.
        """
        record = entry.record
        if record.source == "worker-training":
            return  # trained by this machine
        paths = {file.path for file in record.files}
        if record.checkpoint is not None:
            paths.add(record.checkpoint)
        for path in loadable(paths):
            self._check_file(entry, entry.directory / path, trust=trust)

    def _check_file(self, entry: Entry, path: Path, *, trust: bool) -> None:
        record = entry.record
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
                who=f"{path.name} of model {entry.label}",
                why=verdict.sentence,
                hint="If you know where it comes from, add --trust-model; that is remembered.",
            )
