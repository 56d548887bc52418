"""What a label file holds, read without sleap-io and without trusting it.

A SLEAP label file (``.slp``, ``.pkg.slp``) is HDF5::

    metadata      attribute ``json``: skeletons and the names of their points
    videos_json   one JSON text per video; ``filename`` "." means: the images are in this file
    frames        one row per labelled frame
    instances     one row per instance, ``points`` one per point
    videoN/video  the images themselves, in a package

Without h5py only the signature at its start is checked. A file from elsewhere is
hostile until shown otherwise: links and storage that lead out of it are refused,
and so are videos by address or anywhere but beside it, because a trainer would
open them. Where embedded images came from is told (``origins.py``): a trainer
opens that, too. :func:`inspect_labels` reads it in a process of its own, with bounds on
time and memory, so that a file made to break the HDF5 library breaks only that.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from sleap_rtc.errors import FilesMissing, InvalidLabels
from sleap_rtc.media import origins

_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
_MAX_VIDEOS: Final = 10_000
_MAX_OBJECTS: Final = 100_000
_MAX_DEPTH: Final = 8
_MAX_NODES: Final = 1_000
_MAX_NAME: Final = 200
_MEMORY: Final = 2 * 1024**3
"""Bytes of address space for the process that reads a stranger's file."""


class VideoReference(msgspec.Struct, frozen=True, kw_only=True):
    """A video that labels belong to.

    Attributes:
        path: As the file says; of an embedded one, where it once came from, if that is known.
        embedded: Whether its labelled images are in the file.
    """

    path: str
    embedded: bool

    @property
    def name(self) -> str:
        """The last part of the path, whichever system wrote it."""
        return origins.last_part(self.path)


class LabelsReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a label file holds.

    Attributes:
        nodes: Names of the first skeleton's points.
        frames: Labelled frames.
        instances: Instances in them.
        videos: The videos they belong to.
        origins: Files that embedded images came from, as the file names them.
        checked: False where only the signature could be checked, for want of h5py.
    """

    nodes: tuple[str, ...] = ()
    frames: int = 0
    instances: int = 0
    videos: tuple[VideoReference, ...] = ()
    origins: tuple[str, ...] = ()
    checked: bool = True

    @property
    def embedded(self) -> bool:
        """Whether every image that is needed is in the file."""
        return bool(self.videos) and all(video.embedded for video in self.videos)


def read_labels(path: Path) -> LabelsReport:
    """Read what a label file holds, in this process: for a user's own files.

    Raises:
        FilesMissing: It is not there.
        InvalidLabels: It is not a SLEAP label file, or it leads out of itself.
    """
    if not path.is_file():
        raise FilesMissing(name=path.name, files=str(path))
    try:
        with path.open("rb") as file:
            start = file.read(len(_SIGNATURE))
    except OSError as error:
        raise InvalidLabels(path=path, why=f"it can't be read ({error.strerror})") from None
    if start != _SIGNATURE:
        raise InvalidLabels(path=path, why="it is not an HDF5 file, as .slp files are")
    if importlib.util.find_spec("h5py") is None:
        return LabelsReport(checked=False)
    import h5py  # noqa: PLC0415 - not part of the base install

    try:
        with h5py.File(path, "r") as file:
            _check_closed(file, path)
            return _read(file, path)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, UnicodeError) as error:
        raise InvalidLabels(path=path, why=f"it is damaged ({_short(error)})") from error


def check_videos(report: LabelsReport, labels: Path) -> None:
    """Check that a trainer can read every image, and no file but those sent along.

    A trainer opens a video where the labels say it is, if there is such a file, and else looks for
    the same name beside the labels. On a worker only the second may happen.

    Raises:
        InvalidLabels: A video isn't beside the labels, or names another file of this machine.
    """
    for video in report.videos:
        if video.embedded:
            continue
        beside = labels.parent / video.name
        if not video.name or not _is_file(beside):
            why = f"its video {video.name or video.path!r} is not beside it"
            raise InvalidLabels(path=labels, why=why)
        # The reader of labels takes a backslash for a slash on every system.
        named = Path(video.path.replace("\\", "/"))
        if ".." in named.parts:  # the trainer works in a folder of its own: elsewhere from there
            why = f"its video {video.path!r} leads out of its folder"
            raise InvalidLabels(path=labels, why=why)
        with contextlib.suppress(OSError, ValueError):
            if named.exists() and not named.samefile(beside):
                why = f"its video {video.path!r} names another file of this machine"
                raise InvalidLabels(path=labels, why=why)


def _is_file(path: Path) -> bool:
    """Whether it is a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


