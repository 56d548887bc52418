"""How a person wants models to be imported, and the names that come of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from sleap_rtc.domain import aliases
from sleap_rtc.errors import UsageError
from sleap_rtc.library.layout import KNOWN_TYPES

_TYPE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_NOT_IN_ALIAS: Final = re.compile(r"[^\w.-]+")
_REFERENCES: Final = {
    "hf://": "Models of Hugging Face",
    "wandb://": "Models of Weights & Biases",
    "http://": "Models at web addresses",
    "https://": "Models at web addresses",
}


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """How to import.

    Attributes:
        copy: By copies instead of links.
        recursive: Every model in folders below.
        trust: A person says yes to whatever is found in the files.
        model_type: The head, where nothing tells it; of one model, not of many below a folder, also
            against what its configuration says.
        alias: The alias of the model, or of the two of a top-down pair; None makes one of its name.
    """

    copy: bool = False
    recursive: bool = False
    trust: bool = False
    model_type: str | None = None
    alias: str | None = None


def check_wishes(wishes: Wishes, paths: Sequence[Path]) -> None:
    """See that wishes and paths can go together.

    Raises:
        UsageError: They can't.
        InvalidName: The alias isn't one.
    """
    if not paths:
        raise UsageError(message="Name a folder, a file of weights, or an archive.")
    for path in paths:
        for beginning, what in _REFERENCES.items():
            # A path has lost one of its two slashes.
            if str(path).startswith((beginning, beginning.replace("//", "/"))):
                raise UsageError(
                    message=f"{what} can't be imported by this version.",
                    hint="Download it, and import the folder or the file.",
                )
    if wishes.model_type is not None:
        check_type(wishes.model_type)
    if wishes.alias is not None:
        aliases.check(wishes.alias)
        if wishes.recursive or len(paths) > 2:
            raise UsageError(
                message="One alias can name one model, or the two of a top-down pair.",
                hint="Leave --alias out: each model is called as its folder.",
            )


def check_type(model_type: str) -> None:
    """See that a model type is of the right form.

    Raises:
        UsageError: It isn't; the known ones are told.
    """
    if _TYPE.fullmatch(model_type) is None:
        raise UsageError(
            message=f"{model_type[:80]!r} is no model type: lower-case letters, digits and _.",
            hint=f"The trainer's are {', '.join(KNOWN_TYPES)}.",
        )


def archive_stem(path: Path) -> str:
    """An archive's name without its endings."""
    name = path.name
    for ending in (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz"):
        if name.lower().endswith(ending):
            stem = name[: -len(ending)]
            return stem.removesuffix(".tar")
    return path.stem


def proposed_alias(name: str) -> str:
    """A valid alias like a folder's name; empty where none can be made of it."""
    made = _NOT_IN_ALIAS.sub("-", name).strip("-. ")
    while made and (len(made) > aliases.MAX_LENGTH or aliases.fault(made).endswith("bytes")):
        made = made[:-1].rstrip("-.")
    return "" if aliases.fault(made) else made
