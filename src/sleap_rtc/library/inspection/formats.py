r"""Which format a file of weights has, by its content; whether it is whole; what it might run.

============  =======================  ==========================================  ========
format        begins with              whole means                                 may run
============  =======================  ==========================================  ========
torch         zip with ``data.pkl``    each tensor's bytes are there               pickle
lightning     the same, by Lightning
torch-old     pickle of a number       five pickles, then each tensor's bytes      pickle
pickle        pickle                   it ends where the file ends                 pickle
keras         zip                      its three members are there                 Lambda
hdf5          ``\x89HDF``               as long as its first block says             Lambda
npz           zip of ``.npy``          the zip is                                  objects
safetensors   length and ``{``         tensors fill it without gaps                nothing
gguf          ``GGUF``                 its last tensor ends inside                 nothing
onnx          protobuf                 its fields end where it ends                nothing
============  =======================  ==========================================  ========

A file whose ending belongs to another format is not safe: a program that goes
by the ending would read it as something that it isn't.
"""

from __future__ import annotations

import contextlib
import os
import tarfile
import zipfile
from pathlib import Path, PurePath
from typing import Final, Literal

import msgspec

from sleap_rtc.domain.models import Tier
from sleap_rtc.errors import Damaged
from sleap_rtc.files.beneath import open_file
from sleap_rtc.library.inspection import hdf5, onnx, pickles, tensors, zips
from sleap_rtc.library.inspection.content import Content

Format = Literal[
    "torch",
    "lightning",
    "torch-old",
    "pickle",
    "keras",
    "hdf5",
    "npz",
    "safetensors",
    "gguf",
    "onnx",
    "zip",
    "unknown",
]

_OWN_ENDINGS: Final[dict[Format, tuple[str, ...]]] = {
    "keras": (".keras",),
    "hdf5": (".h5", ".hdf5"),
    "npz": (".npz",),
    "safetensors": (".safetensors",),
    "gguf": (".gguf",),
    "onnx": (".onnx",),
}
_SMALLEST: Final = 16
_TORCH_PARTS: Final = 5
_KERAS: Final = frozenset({"config.json", "metadata.json", "model.weights.h5"})
_NPY: Final = b"\x93NUMPY"
_MAX_CONFIG: Final = 16 * 1024 * 1024
_POINTERS: Final = {
    b"version https://git-lfs": "it is a pointer of Git LFS, not the file; run: git lfs pull",
    b"/annex/objects/": "it is a pointer of git-annex, not the file; run: git annex get",
    b"<!DOCTYPE": "it is a web page, not the file that was to be downloaded",
    b"<html": "it is a web page, not the file that was to be downloaded",
}


class Looked(msgspec.Struct, frozen=True):
    """What a look into a file found.

    Attributes:
        format: Its format.
        tier: How far it may be trusted.
        found: What is out of the ordinary, in words for a person, worst first.
        beside: Names of files beside it that hold a part of its weights, as it spells them.
        weights: Whether it holds weights, as far as that can be told.
        epoch: The epoch that a trainer's checkpoint names, counted from 0.
    """

    format: Format
    tier: Tier
    found: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    weights: bool = True
    epoch: int | None = None

    @property
    def sentence(self) -> str:
        """What was found, in one line."""
        more = len(self.found) - _SHOWN
        rest = f" and {more} more" if more > 0 else ""
        return (", ".join(self.found[:_SHOWN]) + rest)[:1_000]


_SHOWN: Final = 5


def look(path: Path, *, name: str | None = None) -> Looked:
    """Look into a file. Nothing in it is run or loaded.

    Args:
        path: The file; a link in the last part of its path is refused.
        name: What it is called where it is used; by default the last part of its path.

    Raises:
        Damaged: It was cut, or contradicts itself.
        UnsafePath: A link, or no regular file.
        OSError: It can't be read.
    """
    name = path.name if name is None else name
    suffix = PurePath(name).suffix.lower()
    fd = open_file(path)
    try:
        looked = _look(Content(fd, name), path, suffix)
    finally:
        os.close(fd)
    endings = _OWN_ENDINGS.get(looked.format)
    if endings is None or suffix in endings or looked.tier != "safe":
        return looked
    why = f"it is {looked.format} by its content, and its name says {suffix or 'nothing'}"
    return msgspec.structs.replace(looked, tier="unknown", found=(why,))


def _look(content: Content, path: Path, suffix: str) -> Looked:
    head = content.head(512)
    if content.size < _SMALLEST:
        why = "it is empty" if not content.size else f"it has {content.size} bytes and no more"
        raise content.damaged(why)
    for mark, why in _POINTERS.items():
        if head.startswith(mark):
            raise content.damaged(why)
    if head.startswith(zips.MAGIC):
        return _look_into_zip(content, path)
    if head.startswith(b"GGUF"):
        tensors.check_gguf(content)
        return Looked(format="gguf", tier="safe")
    if hdf5.find(content) is not None:
        hdf5.check(content)
        weights, code = hdf5.look_through(content)
        return _keras("hdf5", code=code, weights=weights)
    if tensors.is_safetensors(head):
        tensors.check_safetensors(content)
        return Looked(format="safetensors", tier="safe")
    if head[0] == 0x80 and head[1] <= 5:
        return _look_into_pickles(content, head)
    if onnx.may_be(head):
        with contextlib.suppress(Damaged):
            return Looked(format="onnx", tier="safe", beside=onnx.check(content))
    named = next((kind for kind, own in _OWN_ENDINGS.items() if suffix in own), None)
    if named is not None:
        raise content.damaged(f"it is not {named}, as its name says; it may have been cut")
    return Looked(format="unknown", tier="unknown", found=("its format isn't known",))


