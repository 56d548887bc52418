"""Training packages in a zip: those that SLEAP exports, and any with one label file in it.

::

    flies.training_job.zip                  what SLEAP's window for training exports
        jobs.yaml                           {training: [{cfg, train_labels, …}], inference: […]}
        labels.v001.pkg.slp
        centroid.yaml  centered_instance.yaml
        train-script.sh                     not looked at

    <into>/<BLAKE3 of the zip>/…            the same, unpacked once and kept for a month:
                                            a job's inputs must be there until they are sent

Nothing in an archive is believed: names that leave the folder, links, encrypted
members, and archives that unpack to very much more than they are, are refused.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final

import msgspec

from sleap_rtc.domain.packages import check_path
from sleap_rtc.domain.units import format_bytes
from sleap_rtc.engines.configs import load_config
from sleap_rtc.errors import AlreadyExists, Damaged, InvalidConfig, InvalidLabels, UnsafePath
from sleap_rtc.files.durable import TEMPORARY, disk_errors, place_directory, sync_file
from sleap_rtc.files.hashing import hash_file
from sleap_rtc.files.space import check_space
from sleap_rtc.library.inspection.content import Content
from sleap_rtc.library.inspection.zips import check_end

ENDING: Final = ".zip"
JOBS: Final = "jobs.yaml"
MAX_MEMBERS: Final = 10_000
MAX_TRAININGS: Final = 16
MAX_JOBS: Final = 256 * 1024
"""Bytes of a ``jobs.yaml``."""
PLENTY: Final = 1024**3
MAX_RATIO: Final = 100
"""An archive may unpack to 1 GiB, or to 100 times its size if that is more."""
KEPT_S: Final = 30 * 86_400.0
"""Seconds for which what was unpacked is kept after it was last used."""

_CHUNK: Final = 1024 * 1024
_ENCRYPTED: Final = 0x1
_FAULTS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
)

Progress = Callable[[int, int], None]
"""Called with the bytes that are unpacked and those of all files."""


class TrainingPackage(msgspec.Struct, frozen=True):
    """What a training needs, on this disk.

    Attributes:
        labels: The label file.
        configs: Its configurations, in the order in which they are trained; none in an archive
            that only has labels.
        val_labels: Labels to validate on.
    """

    labels: Path
    configs: tuple[Path, ...] = ()
    val_labels: Path | None = None


def unpack(path: Path, into: Path, *, progress: Progress | None = None) -> TrainingPackage:
    """Unpack a training package; one that was unpacked before isn't unpacked again.

    Args:
        path: The zip.
        into: The folder of all unpacked archives; made when it is first needed.
        progress: Told how far it is.

    Raises:
        InvalidLabels: It is no zip, damaged, or unpacks to too much; or which of its files are
            the labels can't be told.
        InvalidConfig: What its ``jobs.yaml`` says can't be used.
        UnsafePath: A member's name would leave the folder.
        OutOfSpace: There is no room.
    """
    if not path.is_file():
        raise InvalidLabels(path=str(path), why="there is no such file")
    with disk_errors(into):
        into.mkdir(mode=0o700, parents=True, exist_ok=True)
    _forget(into)
    _, hashes = hash_file(path.resolve(), as_path="archive")
    place = into / hashes.blake3
    if not place.is_dir():
        new = into / f"{TEMPORARY}{secrets.token_hex(8)}"
        try:
            _extract(path, new, progress)
            with contextlib.suppress(AlreadyExists):  # another process was quicker
                place_directory(new, place)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    place.touch()
    return _read(place, name=path.name)


def _extract(path: Path, new: Path, progress: Progress | None) -> None:
    try:
        with path.open("rb") as file:
            # The whole directory is read into memory before its first name is seen.
            check_end(Content(file.fileno(), path.name))
        with zipfile.ZipFile(path) as archive:
            members = _checked(archive, path)
            total = sum(member.file_size for member in members.values())
            check_space(new.parent, total)
            done = 0

            def count(size: int) -> None:
                nonlocal done
                done += size
                if progress is not None:
                    progress(done, total)

            for name, member in members.items():
                _extract_one(archive, member, new / name, count)
    except Damaged as fault:
        raise InvalidLabels(path=str(path), why=fault.details["why"]) from None
    except _FAULTS as fault:
        why = f"the archive is damaged, or of a kind that can't be read ({fault})"
        raise InvalidLabels(path=str(path), why=why) from None


def _checked(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by their path, when all of them may be unpacked."""
    members: dict[str, zipfile.ZipInfo] = {}
    seen: set[str] = set()
    listed = archive.infolist()
    if len(listed) > MAX_MEMBERS:
        why = f"the archive has {len(listed)} members, more than the {MAX_MEMBERS} allowed"
        raise InvalidLabels(path=str(path), why=why)
    for member in listed:
        name = member.filename
        if member.is_dir() or name.startswith("__MACOSX/"):
            continue
        check_path(name)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise UnsafePath(path=name[:120], why="it is no regular file in the archive")
        if member.flag_bits & _ENCRYPTED:
            raise InvalidLabels(path=str(path), why="the archive is encrypted")
        if name.casefold() in seen:
            raise UnsafePath(path=name[:120], why="the archive has it twice")
        seen.add(name.casefold())
        members[name] = member
    if not members:
        raise InvalidLabels(path=str(path), why="the archive is empty")
    total = sum(member.file_size for member in members.values())
    if total > max(PLENTY, MAX_RATIO * path.stat().st_size):
        why = f"the archive claims to unpack to {format_bytes(total)}, far more than it could hold"
        raise InvalidLabels(path=str(path), why=why)
    return members


