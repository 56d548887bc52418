"""Aliases: one small file each, the only place that says what an alias names.

::

    .aliases/fly-v2                      {"name": "Fly-v2", "models": ["3f2a9c01"], "sequence": 4}
    centroid_3f2a9c01/.record/alias-fly-v2      empty: where to look when asked the other way round

The file's name is the casefolded alias, and it is made by a hard link: two
processes can't both make it, nor two spellings of one name. A hint is made
before its alias and believed only as far as the alias file agrees, so a crash
between the two leaves nothing false. Hints are never removed: one that leads
nowhere costs a look, and taking it away could hit the next holder of the name.

A model has one alias of its own. A process that crashed, or two at once, may
leave two: the higher sequence number wins (then the later name), and whoever
next sets an alias of the model removes the other.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
from loguru import logger
from msgspec import Meta

from sleap_rtc.domain import aliases as rules
from sleap_rtc.domain import values
from sleap_rtc.domain.ids import ModelId
from sleap_rtc.domain.models import Id, ModelRecord, Utc
from sleap_rtc.domain.values import Document
from sleap_rtc.errors import (
    AliasTaken,
    Busy,
    DataError,
    NewerFormat,
    NotFound,
    UnknownModel,
    UsageError,
)
from sleap_rtc.files.durable import (
    TEMPORARY,
    disk_errors,
    sync_directory,
    write_new,
    write_replacing,
)
from sleap_rtc.library.layout import ALIASES, RECORD, listing
from sleap_rtc.library.marks import changing
from sleap_rtc.library.records import HINT

_ATTEMPTS: Final = 100


class Alias(Document, frozen=True):
    """What an alias names.

    Attributes:
        name: As it was spelled.
        models: The model, or the two of a top-down pair in the order in which they run.
        sequence: Higher than that of any alias the models had before.
        changed_at: When it was set, UTC.
    """

    name: Annotated[str, Meta(min_length=1, max_length=rules.MAX_LENGTH)]
    models: Annotated[tuple[Id, ...], Meta(min_length=1, max_length=2)]
    sequence: Annotated[int, Meta(ge=0)]
    changed_at: Utc


class AliasChange(msgspec.Struct, frozen=True):
    """What setting an alias did.

    Attributes:
        alias: As it is now.
        before: The models it named before, empty if it was free.
    """

    alias: Alias
    before: tuple[ModelId, ...]


class Aliases:
    """The aliases of one library; any number of processes may use them at once."""

    def __init__(
        self,
        models: Path,
        *,
        clock: Callable[[], datetime],
        locate: Callable[[ModelId], Path | None],
        alive: Callable[[ModelId], bool],
    ) -> None:
        """Make the view; nothing is read or written yet.

        Args:
            models: The library.
            clock: The time now, UTC.
            locate: The directory of a model, deleted or not, None if it has none.
            alive: Whether a model exists and isn't deleted.
        """
        self._models = models
        self._folder = models / ALIASES
        self._clock = clock
        self._locate = locate
        self._alive = alive

    def lookup(self, name: str) -> Alias | None:
        """What an alias names, spelled exactly so; None if there is no such alias.

        Raises:
            DataError: Its file is damaged, or of a later format.
        """
        if rules.fault(name):
            return None
        _, alias = self._read(rules.key(name)) or (b"", None)
        return alias if alias and alias.name == name else None

    def of(self, model: ModelRecord, hints: Iterable[str]) -> str | None:
        """The alias of a model: its own, else its name in a pair, ``fly:centroid``.

        Args:
            model: The model.
            hints: Keys under which to look.
        """
        found = self._naming(model.id, hints)
        own = [alias for alias in found if len(alias.models) == 1]
        if own:
            return max(own, key=_rank).name
        return f"{max(found, key=_rank).name}:{model.model_type}" if found else None

    def all(self) -> tuple[Alias, ...]:
        """Every alias, by name; damaged ones are logged and left out."""
        read = (self._read_or_skip(key) for key in self.keys())
        return tuple(sorted((a for a in read if a), key=lambda alias: rules.key(alias.name)))

    def keys(self) -> list[str]:
        """The casefolded names of all aliases, in no order."""
        return [name for name in listing(self._folder) if not name.startswith(TEMPORARY)]

    def near(self, name: str) -> list[str]:
        """Aliases like a mistyped one, the nearest first."""
        hits = (self._read_or_skip(key) for key in rules.near(name, self.keys()))
        return [alias.name for alias in hits if alias]

    def set(self, name: str, models: tuple[ModelRecord, ...], *, force: bool) -> AliasChange:
        """Let an alias name a model or a pair.

        A model's former own alias is removed.

        Args:
            name: The alias.
            models: One model, or the two of a pair, of different types, in order.
            force: Take it from the model that has it now.

        Raises:
            InvalidName: Not a valid alias.
            AliasTaken: Another model has it, or one that differs only by case is there.
            UnknownModel: A model has no directory here.
            OutOfSpace: The disk is full; the alias is as it was.
        """
        rules.check(name)
        _check_group(models)
        directories = [self._directory(model.id) for model in models]
        with changing(self._models, [directory.name for directory in directories]):
            with disk_errors(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
            change = self._set(name, models, directories, force=force)
            if len(models) == 1:
                self._keep_one(models[0].id)
        return change

    def remove(self, name: str) -> Alias:
        """Remove an alias, spelled exactly so; the models stay.

        Returns:
            What it named.

        Raises:
            NotFound: There is no such alias.
        """
        key = rules.key(name)
        for _ in range(_ATTEMPTS):
            data, alias = (None if rules.fault(name) else self._read(key)) or (b"", None)
            if alias is None or alias.name != name:
                raise NotFound(
                    message=f"There is no alias {name!r} here.", hint=did_you_mean(self.near(name))
                )
            if self._drop(key, data, alias.models):
                return alias
        raise Busy(what=f"the alias {name!r}", by=", which changes it all the time")

    def remove_from(self, model: ModelRecord, hints: Iterable[str]) -> list[Alias]:
        """Remove every alias that names a model, pairs included, and return them."""
        removed = []
        for alias in self._naming(model.id, hints):
            with contextlib.suppress(NotFound):
                removed.append(self.remove(alias.name))
        return removed

    def _set(
        self, name: str, models: tuple[ModelRecord, ...], directories: list[Path], *, force: bool
    ) -> AliasChange:
        key = rules.key(name)
        ids = tuple(model.id for model in models)
        for _ in range(_ATTEMPTS):
            found = self._read(key, damaged_too=force)
            data, current = found or (None, None)
            before = current.models if current else ()
            if current and current.name == name and current.models == ids:
                self._hint(key, directories)
                return AliasChange(alias=current, before=ids)
            living = any(self._alive(model) for model in before)
            if current and living and not force:
                raise _taken(name, current)
            self._hint(key, directories)
            alias = Alias(
                name=name,
                models=ids,
                sequence=self._next_sequence(current, ids, directories),
                changed_at=self._clock(),
            )
            path, new = self._folder / key, values.encode(alias)
            if data is None:
                done = write_new(path, new)
            elif living or current is None:  # by force: one rename, so that it never names nothing
                with self._marked(before):
                    write_replacing(path, new)
                done = True
            else:  # it names nothing that lives, and two processes may see that at once
                done = self._drop(key, data, before) and write_new(path, new)
            if done:
                return AliasChange(alias=alias, before=before)
        raise Busy(what=f"the alias {name!r}", by=", which changes it all the time")

    def _next_sequence(
        self, current: Alias | None, ids: tuple[ModelId, ...], directories: list[Path]
    ) -> int:
        known = [] if current is None else [current]
        for model, directory in zip(ids, directories, strict=True):
            known += self._at(model, directory)
        return 1 + max((alias.sequence for alias in known), default=0)

    def _keep_one(self, model: ModelId) -> None:
        """Of all own aliases of a model keep the one with the highest sequence."""
        own = [a for a in self._at(model, self._directory(model)) if len(a.models) == 1]
        for alias in sorted(own, key=_rank)[:-1]:
            if self._drop(rules.key(alias.name), values.encode(alias), alias.models):
                logger.bind(alias=alias.name, model=model).info("a model's former alias is removed")

    def _at(self, model: ModelId, directory: Path) -> list[Alias]:
        """Every alias that names a model, found by the hints in its directory."""
        names = listing(directory / RECORD)
        return self._naming(model, (n.removeprefix(HINT) for n in names if n.startswith(HINT)))

    def _naming(self, model: ModelId, hints: Iterable[str]) -> list[Alias]:
        read = (self._read_or_skip(key) for key in hints)
        return [alias for alias in read if alias and model in alias.models]

    def _drop(self, key: str, data: bytes, models: tuple[ModelId, ...]) -> bool:
        """Remove an alias file if it still has this content."""
        path = self._folder / key
        aside = self._folder / f"{TEMPORARY}{secrets.token_hex(8)}"
        with self._marked(models), disk_errors(path):
            try:
                path.rename(aside)
            except FileNotFoundError:
                return False
            mine = aside.read_bytes() == data
            if not mine:  # another process has set it since: give it back
                with contextlib.suppress(FileExistsError):
                    os.link(aside, path)
            aside.unlink()
            sync_directory(self._folder)
            return mine

    def _hint(self, key: str, directories: Iterable[Path]) -> None:
        for directory in directories:
            path = directory / RECORD / f"{HINT}{key}"
            with disk_errors(path):
                try:
                    path.touch(exist_ok=False)
                except FileExistsError:
                    continue
                sync_directory(path.parent)

    def _directory(self, model: ModelId) -> Path:
        directory = self._locate(model)
        if directory is None:
            raise UnknownModel(name=model)
        return directory

    def _marked(self, models: Iterable[ModelId]) -> contextlib.AbstractContextManager[None]:
        found = (self._locate(model) for model in models)
        return changing(self._models, [directory.name for directory in found if directory])

    def _read(self, key: str, *, damaged_too: bool = False) -> tuple[bytes, Alias | None] | None:
        """An alias file's content, and what it says; None without such a file."""
        path = self._folder / key
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return data, values.decode(Alias, data, what=str(path))
        except NewerFormat:
            raise
        except DataError:
            if not damaged_too:
                raise
            return data, None

    def _read_or_skip(self, key: str) -> Alias | None:
        try:
            found = self._read(key)
        except DataError as error:
            logger.bind(alias=key, why=str(error)).warning("an alias that can't be read is skipped")
            return None
        return found[1] if found else None


def did_you_mean(names: list[str]) -> str | None:
    """A hint that suggests names, None without any, so that the error's own hint stands."""
    return f"Did you mean {' or '.join(names)}?" if names else None


def _rank(alias: Alias) -> tuple[int, str]:
    return alias.sequence, rules.key(alias.name)


def _check_group(models: tuple[ModelRecord, ...]) -> None:
    if not 1 <= len(models) <= 2:
        raise UsageError(message="an alias names one model, or the two of a top-down pair")
    if len({model.model_type for model in models}) != len(models):
        raise UsageError(
            message=f"two models of type {models[0].model_type} are not a pair; "
            "a top-down pair is a centroid and a centered_instance model"
        )


def _taken(name: str, current: Alias) -> AliasTaken:
    owner = " and ".join(current.models)
    if current.name != name:
        owner += f" (as {current.name!r}, which differs only by case)"
    return AliasTaken(alias=name, owner=owner)