def _keras(kind: Format, *, code: bool, weights: bool = True) -> Looked:
    found = ("it has a Lambda layer, which is Python code",) if code else ()
    return Looked(format=kind, tier="flagged" if code else "safe", found=found, weights=weights)


# ── zips ─────────────────────────────────────────────────────────────────────


def _look_into_zip(content: Content, path: Path) -> Looked:
    with zips.opened(content, path) as archive:
        names = set(archive.namelist())
        root = next((n.removesuffix("data.pkl") for n in names if n.endswith("/data.pkl")), None)
        if root is not None and root.count("/") == 1:
            return _look_into_torch(content, archive, root)
        if names >= _KERAS:
            config = zips.read(archive, "config.json", limit=_MAX_CONFIG)
            return _keras("keras", code=hdf5.LAMBDA.search(config) is not None)
        if all(name.endswith(".npy") for name in names):
            return _look_into_npz(archive)
    return Looked(format="zip", tier="unknown", found=("it is an archive",), weights=False)


def _look_into_torch(content: Content, archive: zipfile.ZipFile, root: str) -> Looked:
    data = zips.read(archive, f"{root}data.pkl", limit=pickles.MAX_PICKLE)
    walked = pickles.walk(data)
    strange = list(walked.strange)
    if walked.end != len(data):
        strange.append("something follows its pickle")
    if any(name.startswith(f"{root}code/") or name == f"{root}constants.pkl" for name in
           archive.namelist()):  # fmt: skip
        strange.insert(0, "it is a TorchScript program")
    for key, (kind, items) in walked.storages.items():
        size = pickles.ITEM_SIZES.get(kind, 0) * items
        try:
            member = archive.getinfo(f"{root}data/{key}")
        except KeyError:
            raise content.damaged(f"its tensor {key[:40]!r} is missing") from None
        if member.file_size < size:
            raise content.damaged(f"its tensor {key[:40]!r} is too short")
    lightning = "pytorch-lightning_version" in walked.strings
    return Looked(
        format="lightning" if lightning else "torch",
        tier="flagged" if strange else "scanned",
        found=tuple(strange),
        epoch=walked.epoch,
    )


def _look_into_npz(archive: zipfile.ZipFile) -> Looked:
    strange = False
    for name in archive.namelist():
        with archive.open(name) as member:
            head = member.read(1_024)
        # An array of objects is a pickle; its header says '|O', or a structure with one in it.
        strange = strange or not head.startswith(_NPY) or b"O'" in head.partition(b"}")[0]
    found = ("it holds pickled objects",) if strange else ()
    return Looked(format="npz", tier="flagged" if strange else "safe", found=found)


# ── pickles ──────────────────────────────────────────────────────────────────


def _look_into_pickles(content: Content, head: bytes) -> Looked:
    data = content.head(pickles.MAX_PICKLE)
    try:
        first = pickles.walk(data)
        if first.number == pickles.TORCH_MAGIC and first.end < len(data):
            return _look_into_old_torch(content, data, first, head)
    except ValueError as error:
        raise content.damaged(f"its pickle can't be read ({error})") from None
    strange = list(first.strange)
    if first.end != content.size:
        strange.append("something follows its pickle")
    return Looked(
        format="pickle",
        tier="flagged" if strange else "scanned",
        found=tuple(strange),
        epoch=first.epoch,
        weights=bool(first.storages),
    )


def _look_into_old_torch(
    content: Content, data: bytes, first: pickles.Walked, head: bytes
) -> Looked:
    """Magic number, protocol, system, content, names of storages; then each storage's bytes."""
    parts = [first]
    while len(parts) < _TORCH_PARTS:
        parts.append(pickles.walk(data, parts[-1].end))
    strange = sorted({name for part in parts for name in part.strange})
    with contextlib.suppress(tarfile.TarError):
        tarfile.TarInfo.frombuf(head[:512].ljust(512, b"\0"), "utf-8", "surrogateescape")
        strange.insert(0, "it can be read as another kind of file too")
    at = parts[-1].end
    for key in parts[4].texts:
        kind, items = parts[3].storages.get(key, ("", 0))
        told = int.from_bytes(content.at(at, 8), "little", signed=True)
        if told != items or items < 0:
            raise content.damaged(f"its tensor {key[:40]!r} has another size than it says")
        at += 8 + items * pickles.ITEM_SIZES.get(kind, 1)
        if at > content.size:
            raise content.ends()
    if set(parts[3].storages) - set(parts[4].texts):
        raise content.damaged("tensors are missing in it")
    return Looked(
        format="torch-old",
        tier="flagged" if strange else "scanned",
        found=tuple(strange),
        epoch=parts[3].epoch,
    )