def _extract_one(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, count: Callable[[int], None]
) -> None:
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as source, target.open("xb") as file:
            # It gives no more than the directory said, and checks that it was as much.
            while chunk := source.read(_CHUNK):
                file.write(chunk)
                count(len(chunk))
            file.flush()
            sync_file(file.fileno())


def _forget(into: Path) -> None:
    """Remove what was unpacked long ago."""
    oldest = time.time() - KEPT_S
    for folder in into.iterdir():
        with contextlib.suppress(OSError):
            if folder.stat(follow_symlinks=False).st_mtime < oldest:
                shutil.rmtree(folder)


# ── what is in it ────────────────────────────────────────────────────────────


def _read(place: Path, *, name: str) -> TrainingPackage:
    files = {
        path.relative_to(place).as_posix(): path
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }
    plans = [path for path in files if PurePosixPath(path).name == JOBS]
    if not plans:
        return TrainingPackage(labels=files[_only_labels(files, name)])
    # The uppermost, where a folder was packed as a whole.
    plan = min(plans, key=lambda path: path.count("/"))
    where = f"{name}: {plan}"
    trainings = _trainings(files[plan], where)
    base = PurePosixPath(plan).parent

    def file_of(said: object, what: str) -> str:
        return _find(files, base, said, f"{where}: {what}")

    configs = tuple(files[file_of(training.get("cfg"), "cfg")] for training in trainings)
    labels = _same(trainings, "train_labels", where)
    validation = _same(trainings, "val_labels", where)
    return TrainingPackage(
        labels=files[
            _only_labels(files, name) if labels is None else file_of(labels, "train_labels")
        ],
        configs=configs,
        val_labels=None if validation is None else files[file_of(validation, "val_labels")],
    )


def _trainings(path: Path, where: str) -> Sequence[dict[str, Any]]:
    if path.stat().st_size > MAX_JOBS:
        raise InvalidConfig(where=where, why=f"it is larger than {format_bytes(MAX_JOBS)}")
    try:
        plain = load_config(path.read_text(encoding="utf-8"), where=where)
    except UnicodeDecodeError:
        raise InvalidConfig(where=where, why="it is not text in UTF-8") from None
    trainings = plain.get("training")
    if not isinstance(trainings, list) or not 1 <= len(trainings) <= MAX_TRAININGS:
        raise InvalidConfig(where=where, why=f"it has no list of 1 to {MAX_TRAININGS} trainings")
    if not all(isinstance(training, dict) for training in trainings):
        raise InvalidConfig(where=where, why="a training in it is no mapping")
    return trainings


def _same(trainings: Sequence[dict[str, Any]], key: str, where: str) -> object:
    """What all trainings say, None when they say nothing."""
    said = [training[key] for training in trainings if training.get(key) is not None]
    if any(one != said[0] for one in said):
        why = f"its trainings have different {key}, and one job has one"
        raise InvalidConfig(where=where, why=why)
    return said[0] if said else None


def _find(files: dict[str, Path], base: PurePosixPath, said: object, where: str) -> str:
    """The member that a path means: relative to ``jobs.yaml``, or the only one of that name."""
    if not isinstance(said, str) or not said:
        raise InvalidConfig(where=where, why="it is no path")
    path = (base / said.replace("\\", "/")).as_posix()
    if path in files:
        return path
    # The machine that wrote it may have told the path as it was there.
    last = PureWindowsPath(said).name
    fits = [member for member in files if PurePosixPath(member).name == last]
    if len(fits) != 1:
        raise InvalidConfig(where=where, why=f"the archive has no file {said[:120]!r}")
    return fits[0]


def _only_labels(files: dict[str, Path], name: str) -> str:
    found = [path for path in files if path.endswith(".slp")]
    if len(found) != 1:
        said = ", ".join(found[:5]) or "none"
        why = f"an archive without jobs.yaml must have exactly one .slp file; it has {said}"
        raise InvalidLabels(path=name, why=why)
    return found[0]
