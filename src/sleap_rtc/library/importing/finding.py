"""Where models are: what a path, a folder or a tree of folders holds.

A folder with files of weights in it is a model, with what else is in it and
below it. It is one model if a configuration, an index or the names say so (the
files of one set; ``best.ckpt`` and ``last.ckpt``); otherwise each is one.
Hidden files and what other programs keep there are left out, and so are pickles
that aren't weights. Links to files are followed, links to folders aren't.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

from sleap_rtc.domain.models import PICKLE_ENDINGS, WEIGHT_ENDINGS
from sleap_rtc.domain.packages import check_path
from sleap_rtc.errors import DataError, NotFound, SleapRtcError, UnsafePath
from sleap_rtc.files.validation import check_source, safe_name
from sleap_rtc.library.importing import sets
from sleap_rtc.library.inspection import profiles
from sleap_rtc.library.inspection.formats import look
from sleap_rtc.library.layout import COPY, RECORD

MAX_FILES: Final = 10_000
"""Files of one model: as many as a record lists."""
MAX_ENTRIES: Final = 500_000
MAX_DEPTH: Final = 16

_OTHERS: Final = frozenset({"wandb", "lightning_logs", "__pycache__", "node_modules"})
_OWN_NPZ: Final = ("best.npz", "last.npz")
_COMMON: Final = ("best", "last", "final_model", "latest_model", "initial_model")
_ORDER: Final = ("best", "last", "final", "latest", "model", "pytorch_model")

Origin = Literal["folder", "file", "archive"]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """What may be one model.

    Attributes:
        path: What a person would call it by: its folder, its file, its archive.
        origin: Which of these it is.
        name: What it could be called.
        files: Path in the model → where the file is, links followed.
        weights: Those of them that may hold weights, the one to use first.
        notes: What is left out, and why.
        record: Where a record that another library of ours wrote may be.
    """

    path: Path
    origin: Origin
    name: str
    files: Mapping[str, Path]
    weights: tuple[str, ...]
    notes: tuple[str, ...] = ()
    record: Path | None = None


_ARCHIVES: Final = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")


class Skipped(msgspec.Struct, frozen=True):
    """What isn't imported.

    Attributes:
        path: What it is.
        error: Why, and what to do.
    """

    path: Path
    error: SleapRtcError


Found = Candidate | Skipped


def is_weights(name: str) -> bool:
    """Whether a file of this name may hold weights."""
    shard = sets.shard_of(name)
    plain = name[: name.rfind(".part")] if shard is not None and ".part" in name else name
    suffix = os.path.splitext(plain)[1].lower()  # noqa: PTH122 - a name, not a path
    return suffix in WEIGHT_ENDINGS and (suffix != ".npz" or plain.lower() in _OWN_NPZ)


def in_folder(folder: Path, *, recursive: bool, origin: Origin = "folder") -> Iterator[Found]:
    """The models in a folder, or in all folders below it.

    Args:
        folder: The folder.
        recursive: Whether models in folders below it are wanted as well.
        origin: How it came here.

    Yields:
        Models and what is none, in the order of their paths. Without ``recursive``, one.
    """
    tree = _Tree()
    try:
        found = list(tree.models(folder, 0))
    except SleapRtcError as error:
        yield Skipped(folder, error)
        return
    if recursive:
        for each in found:
            yield from _in(each, origin, apart=True)
        yield from tree.skipped
        if not found and not tree.skipped:
            yield Skipped(folder, _nothing(folder))
        return
    if (found and found[0].folder == folder) or (len(found) == 1 and origin == "archive"):
        yield from _in(found[0], origin, apart=False)
    elif found:
        first = found[0].folder.relative_to(folder)
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        why = f"it holds no model itself; folders below it do ({first}{more})"
        hint = "Add --recursive to import all of them, or name one."
        yield Skipped(folder, DataError(what=str(folder), why=why, hint=hint))
    else:
        yield next(iter(tree.skipped), Skipped(folder, _nothing(folder)))


def from_file(path: Path) -> Found:
    """The model of one file of weights: its set, and what describes it beside it.

    Raises:
        NotFound: There is no such file.
    """
    check_source(path)
    try:
        beside = sorted(os.listdir(path.parent))  # noqa: PTH208 - names are wanted
    except OSError:
        beside = [path.name]
    group = next((g for g in sets.grouped(filter(is_weights, beside)).values() if path.name in g),
                 (path.name,))  # fmt: skip
    describing = [name for name in beside if _describes(name)]
    files: dict[str, Path] = {}
    notes: list[str] = []
    for name in dict.fromkeys((*group, *_data_of(path, beside), *describing)):
        try:
            _add(files, name, path.parent / name, notes, needed=name in group)
        except SleapRtcError as error:
            return Skipped(path, error)
    weights = tuple(safe_name(name) for name in group)
    return Candidate(
        path=path,
        origin="file",
        name=_stem(path),
        files=files,
        weights=weights,
        notes=tuple(notes),
    )


def _data_of(path: Path, beside: list[str]) -> list[str]:
    """Files beside an ONNX file that hold weights of it."""
    if path.suffix.lower() != ".onnx":
        return []
    with contextlib.suppress(
        DataError, OSError
    ):  # what is wrong with it is said when it is examined
        named = look(Path(os.path.realpath(path))).beside
        return [name for name in named if name in beside]
    return []


# ── folders ──────────────────────────────────────────────────────────────────


class _Folder(msgspec.Struct):
    """A folder with weights in it.

    Attributes:
        folder: Where it is.
        names: Its files, relative, and those of folders below it that hold no model.
        direct: The names of files that may hold weights.
        notes: What was left out.
    """

    folder: Path
    names: list[str]
    direct: list[str]
    notes: list[str]


class _Tree:
    """A walk through folders, bounded."""

    def __init__(self) -> None:
        self.skipped: list[Skipped] = []
        self._left = MAX_ENTRIES

    def models(self, folder: Path, depth: int) -> Iterator[_Folder]:
        """Every folder with weights in it, this one first."""
        files, folders, notes = self._entries(folder)
        direct = [name for name in files if is_weights(name)]
        below: list[_Folder] = []
        if depth < MAX_DEPTH:
            for name in folders:
                try:
                    below += self.models(folder / name, depth + 1)
                except SleapRtcError as error:
                    self.skipped.append(Skipped(folder / name, error))
        elif folders:
            notes.append(f"folders more than {MAX_DEPTH} deep")
        if direct:
            own = _Folder(folder, files, direct, notes)
            taken = {each.folder for each in below}
            for name in folders:
                if folder / name not in taken:
                    own.names += [f"{name}/{inner}" for inner in self._all(folder / name, depth)]
            yield own
        elif any(name in profiles.NAMES for name in files):
            why = "it has a configuration, and no file of weights"
            hint = "Is its checkpoint on another disk, or was it deleted?"
            self.skipped.append(Skipped(folder, DataError(what=str(folder), why=why, hint=hint)))
        if not direct:
            self.skipped += [_unopened(folder / n) for n in files if n.lower().endswith(_ARCHIVES)]
        yield from below

    def _all(self, folder: Path, depth: int) -> Iterator[str]:
        """The files of a folder that belongs to a model above it."""
        if depth >= MAX_DEPTH:
            return
        try:
            files, folders, _ = self._entries(folder)
        except SleapRtcError:
            return
        if any(is_weights(name) for name in files):
            return  # a model of its own
        yield from files
        for name in folders:
            yield from (f"{name}/{inner}" for inner in self._all(folder / name, depth + 1))

    def _entries(self, folder: Path) -> tuple[list[str], list[str], list[str]]:
        """Names of files, names of folders, and what is left out."""
        check_source(folder)
        files: list[str] = []
        folders: list[str] = []
        notes: list[str] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                self._left -= 1
                if self._left < 0:
                    why = f"there are more than {MAX_ENTRIES:,} files below it"
                    raise DataError(what=str(folder), why=why, hint="Name the models' folders.")
                if entry.name.startswith(".") or entry.name == COPY:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    (folders if entry.name not in _OTHERS else []).append(entry.name)
                elif entry.is_symlink() and Path(entry.path).is_dir():  # False for a loop
                    notes.append(f"{entry.name} (a link to a folder)")
                else:
                    files.append(entry.name)
        return sorted(files), sorted(folders), notes


def _unopened(archive: Path) -> Skipped:
    why = "archives in a folder aren't opened"
    hint = "If there are models in it, import it by itself."
    return Skipped(archive, DataError(what=str(archive), why=why, hint=hint))


def _in(found: _Folder, origin: Origin, *, apart: bool) -> Iterator[Found]:
    """The model, or the models, of a folder."""
    folder = found.folder
    record = next((folder / n for n in (RECORD, COPY) if (folder / n).exists()), None)
    if record is None and not _is_one(found):
        if not apart:
            why = f"it holds {len(found.direct)} models ({', '.join(found.direct[:3])}, …)"
            hint = "Add --recursive to import each of them, or name one."
            yield Skipped(folder, DataError(what=str(folder), why=why, hint=hint))
            return
        for group in sets.grouped(found.direct).values():
            yield from_file(folder / group[0])
        return
    files: dict[str, Path] = {}
    notes = list(found.notes)
    names = found.names
    if len(names) > MAX_FILES:
        names = [name for name in names if "/" not in name][:MAX_FILES]
        notes.append(f"files in folders of it, of which there are more than {MAX_FILES:,}")
    for name in names:
        if os.path.splitext(name)[1].lower() in PICKLE_ENDINGS:  # noqa: PTH122
            notes.append(f"{name} (a pickle that holds no weights)")
            continue
        try:
            _add(files, name, folder / name, notes, needed=name in found.direct)
        except SleapRtcError as error:
            yield Skipped(folder, error)
            return
    yield Candidate(
        path=folder,
        origin=origin,
        name=folder.name,
        files=files,
        weights=in_order(safe_name(name) for name in found.direct),
        notes=tuple(notes),
        record=record,
    )


def _is_one(found: _Folder) -> bool:
    names = set(found.names)
    if names & set(profiles.NAMES) or any(name.endswith(sets.INDEX) for name in names):
        return True
    direct = found.direct
    if any(name.lower().endswith(".onnx") for name in direct):
        direct = [name for name in direct if not name.lower().endswith(".bin")]  # its weights
    groups = sets.grouped(direct)
    stems = {os.path.splitext(name)[0] for name in found.direct}  # noqa: PTH122
    return len(groups) == 1 or bool(stems & {*_COMMON, "best_model"})


def in_order(names: Iterator[str]) -> tuple[str, ...]:
    """Names of weights, the one to use first."""

    def rank(name: str) -> tuple[int, str]:
        stem = name.lower()
        place = next((n for n, word in enumerate(_ORDER) if stem.startswith(word)), len(_ORDER))
        return place, name

    return tuple(sorted(names, key=rank))


def _add(files: dict[str, Path], name: str, path: Path, notes: list[str], *, needed: bool) -> None:
    """Take a file in, under a name that is safe everywhere.

    Raises:
        SleapRtcError: It is needed, and can't be.
    """
    try:
        found = check_source(path)
        if not stat.S_ISREG(found.st_mode):
            notes.append(f"{name} (a folder)")
            return
        real = os.path.realpath(path)
        real.encode("utf-8")
        as_name = check_path("/".join(safe_name(part) for part in name.split("/")))
        if as_name in files:
            raise UnsafePath(path=name, why="another file would have the same name")
    except UnicodeEncodeError:
        error: SleapRtcError = UnsafePath(
            path=ascii(name), why="its name is not valid Unicode", hint="Rename it."
        )
    except SleapRtcError as caught:
        error = caught
    else:
        files[as_name] = Path(real)
        return
    if needed:
        raise error
    notes.append(f"{name} ({error.message})")


def _describes(name: str) -> bool:
    return (
        name in profiles.NAMES
        or name == "training_log.csv"
        or (name.startswith("metrics.") and name.endswith(".json"))
    )


def _stem(path: Path) -> str:
    """What the model of a file could be called: its folder, where the file has a common name."""
    shard = sets.shard_of(path.name)
    stem = path.stem if shard is None else path.name.partition(".part")[0].partition("-0")[0]
    common = stem.lower() in (*_COMMON, "best_model", "model")
    return path.parent.name if common and path.parent.name else stem


def _nothing(folder: Path) -> NotFound:
    return NotFound(
        message=f"There is no model in {folder}.",
        hint=f"A model has a file that ends in one of {' '.join(WEIGHT_ENDINGS)}.",
    )
