"""What the shell proposes: models, aliases, tags, workers and rooms.

A person waits for it at each press of TAB, so nothing of the library is
imported: names are read straight from the files that hold them (``layout`` and
``auth/store`` draw these), a few of them, and whatever can't be read is left
out. Nothing is asked over the network: workers are those that were met before,
or that a model is known to be on.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import click

MOST: Final = 60
"""Names that are proposed at most."""
MAX_BYTES: Final = 1_000_000
"""Of a file that is read."""
LOOK_S: Final = 0.5
"""Seconds for which records are looked at, where none of many may fit."""

_MODEL: Final = re.compile(r"([a-z][a-z0-9_]*)_([0-9a-f]{8}(?:-[0-9]{1,4})?)")
_REVISION: Final = re.compile(r"[0-9]{8}\.json")

Proposal = tuple[str, str]
"""A name, and a word about it."""


class Named(click.ParamType):  # type: ignore[type-arg]
    """A text that names something which the shell can propose."""

    name = "text"

    def __init__(self, propose: Callable[[str, str], Iterable[Proposal]]) -> None:
        self._propose = propose

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The text as it is."""
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[Any]:
        """What the text may become."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - only for the shell

        found: dict[str, str] = {}
        for name, about in self._propose(_home(ctx), incomplete):
            found.setdefault(name, about)
            if len(found) == MOST:
                break
        return [CompletionItem(name, help=about or None) for name, about in found.items()]


def models(home: str, beginning: str) -> Iterator[Proposal]:
    """Aliases, and ids once a digit of one is typed."""
    library = os.path.join(home, "models")
    folder = os.path.join(library, ".aliases")
    for key in _names(folder, beginning.casefold()):
        alias = _newest(os.path.join(folder, key))
        name, named = alias.get("name"), alias.get("models")
        if isinstance(name, str) and name.startswith(beginning) and named:
            yield name, "pair" if isinstance(named, list) and len(named) > 1 else ""
    if beginning:
        for directory in _names(library):
            match = _MODEL.fullmatch(directory)
            if match is not None and match[2].startswith(beginning):
                record = _newest(os.path.join(library, directory, ".record"))
                if record and record.get("deleted_at") is None:
                    yield match[2], match[1]


def deleted(home: str, beginning: str) -> Iterator[Proposal]:
    """Ids of models that were deleted, with what they are."""
    library = os.path.join(home, "models")
    ends = time.monotonic() + LOOK_S
    for directory in _names(library):
        if time.monotonic() > ends:
            return
        match = _MODEL.fullmatch(directory)
        if match is not None and match[2].startswith(beginning):
            record = _newest(os.path.join(library, directory, ".record"))
            if record.get("deleted_at") is not None:
                yield match[2], match[1]


def rooms(home: str, beginning: str) -> Iterator[Proposal]:
    """Rooms that this device is in, by their names."""
    for folder in _room_folders(home):
        name = _read(os.path.join(folder, "room.json")).get("name")
        if isinstance(name, str) and name.startswith(beginning):
            yield name, ""


def workers(home: str, beginning: str) -> Iterator[Proposal]:
    """Workers that this device has met."""
    for folder in _room_folders(home):
        met = os.path.join(folder, "workers")
        for file in _names(met):
            name = _read(os.path.join(met, file)).get("name")
            if isinstance(name, str) and name.startswith(beginning):
                yield name, ""


def places(home: str, beginning: str) -> Iterator[Proposal]:
    """Workers and rooms."""
    yield from workers(home, beginning)
    yield from rooms(home, beginning)


DELETED: Final = Named(deleted)
MODEL: Final = Named(models)
PLACE: Final = Named(places)
ROOM: Final = Named(rooms)
WORKER: Final = Named(workers)

BY_OPTION: Final = {
    "--at": PLACE,
    "--model": MODEL,
    "--resume": MODEL,
    "--room": ROOM,
    "--worker": WORKER,
}
"""Options that name something, whichever command has them."""


def add_proposals(command: click.Command) -> None:
    """Let the shell propose values for a command's options."""
    for param in command.params:
        for option in param.opts:
            if option in BY_OPTION and param.type is click.STRING:
                param.type = BY_OPTION[option]


def _home(ctx: click.Context) -> str:
    app = ctx.find_root().obj
    given = getattr(app, "flags", {}).get("home")
    home = given or os.environ.get("SLEAP_RTC_HOME") or "~/.sleap-rtc"
    return os.path.expanduser(os.fspath(home))


def _room_folders(home: str) -> Iterator[str]:
    devices = os.path.join(home, "devices")
    for host in _names(devices):
        rooms = os.path.join(devices, host, "rooms")
        for room in _names(rooms):
            yield os.path.join(rooms, room)


def _names(folder: str, beginning: str = "") -> list[str]:
    """What is in a folder, in order; nothing where it can't be read."""
    try:
        return sorted(name for name in os.listdir(folder) if name.startswith(beginning))
    except OSError:
        return []


def _newest(chain: str) -> dict[str, Any]:
    """The highest revision of a chain; empty where it can't be read."""
    numbers = [name for name in _names(chain) if _REVISION.fullmatch(name)]
    return _read(os.path.join(chain, numbers[-1])) if numbers else {}


def _read(path: str) -> dict[str, Any]:
    import json  # noqa: PLC0415 - --help of the commands over the library stays quick

    try:
        with open(path, "rb") as file:
            plain = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return plain if isinstance(plain, dict) else {}
