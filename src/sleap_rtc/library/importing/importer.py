"""Import, from the paths that a person names to the models of the library.

Asking a person, and telling them, is the caller's: by :class:`Questions`, which
the command line implements, and which for programs answers nothing.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec
from loguru import logger

from sleap_rtc.domain.models import WEIGHT_ENDINGS
from sleap_rtc.errors import (
    AliasTaken,
    DataError,
    OutOfSpace,
    SleapRtcError,
    UsageError,
)
from sleap_rtc.files.copying import room_of_copies
from sleap_rtc.files.drives import Kind, drive_of
from sleap_rtc.files.durable import TEMPORARY, disk_errors
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.validation import check_source, check_target
from sleap_rtc.library import layout
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.importing import archives, finding
from sleap_rtc.library.importing.examining import Examined, examine
from sleap_rtc.library.importing.finding import Candidate, Found, Skipped
from sleap_rtc.library.importing.taking import Way, take
from sleap_rtc.library.importing.wishes import (
    Wishes,
    archive_stem,
    check_type,
    check_wishes,
    proposed_alias,
)
from sleap_rtc.library.inspection.formats import look
from sleap_rtc.library.layout import KNOWN_TYPES
from sleap_rtc.library.registry import Registry

Stage = Literal["looking", "unpacking", "reading", "copying"]
Progress = Callable[[Stage, str, int, int], None]
"""Told of the stage, what it is about, bytes done, bytes in all (0: not known)."""


class Questions:
    """What a person is asked; this one has nobody to ask."""

    def model_type(self, examined: Examined) -> str | None:
        """The head of a model whose files don't tell it; None refuses it."""
        return None

    def alias(self, entry: Entry, proposed: str) -> str | None:
        """The alias for a model that was imported; None gives it none."""
        return proposed or None


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """A model that was imported, or was here already.

    Attributes:
        path: Where it was.
        entry: The model as it is now.
        known: Whether it was here already.
        way: How its files are kept.
        mended: How many of its files were mended, if it was here already.
        wanted: The alias that it couldn't get, None if all went well.
        suggestions: Free aliases to take instead.
        notes: What a person should know: files left out, configurations that can't be read.
    """

    path: Path
    entry: Entry
    known: bool
    way: Way
    mended: int = 0
    wanted: str | None = None
    suggestions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


Result = Imported | Skipped


