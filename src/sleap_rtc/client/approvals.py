"""Checkpoints are looked into before they are run here, whatever their records say of them.

A record travels, in backups too, so that it can't prove that a model was trained
here. A checkpoint that is clean is run, as a trainer's own are. One that isn't is
run only if a person of the machine that runs it says yes, once per content; that
yes is kept as ``<home>/trusted/<BLAKE3 of the file>``, for clients and workers
alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from loguru import logger

from sleap_rtc.errors import NotTrusted
from sleap_rtc.files.durable import write_replacing
from sleap_rtc.files.hashing import hash_file
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.inspection.scanning import loadable, scan

_HERE: Final = "If you know where it comes from, add --trust-model; that is remembered."


class Approvals:
    """What a person of this machine said yes to.

    Args:
        folder: Made with the first yes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def check(self, entry: Entry, *, trust: bool = False) -> None:
        """See that a model of a library may be run on this machine.

        Args:
            entry: The model.
            trust: The person says yes to whatever is found; it is remembered.

        Raises:
            NotTrusted: A file that an engine may load isn't clean, and nobody said yes to it.
        """
        record = entry.record
        paths = {file.path for file in record.files}
        if record.checkpoint is not None:
            paths.add(record.checkpoint)
        self.check_files(entry.label, entry.directory, paths, trust=trust)

    def check_files(
        self,
        model: str,
        directory: Path,
        paths: Iterable[str],
        *,
        trust: bool = False,
        hint: str = _HERE,
    ) -> None:
        """See that a model's files may be run on this machine.

        Args:
            model: What it is called.
            directory: Where they are.
            paths: All of them, relative.
            trust: The person says yes to whatever is found; it is remembered.
            hint: What to do about a file that nobody said yes to; ``{blake3}`` in it is its hash.

        Raises:
            NotTrusted: A file that an engine may load isn't clean, and nobody said yes to it.
        """
        for path in loadable(paths):
            verdict = scan(directory / path)
            if verdict.clean:
                continue
            # A model that was imported by link lies elsewhere: what is loaded is what is hashed.
            _, hashes = hash_file((directory / path).resolve(), as_path=path)
            if self.has(hashes.blake3):
                continue
            if not trust:
                who = f"{path} of model {model}"
                hint = hint.replace("{blake3}", hashes.blake3)
                raise NotTrusted(who=who, why=verdict.sentence, hint=hint)
            self.approve(hashes.blake3, f"{path} of model {model}: {verdict.sentence}")

    def has(self, blake3: str) -> bool:
        """Whether a person said yes to the file with this hash."""
        return (self._folder / blake3).exists()

    def approve(self, blake3: str, why: str) -> None:
        """Say yes to the file with this hash. Twice is once.

        Args:
            blake3: The hash of all of it, 64 hex digits.
            why: What is remembered beside it.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_replacing(self._folder / blake3, f"{why}\n".encode())
        logger.bind(blake3=blake3).warning("trusted from now on: {}", why)

    def withdraw(self, blake3: str) -> None:
        """Take a yes back; one that was never said is no matter."""
        (self._folder / blake3).unlink(missing_ok=True)