async def inspect_labels(path: Path, *, timeout_s: float = 60.0) -> LabelsReport:
    """Like :func:`read_labels`, in a process of its own: for files that came from elsewhere.

    Args:
        path: The file.
        timeout_s: Seconds until it is given up.

    Raises:
        FilesMissing: It is not there.
        InvalidLabels: As :func:`read_labels`, or reading it took too long or broke the reader.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-m", "sleap_rtc.media.labels", str(path)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), timeout_s)
    except TimeoutError:
        raise InvalidLabels(path=path, why=f"reading it took over {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        answer = msgspec.json.decode(output, type=_Answer)
    except msgspec.DecodeError:
        why = f"reading it broke the reader (exit code {process.returncode})"
        raise InvalidLabels(path=path, why=why) from None
    if answer.missing:
        raise FilesMissing(name=path.name, files=str(path))
    if answer.report is None:
        raise InvalidLabels(path=path, why=answer.why)
    return answer.report


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the process says: a report, or why there is none."""

    report: LabelsReport | None = None
    why: str = ""
    missing: bool = False


def _check_closed(file: Any, path: Path) -> None:
    """Refuse whatever would make HDF5 read another file."""
    import h5py  # noqa: PLC0415 - not part of the base install

    count = 0
    todo: list[tuple[Any, int]] = [(file, 0)]
    while todo:
        group, depth = todo.pop()
        for name in group:
            count += 1
            if count > _MAX_OBJECTS or depth > _MAX_DEPTH:
                raise InvalidLabels(path=path, why="it holds too many objects")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise InvalidLabels(path=path, why=f"its entry {name!r} is a link")
            item = group[name]
            if isinstance(item, h5py.Group):
                todo.append((item, depth + 1))
            elif isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
                raise InvalidLabels(path=path, why=f"its entry {name!r} lies in another file")


def _read(file: Any, path: Path) -> LabelsReport:
    import h5py  # noqa: PLC0415 - not part of the base install

    for name in ("metadata", "frames", "instances", "points", "videos_json"):
        if name not in file:
            raise InvalidLabels(path=path, why=f"it has no {name!r}, as SLEAP label files have")
    frames, instances = file["frames"], file["instances"]
    if not isinstance(frames, h5py.Dataset) or not isinstance(instances, h5py.Dataset):
        raise InvalidLabels(path=path, why="its frames are no table")
    if frames.ndim != 1 or instances.ndim != 1:
        raise InvalidLabels(path=path, why="its frames are no table")
    return LabelsReport(
        nodes=_nodes(file, path),
        frames=int(frames.shape[0]),
        instances=int(instances.shape[0]),
        videos=_videos(file, path),
        origins=_origins(file, path),
    )


def _nodes(file: Any, path: Path) -> tuple[str, ...]:
    attributes = file["metadata"].attrs
    if "json" not in attributes or attributes.get_id("json").get_storage_size() > origins.MAX_JSON:
        raise InvalidLabels(path=path, why="its metadata is missing or too large")
    metadata = origins.parse(attributes["json"], path)
    match metadata:
        case {"skeletons": [{"nodes": [*references]}, *_], "nodes": [*entries]}:
            names = [str(e.get("name", "")) if isinstance(e, dict) else "" for e in entries]
        case _:
            raise InvalidLabels(path=path, why="it has no skeleton")
    ids = [reference.get("id") for reference in references if isinstance(reference, dict)]
    chosen = [index for index in ids if type(index) is int and 0 <= index < len(names)]
    if len(chosen) != len(references):  # References to objects, as old files have: all, in order.
        chosen = list(range(len(names)))
    if not 1 <= len(chosen) <= _MAX_NODES:
        raise InvalidLabels(path=path, why=f"its skeleton has {len(chosen)} points")
    nodes = tuple(names[index] for index in chosen)
    if not all(0 < len(name) <= _MAX_NAME for name in nodes) or len(set(nodes)) != len(nodes):
        raise InvalidLabels(path=path, why="its points have no usable names")
    return nodes


