"""Looking into checkpoints before an engine loads them: loading a pickle can run anything.

A checkpoint is never unpickled here. Its pickles are read instruction by
instruction (by picklescan), which tells every name that they would import. The
file is clean if all of them are names that trainers' checkpoints consist of:
tensors, containers, configuration classes. Anything else, a fault in the file,
or a format that isn't known, is for a person to decide.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

MAX_SHOWN: Final = 5

_KNOWN: Final = re.compile(
    r"""
    torch\ (?:\w+Storage|Size|device|float(?:16|32|64)|bfloat16|u?int(?:8|16|32|64)|bool)
    | torch\._utils\ _rebuild_(?:tensor_v2|parameter)
    | collections\ (?:OrderedDict|defaultdict|Counter)
    | (?:builtins|__builtin__)\ (?:bool|int|long|float|complex|str|unicode|bytes|bytearray
        |list|tuple|dict|set|frozenset|slice|object)
    | typing\ (?:Any|Dict|List|Tuple|Optional|Union)
    | _operator\ getitem
    | numpy\ (?:dtype|ndarray)
    | numpy\.(?:_core|core)\.multiarray\ (?:scalar|_reconstruct)
    | omegaconf\.(?:base|nodes|dictconfig|listconfig)\ [A-Z]\w*
    | sleap_nn\.config\.\w+\ [A-Z]\w*
    | pathlib\ (?:Pure)?(?:Posix|Windows)?Path
    """,
    re.VERBOSE,
)
"""Module and name of everything that a trainer's checkpoint may import."""

_WITHOUT_PICKLES: Final = (".npz", ".safetensors")
"""Formats that our engines read without unpickling anything."""
_NEVER_LOADED: Final = frozenset(
    {
        *_WITHOUT_PICKLES,
        *(".yaml", ".yml", ".json", ".csv", ".txt", ".log", ".md"),
        *(".png", ".jpg", ".slp", ".h5"),
    }
)
"""Endings of a model's files that no engine unpickles."""


class Verdict(msgspec.Struct, frozen=True):
    """What a look into a file found.

    Attributes:
        clean: Whether nothing in it is out of the ordinary.
        found: What is, in words for a person.
    """

    clean: bool
    found: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """What was found, in one line."""
        more = len(self.found) - MAX_SHOWN
        rest = f" and {more} more" if more > 0 else ""
        return ", ".join(self.found[:MAX_SHOWN]) + rest


def loadable(paths: Iterable[str]) -> tuple[str, ...]:
    """Those of a model's files that an engine may unpickle.

    Which of them is its checkpoint is only what the model's record says, and a record from
    elsewhere may say anything: the trainer loads ``best.ckpt`` whatever is written there.
    """
    return tuple(sorted({p for p in paths if PurePosixPath(p).suffix.lower() not in _NEVER_LOADED}))


def scan(path: Path) -> Verdict:
    """Look into a checkpoint. Reads it, runs nothing of it.

    Args:
        path: The file.
    """
    if path.suffix in _WITHOUT_PICKLES:
        return Verdict(clean=True)
    from picklescan.scanner import scan_file_path  # noqa: PLC0415 - only where a model is used

    unreadable = Verdict(clean=False, found=("it can't be read as a checkpoint",))
    try:
        result = scan_file_path(str(path))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return unreadable
    names = {(found.module, found.name) for found in result.globals}
    strange = sorted(f"{m}.{n}" for m, n in names if _KNOWN.fullmatch(f"{m} {n}") is None)
    if strange:
        return Verdict(clean=False, found=tuple(f"it would import {name}" for name in strange))
    # Today's trainers write a zip with one pickle; what is cut or odd is not for us to bless.
    whole = zipfile.is_zipfile(path) and not result.scan_err and result.scanned_files > 0
    return Verdict(clean=True) if whole else unreadable
