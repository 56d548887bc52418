"""Where a label file says that its embedded images came from.

A reader of labels opens those files, too, where they exist: also files that have
nothing to do with the labels. On a worker the labels are a stranger's, so what
they name there is taken out of them before a trainer sees them (:func:`seal`);
the images themselves are untouched. A description of a video is JSON::

    {"filename": …, "backend": {"filename": … | "filenames": […], …},
     "source_video": {…}, "original_video": {…}}

in an attribute or a dataset ``json`` of whatever group an embedded video names.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final, TypeGuard

import msgspec

from sleap_rtc.errors import InvalidLabels

MAX_JSON: Final = 64 * 1024 * 1024
"""Bytes of the largest JSON that is read from a label file."""
MAX_NAMES: Final = 10_000
"""Names that are told of one file."""
TIMEOUT_S: Final = 120.0

_DEPTH: Final = 16
EARLIER: Final = ("source_video", "original_video")
"""Keys of a description under which there is the one of the video that it came from."""


def last_part(path: str) -> str:
    """The last part of a path, whichever system wrote it."""
    return PureWindowsPath(PurePosixPath(path).name).name


def names_in(entry: Any, depth: int = 0) -> Iterator[str]:
    """Every file that a description names, of the video and of those that it came from."""
    if not isinstance(entry, dict) or depth > _DEPTH:
        return
    backend = entry.get("backend")
    for place in (entry, backend if isinstance(backend, dict) else {}):
        for key in ("filename", "filenames"):
            value = place.get(key)
            yield from (n for n in (value if isinstance(value, list) else [value]) if _is_name(n))
    for key in EARLIER:
        yield from names_in(entry.get(key), depth + 1)


def without_folders(entry: Any, depth: int = 0) -> Any:
    """The same description, with files named by the last part of their paths."""
    if not isinstance(entry, dict):
        return entry
    if depth > _DEPTH:
        return {}
    changed = {
        key: without_folders(value, depth + 1) if key in (*EARLIER, "backend") else value
        for key, value in entry.items()
    }
    for key in ("filename", "filenames"):
        value = changed.get(key)
        if isinstance(value, list):
            changed[key] = [last_part(n) if _is_name(n) else n for n in value]
        elif _is_name(value):
            changed[key] = last_part(value)
    return changed


def _is_name(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and value not in ("", ".")


def descriptions(file: Any) -> Iterator[tuple[Any, Callable[[bytes], None]]]:
    """What a reader may take for the description of where a video came from.

    The file is known to be closed: it has no links, and no more objects than allowed.

    Yields:
        The JSON's text, and what writes another in its place.
    """
    import h5py  # noqa: PLC0415 - not part of the base install

    todo = [file]
    while todo:
        group = todo.pop()
        for name in group:
            item = group[name]
            if isinstance(item, h5py.Group):
                todo.append(item)
            if "json" in item.attrs:
                yield item.attrs["json"], _attribute(item)
            if isinstance(item, h5py.Dataset) and name == "json" and item.shape == ():
                yield item[()] if item.dtype.itemsize <= MAX_JSON else b"", _dataset(group)


def earlier(entry: Any) -> Iterator[str]:
    """Every file that a video came from, by its own description."""
    if isinstance(entry, dict):
        for key in EARLIER:
            yield from names_in(entry.get(key))


def _attribute(item: Any) -> Callable[[bytes], None]:
    return lambda text: item.attrs.__setitem__("json", text.decode())


def _dataset(group: Any) -> Callable[[bytes], None]:
    import numpy as np  # noqa: PLC0415 - comes with h5py

    def write(text: bytes) -> None:
        del group["json"]
        group.create_dataset("json", data=np.bytes_(text))

    return write


def parse(text: Any, path: Path) -> Any:
    """The value of a JSON in a label file.

    Raises:
        InvalidLabels: It is none, or too large.
    """
    data = text.encode() if isinstance(text, str) else bytes(text)
    if len(data) > MAX_JSON:
        raise InvalidLabels(path=path, why="a part of it is too large")
    try:
        return msgspec.json.decode(data.rstrip(b"\x00"))
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidLabels(path=path, why=f"a part of it is not JSON ({error})") from None


def outside(names: Iterable[str], labels: Path) -> list[str]:
    """Those of these names that lead to files of this machine, but for files beside the labels.

    Args:
        names: As a label file has them.
        labels: The label file.
    """
    found = []
    for name in names:
        # The reader of labels takes a backslash for a slash on every system.
        path = Path(name.replace("\\", "/"))
        if ".." in path.parts:
            found.append(name)
            continue
        if not path.is_absolute():
            continue  # looked for where a trainer runs, or beside the labels: folders of the job
        with contextlib.suppress(OSError, ValueError):
            beside = labels.parent / last_part(name)
            if path.exists() and not (beside.exists() and path.samefile(beside)):
                found.append(name)
    return found


async def seal(labels: Path, target: Path) -> None:
    """Write a label file without the folders of other files that it names.

    Args:
        labels: The file; it isn't changed.
        target: The new one, which appears whole; its folder is made.

    Raises:
        InvalidLabels: It can't be done.
        OSError: There is no room for it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    copy = target.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        await asyncio.to_thread(shutil.copyfile, labels, copy)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-m", "sleap_rtc.media.origins", str(copy)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            code = await asyncio.wait_for(process.wait(), TIMEOUT_S)
        except TimeoutError:
            code = -1
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if code != 0:
            why = "what it says of its images' origin can't be taken out"
            raise InvalidLabels(path=labels, why=why)
        copy.replace(target)
    finally:
        copy.unlink(missing_ok=True)


def _without_earlier_folders(video: dict[str, Any]) -> dict[str, Any]:
    return {k: without_folders(v) if k in EARLIER else v for k, v in video.items()}


def _main(path: Path) -> None:
    import os  # noqa: PLC0415 - for this process alone

    import h5py  # noqa: PLC0415 - not part of the base install

    with h5py.File(path, "r+") as file:
        for text, write in list(descriptions(file)):
            entry = parse(text, path)
            if any(names_in(entry)):
                write(msgspec.json.encode(without_folders(entry)))
        rows = file["videos_json"]
        videos = [parse(rows[index], path) for index in range(rows.shape[0])]
        if any(name for video in videos for name in earlier(video)):
            texts = [msgspec.json.encode(_without_earlier_folders(video)) for video in videos]
            del file["videos_json"]
            file.create_dataset("videos_json", data=texts, dtype=h5py.string_dtype())
    with path.open("rb") as done:
        os.fsync(done.fileno())


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
