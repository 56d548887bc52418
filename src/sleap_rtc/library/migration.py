"""Taking over the public sleap-rtc's registries, when a library is first opened (REG-8).

::

    models/manifest.json                 its client's: moved to .migrated/
    models/.registry/manifest.json       its worker's: stays where it is
    models/.registry/manifest.yaml
    models/.migrated/6f02…-report.json   what became of each model and alias; marks it as done
    models/.migrated/6f02…-manifest.json
    models/.migrated/links/…             links to folders, which are real directories now

Each model keeps its id. One whose directory is in the library gets its record
there; any other is linked to, file by file. Nothing that was there is written
to or removed, and done again (after a kill) it goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, tzinfo
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from loguru import logger
from msgspec.structs import replace

from sleap_rtc.domain.models import Metrics, ModelFile, ModelRecord, Training, may_run
from sleap_rtc.domain.packages import FileEntry, check_path
from sleap_rtc.errors import DataError, NotFound, SleapRtcError
from sleap_rtc.files.durable import disk_errors, make_directory, sync_directory, write_replacing
from sleap_rtc.files.hashing import hash_file
from sleap_rtc.library import layout, legacy, manifest, merging, portable
from sleap_rtc.library.checking import place_of
from sleap_rtc.library.merging import Report
from sleap_rtc.library.registry import Registry
from sleap_rtc.library.telling import Told, counted, unseen

FOLDER: Final = ".migrated"

_CLIENT: Final = manifest.NAME
_WORKER: Final = (".registry/manifest.json", ".registry/manifest.yaml")
_MAX_FILES: Final = 10_000
F = TypeVar("F", Metrics, Training)
_CHECKPOINTS: Final = (".ckpt", ".h5", ".keras", ".pt", ".pth", ".safetensors", ".onnx", ".bin")
_CONFIGS: Final = (
    *("training_config.yaml", "training_config.json"),
    *("initial_config.yaml", "initial_config.json"),
)


def pending(models: Path) -> tuple[Path, ...]:
    """Old registries in a library that were not taken over yet; a few looks at names."""
    found = []
    client = models / _CLIENT
    if client.is_file() and not manifest.is_ours(client):
        found.append(client)
    worker = [models / name for name in _WORKER if (models / name).is_file()]
    # It wrote one of them; where both are there, the newer one counts.
    found += sorted(worker, key=lambda path: path.stat().st_mtime_ns)[-1:]
    return tuple(path for path in found if not _report_path(models, path).exists())


def open_registry(
    models: Path,
    *,
    told: Told = unseen,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    index_dir: Path | None = None,
) -> tuple[Registry, tuple[Report, ...]]:
    """Open a library, and take over what the public sleap-rtc left in it.

    Args:
        models: The library.
        told: Told how far it is, now and whenever somebody waits for the library.
        clock: The time now, UTC.
        index_dir: As for :class:`Registry`.

    Returns:
        The library, and a report for each registry that was taken over now. One that can't be,
        on a full or read-only disk, is logged and waits for the next time.
    """
    registry = Registry(models, clock=clock, index_dir=index_dir, told=told)
    reports = []
    try:
        for path in pending(models):
            reports.append(migrate(registry, path, told=told))  # noqa: PERF401 - one may fail
    except (SleapRtcError, OSError) as error:
        logger.bind(library=str(models), why=str(error)).warning("an old registry must wait")
    return registry, tuple(reports)


def migrate(
    registry: Registry,
    source: Path,
    *,
    local: tzinfo | None = None,
    told: Told = unseen,
) -> Report:
    """Take over one registry in a library's own folder.

    Args:
        registry: The library.
        source: Its file.
        local: The time zone of times without one, by default this machine's.
        told: Told of how many models of how many are done.

    Raises:
        OutOfSpace: The disk is full; what was taken over stays.
        PathNotPermitted: The library can't be written to.
        OSError: The file can't be read.
    """
    models = registry.models_dir
    kept = _report_path(models, source)
    report = Report(str(source))
    try:
        contents = read(source)
    except DataError as error:
        report.add("model", source.name, "refused", why=error.message)
    else:
        take_over(registry, contents, report, source=source, local=local, told=told)
    make_directory(kept.parent)
    write_replacing(kept, _report_document(report))
    if source == models / _CLIENT:
        aside = kept.with_name(kept.name.replace("-report", "-manifest"))
        with disk_errors(aside), contextlib.suppress(FileNotFoundError):  # another process did it
            source.rename(aside)
            sync_directory(models)
        report.source = str(aside)
    counted = {f"{kind} {fate}": n for (kind, fate), n in report.counts.items()}
    logger.bind(source=str(source), report=str(kept), **counted).info(
        "a registry of the public sleap-rtc was taken over"
    )
    return report


def read(path: Path) -> dict[str, Any]:
    """A registry of the public sleap-rtc.

    Raises:
        DataError: It isn't one.
        OSError: It can't be read.
    """
    if path.suffix in (".yaml", ".yml"):
        with path.open("rb") as file:
            plain = legacy.parse_yaml(file.read(legacy.MAX_YAML + 1), what=str(path))
        models = plain.get("models")
        if not isinstance(models, dict):
            raise DataError(what=str(path), why="it has no models")
        return plain
    contents = manifest.read(path)
    if contents.version.partition(".")[0] not in ("0", "1", ""):
        raise DataError(what=str(path), why="it is no registry of the public sleap-rtc")
    return {"models": contents.models, "aliases": contents.aliases}


def take_over(
    registry: Registry,
    contents: Mapping[str, Any],
    report: Report,
    *,
    source: Path,
    local: tzinfo | None = None,
    told: Told = unseen,
) -> None:
    """Take over the models and aliases of a registry, wherever it was.

    Args:
        registry: The library.
        contents: From :func:`read`.
        report: Takes what becomes of each.
        source: Its file: the models of one without a time are as old, and relative paths count
            from its library.
        local: The time zone of times without one.
        told: Told of how many models of how many are done.
    """
    made = datetime.fromtimestamp(source.stat().st_mtime, UTC)
    base = source.parent.parent if source.parent.name == ".registry" else source.parent
    taking = _TakeOver(registry, report, base)
    named: dict[str, tuple[str, ...]] = {}
    models = contents["models"]
    for name, entry in counted(models.items(), len(models), told):
        key = str(name)
        try:
            old = legacy.read(key, _plain(entry), local=local, otherwise=made)
        except DataError as error:
            report.add("model", key, "refused", why=error.details["why"])
            continue
        if old.alias:
            named[old.alias] = (key,)
        taking.model(key, old)
    aliases = contents.get("aliases")
    for name, entry in (aliases if isinstance(aliases, Mapping) else {}).items():
        model = _plain(entry)
        named[str(name)] = (model,) if isinstance(model, str) else ()
    merging.name_models(registry, report, named.items())


class _TakeOver:
    """Takes over the models of one registry, whose relative paths count from ``base``."""

    def __init__(self, registry: Registry, report: Report, base: Path) -> None:
        self._registry = registry
        self._report = report
        self._base = base

    def model(self, key: str, old: legacy.Old) -> None:
        """Take over a model; ``key`` is its id there, by which aliases call it."""
        kept = f"it was called {old.renamed_from}" if old.renamed_from else ""
        directory, why = _directory_of(old, self._base)
        if directory is None:
            self._as_missing(key, old.record, why)
            return
        try:
            record = _with_files(old, directory)
        except (SleapRtcError, OSError) as error:
            text = error.message if isinstance(error, SleapRtcError) else str(error)
            self._as_missing(key, old.record, text)
            return
        there = self._registry.models_dir / record.directory
        own = there.is_dir() and there.samefile(directory)
        try:
            if own and not there.is_symlink():
                entry = self._registry.settle(record, links=True)
                if entry is not None:
                    self._report.add("model", key, "added", now=entry.id, why=kept)
                    return
            assembled = portable.linked(self._registry, _all_linked(record, directory))
        except (DataError, NotFound) as error:
            self._report.add("model", key, "refused", why=error.message)
            return
        if own and there.is_symlink():  # the old registry's link to the model's folder
            aside = self._registry.models_dir / FOLDER / "links" / there.name
            make_directory(aside.parent)
            with disk_errors(aside), contextlib.suppress(FileNotFoundError):
                there.replace(aside)
        self._take_in(key, _all_linked(record, directory), assembled, kept)

    def _as_missing(self, key: str, record: ModelRecord, why: str) -> None:
        status = record.status if record.status == "failed" else "missing"
        self._take_in(key, replace(record, status=status), None, f"without its files: {why}")

    def _take_in(self, key: str, record: ModelRecord, assembled: Path | None, why: str) -> None:
        one = Report(self._report.source)
        merging.take_in(self._registry, one, record, assembled, links=True)
        outcome = one.outcomes[0]
        self._report.add("model", key, outcome.fate, now=outcome.now, why=outcome.why or why)


def _directory_of(old: legacy.Old, base: Path) -> tuple[Path | None, str]:
    """The real directory of a model, and why there is none."""
    why = "it names no place"
    for text in old.places:
        for path in _readings(text, base):
            try:
                real = path.resolve(strict=True)
            except (OSError, RuntimeError, ValueError) as error:  # a link to itself, for instance
                why = f"{path} is not there" if isinstance(error, FileNotFoundError) else str(error)
                continue
            if real.is_dir() and not base.resolve().is_relative_to(real):
                return real, ""
            why = f"{path} is no model's directory"
    return None, why


def _readings(text: str, base: Path) -> Iterator[Path]:
    with contextlib.suppress(RuntimeError):  # there is no such user
        path = Path(text).expanduser()
        if path.is_absolute():
            yield path
        else:
            yield base / path
            yield base.parent / path


def _with_files(old: legacy.Old, directory: Path) -> ModelRecord:
    """The record with every file in its directory, hashed.

    Raises:
        DataError: Too many files, or none of a model.
        OSError: One can't be read.
    """
    found = tuple(_files_in(directory))
    if not found:
        raise DataError(what=str(directory), why="there is no file in it")
    names = {file.path for file, _ in found}
    checkpoint = _checkpoint(old.checkpoint, names)
    config = next((name for name in _CONFIGS if name in names), None)
    if checkpoint is None and config is None:
        # A registry may name any folder: what isn't a model mustn't be given to others as one.
        raise DataError(what=str(directory), why="there are neither weights nor a config in it")
    record = old.record
    if record.interruption is not None:
        record = replace(record, interruption=replace(record.interruption, checkpoint=checkpoint))
    record = replace(
        record,
        files=tuple(file for file, _ in found),
        checkpoint=checkpoint,
        config=config,
    )
    return _as_import_reads(record, directory, [entry for _, entry in found])


def _as_import_reads(record: ModelRecord, directory: Path, entries: list[FileEntry]) -> ModelRecord:
    """The record with what its files tell; what the old registry said of it stands."""
    from sleap_rtc.library.importing.taking import package_id, training_of  # noqa: PLC0415 - rare
    from sleap_rtc.library.inspection import logs, profiles  # noqa: PLC0415 - every command opens

    places = {file.path: place_of(directory, file) for file in record.files}
    profile, _ = profiles.find(places)
    weights = () if record.checkpoint is None else (record.checkpoint,)
    return replace(
        record,
        files=tuple(_looked_into(file, places[file.path]) for file in record.files),
        package=package_id(entries),
        metrics=_filled(record.metrics, logs.metrics_of(places)),
        training=_filled(record.training, training_of(profile, weights)),
        skeleton=record.skeleton or (() if profile is None else profile.skeleton),
    )


def _filled(known: F, told: F) -> F:
    """Values with what is known first, and what files tell where nothing is."""
    filled: dict[str, Any] = {}
    for field in known.__struct_fields__:
        value, other = getattr(known, field), getattr(told, field)
        if isinstance(value, dict):
            filled[field] = {**other, **value} if field != "unknown" else value
        elif value is None:
            filled[field] = other
    return replace(known, **filled)


def _looked_into(file: ModelFile, place: Path) -> ModelFile:
    """A file with what a look into it finds, where it may be loaded by something."""
    from sleap_rtc.library.inspection.formats import look  # noqa: PLC0415 - as above

    if not may_run(file.path):
        return file
    try:
        looked = look(place, name=file.path)
    except (SleapRtcError, OSError) as error:
        return replace(file, safety="unknown", found=str(error)[:1_000])
    return replace(file, safety=looked.tier, found=looked.sentence)


def _files_in(directory: Path) -> Iterator[tuple[ModelFile, FileEntry]]:
    count = 0
    for folder, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            relative = path.relative_to(directory).as_posix()
            if name.startswith(".") or layout.is_own(relative):
                continue
            count += 1
            if count > _MAX_FILES:
                raise DataError(what=str(directory), why=f"it has more than {_MAX_FILES:,} files")
            real = path.resolve(strict=True)
            if real.is_file():
                check_path(relative)
                entry, hashes = hash_file(real, as_path=relative)
                link = str(real) if path.is_symlink() else None
                file = ModelFile(path=relative, size=entry.size, blake3=hashes.blake3, link=link)
                yield file, entry


def _all_linked(record: ModelRecord, directory: Path) -> ModelRecord:
    files = (replace(file, link=file.link or str(directory / file.path)) for file in record.files)
    return replace(record, files=tuple(files))


def _checkpoint(given: str | None, names: set[str]) -> str | None:
    """Relative path of the checkpoint: the one that was named, else the best, else any."""
    if given and Path(given).suffix in _CHECKPOINTS:
        parts = Path(given).parts
        for start in range(len(parts)):
            if (end := "/".join(parts[start:])) in names:
                return end
    weights = sorted(name for name in names if Path(name).suffix in _CHECKPOINTS)
    return next((name for name in weights if Path(name).stem == "best"), next(iter(weights), None))


def _plain(entry: object) -> object:
    if not isinstance(entry, msgspec.Raw):
        return entry
    try:
        return msgspec.json.decode(entry)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def _report_path(models: Path, source: Path) -> Path:
    """Where a registry's report is: a changed registry is another one."""
    found = source.stat()
    text = f"{source.relative_to(models)} {found.st_size} {found.st_mtime_ns}"
    digest = blake2b(text.encode(), digest_size=8).hexdigest()
    return models / FOLDER / f"{digest}-report.json"


def _report_document(report: Report) -> bytes:
    document = {"source": report.source, "outcomes": report.outcomes}
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