def _videos(file: Any, path: Path) -> tuple[VideoReference, ...]:
    rows = file["videos_json"]
    if rows.ndim != 1 or not 1 <= rows.shape[0] <= _MAX_VIDEOS:
        raise InvalidLabels(path=path, why="it names no video, or too many")
    if rows.dtype.itemsize > origins.MAX_JSON:
        raise InvalidLabels(path=path, why="its list of videos is too large")
    return tuple(
        _video(origins.parse(rows[index], path), file, path) for index in range(rows.shape[0])
    )


def _video(entry: Any, file: Any, path: Path) -> VideoReference:
    if not isinstance(entry, dict):
        raise InvalidLabels(path=path, why="its list of videos is damaged")
    backend = entry.get("backend")
    backend = backend if isinstance(backend, dict) else {}
    if "filenames" in backend or isinstance(entry.get("filename"), list):
        raise InvalidLabels(path=path, why="its video is a series of image files")
    named = backend.get("filename", entry.get("filename"))
    if not isinstance(named, str) or not named:
        raise InvalidLabels(path=path, why="it has a video without a name")
    _refuse_addresses(entry, path)
    if named == ".":
        dataset = str(backend.get("dataset", ""))
        if dataset not in file:
            raise InvalidLabels(path=path, why="it says that its images are inside, and has none")
        return VideoReference(path=_origin(file, dataset, path), embedded=True)
    return VideoReference(path=named, embedded=False)


def _origin(file: Any, dataset: str, path: Path) -> str:
    """Where embedded images were taken from."""
    source = file.get(dataset.removesuffix("/video") + "/source_video")
    if source is None or "json" not in source.attrs:
        return ""
    entry = origins.parse(source.attrs["json"], path)
    _refuse_addresses(entry, path)
    backend = entry.get("backend") if isinstance(entry, dict) else None
    named = backend.get("filename", "") if isinstance(backend, dict) else ""
    return named if isinstance(named, str) else ""


def _origins(file: Any, path: Path) -> tuple[str, ...]:
    """Every file that a reader may open for where images came from."""
    found: dict[str, None] = {}
    for text, _ in origins.descriptions(file):
        entry = origins.parse(text, path)
        if any(origins.names_in(entry)):
            _refuse_addresses(entry, path)
            found |= dict.fromkeys(origins.names_in(entry))
    rows = file["videos_json"]
    for index in range(rows.shape[0]):
        found |= dict.fromkeys(origins.earlier(origins.parse(rows[index], path)))
    if len(found) > origins.MAX_NAMES:
        raise InvalidLabels(path=path, why="its images come from too many files")
    return tuple(found)


def _refuse_addresses(entry: Any, path: Path) -> None:
    """Refuse addresses at any depth: the reader opens the videos that a video came from, too."""
    todo = [entry]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            todo.extend(item.values())
        elif isinstance(item, list):
            todo.extend(item)
        elif isinstance(item, str) and "://" in item:
            raise InvalidLabels(path=path, why=f"it names a video by address ({item[:80]!r})")


def _short(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:200]


def _main(path: Path) -> None:
    """Answer for :func:`inspect_labels`."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # noqa: PLC0415 - not on every system

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    try:
        answer = _Answer(report=read_labels(path))
    except FilesMissing:
        answer = _Answer(missing=True)
    except InvalidLabels as error:
        answer = _Answer(why=error.details["why"])
    except MemoryError:
        answer = _Answer(why="reading it takes too much memory")
    sys.stdout.buffer.write(msgspec.json.encode(answer))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