class Importer:
    """Imports models into one library.

    Args:
        registry: The library.
        wishes: How.
        cache: Hashes of unchanged files.
        drive: What the setting says of the drive.
        questions: Who is asked.
        progress: Told how far it is.
        clock: The time now, UTC.
    """

    def __init__(
        self,
        registry: Registry,
        wishes: Wishes,
        *,
        cache: HashCache | None = None,
        drive: Kind | Literal["auto"] = "auto",
        questions: Questions | None = None,
        progress: Progress | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._registry = registry
        self._wishes = wishes
        self._cache = cache
        self._drive = drive
        self._questions = questions or Questions()
        self._progress = progress or (lambda *_: None)
        self._clock = clock
        self._named: list[Entry] = []

    def run(self, paths: Sequence[Path]) -> Iterator[Result]:
        """Import everything that the paths hold, one model after the other.

        Args:
            paths: Folders, files of weights, archives.

        Yields:
            What became of each; a model that can't be imported doesn't keep others from it.

        Raises:
            UsageError: The wishes can't be fulfilled for any path.
            OutOfSpace: The library's disk is full; what was imported before stays.
        """
        check_wishes(self._wishes, paths)
        seen: set[Path] = set()
        for path in paths:
            for found in self._find(path):
                if isinstance(found, Skipped):
                    yield found
                    continue
                candidate, way = found
                if candidate.path in seen:
                    continue  # named twice, or once and once more by the folder above it
                seen.add(candidate.path)
                yield self._one(candidate, way)

    # ── finding ──────────────────────────────────────────────────────────────

    def _find(self, path: Path) -> Iterator[tuple[Candidate, Way] | Skipped]:
        way: Way = "copy" if self._wishes.copy else "link"
        self._progress("looking", str(path), 0, 0)
        try:
            path = path.absolute()
            check_source(path)
            if path.is_dir():
                found: Iterator[Found] = finding.in_folder(path, recursive=self._wishes.recursive)
            elif archive_kind(path) is not None:
                yield from self._in_archive(path)
                return
            elif finding.is_weights(path.name):
                found = iter((finding.from_file(path),))
            else:
                why = "it is neither a file of weights nor an archive"
                hint = f"Weights end in one of {' '.join(WEIGHT_ENDINGS)}."
                raise DataError(what=str(path), why=why, hint=hint)
        except SleapRtcError as error:
            yield Skipped(path, error)
            return
        library = Path(os.path.realpath(self._registry.models_dir))
        for each in found:
            if isinstance(each, Skipped):
                yield each
                continue
            # One with a link out of the library is a person's, wherever it lies.
            places = each.files.values()
            inside = bool(places) and all(real.is_relative_to(library) for real in places)
            if not inside:
                yield each, way
            elif each.path.resolve().parent == library and self._has_no_model(each.path):
                yield each, "adopt"
            elif each.path == path:
                yield Skipped(path, UsageError(message=f"{path} is in the library already."))

    def _has_no_model(self, folder: Path) -> bool:
        """Whether a folder of the library belongs to no model, or to one that was deleted."""
        named = layout.parse(folder.resolve().name)
        if not (folder / layout.RECORD).exists() or named is None:
            return True  # it lacks a record, or it can't have one
        there = self._registry.known(named[1], named[0])
        return there is not None and there.deleted_at is not None

    def _in_archive(self, path: Path) -> Iterator[tuple[Candidate, Way] | Skipped]:
        """Unpack into the library's ``.incoming``, and take the models out of there."""
        folder = self._registry.incoming / f"{TEMPORARY}unpacked-{secrets.token_hex(8)}"
        with disk_errors(folder):
            folder.mkdir()
        try:
            done = 0

            def told(more: int) -> None:
                nonlocal done
                done += more
                self._progress("unpacking", path.name, done, 0)

            archives.unpack(path, folder, progress=told)
            for each in finding.in_folder(
                folder, recursive=self._wishes.recursive, origin="archive"
            ):
                if isinstance(each, Skipped):
                    yield Skipped(path, _about(each.error, folder, path))
                    continue
                inside = each.path.relative_to(folder)
                name = archive_stem(path) if each.path == folder else each.name
                yield (
                    msgspec.structs.replace(
                        each, path=path / inside if inside.parts else path, name=name
                    ),
                    "move",
                )
        except OutOfSpace:
            raise
        except SleapRtcError as error:
            yield Skipped(path, error)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # ── one model ────────────────────────────────────────────────────────────

    def _one(self, candidate: Candidate, way: Way) -> Result:
        try:
            return self._import(candidate, way)
        except OutOfSpace:
            raise
        except SleapRtcError as error:
            logger.bind(path=str(candidate.path), error=error.message).info("not imported")
            return Skipped(candidate.path, error)
        except OSError as error:
            why = f"it can't be read ({error.strerror})"
            return Skipped(candidate.path, DataError(what=str(candidate.path), why=why))

    def _import(self, candidate: Candidate, way: Way) -> Imported:
        self._progress("looking", candidate.name, 0, 0)
        examined = examine(candidate)
        if not self._wishes.trust:
            examined.check_trusted()
        wished, known = self._wishes.model_type, examined.model_type
        model_type = (known or wished) if self._wishes.recursive else (wished or known)
        if model_type is None:
            model_type = self._questions.model_type(examined)
        if model_type is None:
            raise UsageError(
                message=f"{candidate.path}: nothing tells what type of model it is.",
                hint=f"Add --type, as in --type {KNOWN_TYPES[0]}.",
            )
        check_type(model_type)
        if way == "copy":
            sizes = [real.stat().st_size for real in candidate.files.values()]
            check_target(
                self._registry.models_dir,
                need=room_of_copies(candidate.files.values(), self._registry.models_dir),
                largest=max(sizes, default=0),
                names=candidate.files,
            )
        stage: Stage = "copying" if way == "copy" else "reading"
        done = 0

        def told(more: int) -> None:
            nonlocal done
            done += more
            self._progress(stage, candidate.name, done, examined.size)

        taken = take(
            self._registry,
            examined,
            way=way,
            model_type=model_type,
            name=candidate.name or "model",
            trusted=self._wishes.trust,
            streams=self._streams(candidate),
            clock=self._clock,
            cache=self._cache,
            progress=told,
        )
        imported = Imported(
            path=candidate.path,
            entry=taken.entry,
            known=taken.known,
            way=way,
            mended=taken.mended,
            notes=examined.notes,
        )
        return self._with_alias(imported, candidate.name)

    def _streams(self, candidate: Candidate) -> int:
        """Files at once: as many as the slower of both drives likes."""
        first = next(iter(candidate.files.values()))
        drives = (drive_of(path, override=self._drive) for path in (first, self._registry.incoming))
        return min(drive.streams for drive in drives)

    # ── aliases ──────────────────────────────────────────────────────────────

    def _with_alias(self, imported: Imported, name: str) -> Imported:
        """Give a model its alias; whatever comes of that, it stays imported."""
        entry, given = imported.entry, self._wishes.alias
        self._named.append(entry)
        if given is None and (imported.known or entry.alias is not None):
            return imported  # it has its name, or was left without one
        wanted = given
        if wanted is None:
            wanted = self._questions.alias(entry, self._free(proposed_alias(name), entry))
        if not wanted:
            return imported
        ids = [each.id for each in pair(self._named)] if given is not None else [entry.id]
        try:
            # The first of a pair has got the alias already, alone.
            now = self._registry.get_alias(wanted) if len(ids) > 1 else None
            ours = now is not None and set(now.models) <= set(ids)
            self._registry.set_alias(wanted, *ids, force=ours)
        except OutOfSpace:
            raise
        except AliasTaken as error:
            logger.bind(alias=wanted, model=entry.id, error=error.message).info("alias not set")
            suggestions = self._registry.suggest(wanted, entry.id)
            return msgspec.structs.replace(imported, wanted=wanted, suggestions=suggestions)
        except SleapRtcError as error:
            logger.bind(alias=wanted, model=entry.id, error=error.message).warning("alias not set")
            return msgspec.structs.replace(imported, wanted=wanted)
        return msgspec.structs.replace(imported, entry=self._registry.get(entry.id))

    def _free(self, proposed: str, entry: Entry) -> str:
        """The proposed alias, or the first free one like it."""
        if not proposed or self._registry.get_alias(proposed) is None:
            return proposed
        suggested = self._registry.suggest(proposed, entry.id)
        return suggested[0] if suggested else ""


def archive_kind(path: Path) -> str | None:
    """Whether a file is an archive, of which kind; None for weights, which may be zips too.

    Raises:
        SleapRtcError: It was cut.
        OSError: It can't be read.
    """
    if finding.is_weights(path.name):
        return None
    kind = archives.kind_of(path)
    if kind == "zip":
        try:
            looked = look(path.resolve())
        except DataError:
            return kind
        return kind if looked.format == "zip" else None
    return kind


def pair(entries: Sequence[Entry]) -> list[Entry]:
    """The two of a top-down pair in the order in which they run."""
    return sorted(entries, key=lambda entry: entry.record.model_type != "centroid")


def _about(error: SleapRtcError, folder: Path, path: Path) -> SleapRtcError:
    """The same error, of the archive instead of where it was unpacked."""
    error.args = (error.message.replace(str(folder), str(path)),)
    return error
