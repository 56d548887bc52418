"""Aliases: a small chain of revisions each, the only place that says what an alias names.

::

    .aliases/fly-v2/00000002.json     {"name": "Fly-v2", "models": ["3f2a9c01"], "sequence": 4, …}
    centroid_3f2a9c01/.record/alias-fly-v2    empty: where to look when asked the other way round

The folder's name is the casefolded alias, so two spellings of a name are one,
and the chain decides who is first, also when a name is moved or removed (which
a plain file could not: between looking at it and replacing it anything may have
happened). A removed alias is a revision that names nothing.

A hint is made before its alias and believed only as far as the alias agrees, so
a crash between the two leaves nothing false. Hints are never removed: one that
leads nowhere costs a look, and taking it away could hit the next holder.

A model has one alias of its own. A process that crashed, or two at once, may
leave two: the higher sequence number wins (then the later name), and whoever
next sets an alias of the model removes the other.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import islice
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
    DataError,
    NewerFormat,
    NotFound,
    SleapRtcError,
    UnknownModel,
    UsageError,
)
from sleap_rtc.files.durable import disk_errors, make_directory, sync_directory
from sleap_rtc.library import chain
from sleap_rtc.library.layout import ALIASES, RECORD, listing
from sleap_rtc.library.marks import changing
from sleap_rtc.library.naming import suggestions
from sleap_rtc.library.records import HINT

_NEAR: Final = 3
"""Aliases that are suggested for a mistyped one."""
_REMOVED: Final = 5
"""Near ones that are looked at beyond these, since some may be removed."""


class Alias(Document, frozen=True):
    """What an alias names.

    Attributes:
        name: As it was spelled.
        models: The model, or the two of a top-down pair in the order in which they run; none
            once the alias was removed.
        sequence: Higher than that of any alias the models had before.
        changed_at: When it was set, UTC.
    """

    name: Annotated[str, Meta(min_length=1, max_length=rules.MAX_LENGTH)]
    models: Annotated[tuple[Id, ...], Meta(max_length=2)]
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
        found = self._read(rules.key(name))
        return found.value if found and found.value.name == name and found.value.models else None

    def of(self, model: ModelRecord, hints: Iterable[str]) -> str | None:
        """The alias of a model: its own, else its name in a pair, ``fly:centroid``.

        Args:
            model: The model.
            hints: Keys under which to look.
        """
        found = self._naming(model.id, hints)
        own = [alias for alias in found if len(alias.models) == 1]
        if own:
            return max(own, key=rank).name
        return f"{max(found, key=rank).name}:{model.model_type}" if found else None

    def all(self) -> tuple[Alias, ...]:
        """Every alias, by name; damaged ones are logged and left out."""
        read = (self._read_or_skip(key) for key in self.keys())
        return tuple(sorted((a for a in read if a), key=lambda alias: rules.key(alias.name)))

    def each(self) -> Iterator[tuple[str, Alias | DataError]]:
        """Every alias that names something, with its key, in no order; or why it can't be read."""
        for key in self.keys():
            try:
                found = self._read(key)
            except DataError as error:
                yield key, error
                continue
            if found is not None and found.value.models:
                yield key, found.value

    def keys(self) -> list[str]:
        """The casefolded names of all aliases, in no order, removed ones too."""
        return listing(self._folder)

    def was_used(self, name: str) -> bool:
        """Whether something was ever called so, whatever the case."""
        return os.path.lexists(self._folder / rules.key(name))

    def near(self, name: str) -> list[str]:
        """Aliases like a mistyped one, the nearest first."""
        keys = rules.near(name, self.keys(), most=_NEAR + _REMOVED)
        hits = (self._read_or_skip(key) for key in keys)
        return list(islice((alias.name for alias in hits if alias), _NEAR))

    def suggest(self, name: str, model: ModelId | None) -> tuple[str, ...]:
        """Free aliases near one that is taken.

        Args:
            name: The alias; nothing is near one that isn't valid.
            model: The model that it would name, None for a pair.
        """
        if rules.fault(name):
            return ()
        today = self._clock().date()
        return suggestions(name, taken=self._in_use, today=today, model=model)

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
            DataError: What the alias says can't be read, and ``force`` is not given.
            OutOfSpace: The disk is full; the alias is as it was.
        """
        rules.check(name)
        _check_group(models)
        ids = tuple(model.id for model in models)
        directories = [self._directory(model) for model in ids]
        change = self._set(name, ids, directories, force=force)
        if len(ids) == 1:
            try:
                self._keep_one(ids[0], directories[0])
            except (SleapRtcError, OSError) as error:
                # The alias is set; a former one that can't be removed now is only second to it.
                logger.bind(alias=name, why=str(error)).warning("a former alias was not removed")
        return change

    def remove(self, name: str, *, since: datetime | None = None) -> Alias:
        """Remove an alias, spelled exactly so; the models stay.

        Args:
            name: The alias.
            since: It isn't said to be gone before this, whatever the clock says.

        Returns:
            What it named.

        Raises:
            NotFound: There is no such alias.
        """
        for _ in range(chain.ATTEMPTS):
            found = None if rules.fault(name) else self._read(rules.key(name))
            if found is None or found.value.name != name or not found.value.models:
                raise NotFound(
                    message=f"There is no alias {name!r} here.", hint=did_you_mean(self.near(name))
                )
            gone = self._without_models(found.value, since)
            if self._append(found.top, gone, found.value.models):
                return found.value
        raise chain.busy(self._folder / rules.key(name))

    def remove_from(self, model: ModelRecord, hints: Iterable[str]) -> list[Alias]:
        """Remove every alias that names a model, pairs included, and return them."""
        removed = []
        for alias in self._naming(model.id, hints):
            with contextlib.suppress(NotFound):
                removed.append(self.remove(alias.name, since=model.deleted_at))
        return removed

    def former(
        self, model: ModelId, hints: Iterable[str], since: datetime | None
    ) -> Iterator[Alias]:
        """What a deleted model was called, by itself and in a pair.

        Args:
            model: Its id.
            hints: Keys under which to look.
            since: When it was deleted: names that it lost earlier were not its own any more. None
                for those that it has still.
        """
        for key in hints:
            lost: Alias | None = None
            for alias in chain.earlier(self._folder / key, Alias):
                if model in alias.models:
                    if lost is None or (since is not None and lost.changed_at >= since):
                        yield alias
                    break
                lost = alias

    def _set(
        self, name: str, ids: tuple[ModelId, ...], directories: list[Path], *, force: bool
    ) -> AliasChange:
        folder = self._folder / rules.key(name)
        make_directory(folder)
        for _ in range(chain.ATTEMPTS):
            after, current = self._base(folder.name, damaged_too=force)
            before = current.models if current else ()
            if current and current.name == name and before == ids:
                self._hint(folder.name, directories)
                return AliasChange(alias=current, before=before)
            if current and not force and any(self._alive(model) for model in before):
                raise self._taken(name, current, ids)
            self._hint(folder.name, directories)
            alias = Alias(
                name=name,
                models=ids,
                sequence=self._next_sequence(current, ids, directories),
                changed_at=self._clock(),
                unknown=current.unknown if current else {},
            )
            if self._append(after, alias, (*before, *ids)):
                return AliasChange(alias=alias, before=before)
        raise chain.busy(folder)

    def _taken(self, name: str, current: Alias, wanted_for: tuple[ModelId, ...]) -> AliasTaken:
        owner = " and ".join(current.models)
        if current.name != name:
            owner += f" (as {current.name!r}, which differs only by case)"
        free = self.suggest(name, wanted_for[0] if len(wanted_for) == 1 else None)
        hint = f"Free: {', '.join(free)}. Or move it with --force." if free else None
        return AliasTaken(alias=name, owner=owner, hint=hint)

    def _next_sequence(
        self, current: Alias | None, ids: tuple[ModelId, ...], directories: list[Path]
    ) -> int:
        known = [] if current is None else [current]
        for model, directory in zip(ids, directories, strict=True):
            known += self._at(model, directory)
        return 1 + max((alias.sequence for alias in known), default=0)

    def _keep_one(self, model: ModelId, directory: Path) -> None:
        """Of all own aliases of a model keep the one with the highest sequence."""
        own = [alias for alias in self._at(model, directory) if len(alias.models) == 1]
        for alias in sorted(own, key=rank)[:-1]:
            found = self._read(rules.key(alias.name))
            if found and found.value == alias:
                self._append(found.top, self._without_models(alias), alias.models)
                logger.bind(alias=alias.name, model=model).info("a model's former alias is removed")

    def _at(self, model: ModelId, directory: Path) -> list[Alias]:
        """Every alias that names a model, found by the hints in its directory."""
        names = listing(directory / RECORD)
        return self._naming(model, (n.removeprefix(HINT) for n in names if n.startswith(HINT)))

    def _naming(self, model: ModelId, hints: Iterable[str]) -> list[Alias]:
        read = (self._read_or_skip(key) for key in hints)
        return [alias for alias in read if alias and model in alias.models]

    def _append(self, after: int, alias: Alias, concerned: Iterable[ModelId]) -> bool:
        found = (self._locate(model) for model in dict.fromkeys(concerned))
        marked = [directory.name for directory in found if directory]
        with changing(self._models, marked):
            return chain.append(self._folder / rules.key(alias.name), after, values.encode(alias))

    def _without_models(self, alias: Alias, since: datetime | None = None) -> Alias:
        now = self._clock()
        changed_at = now if since is None else max(now, since)
        return msgspec.structs.replace(
            alias, models=(), sequence=alias.sequence + 1, changed_at=changed_at
        )

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

    def _read(self, key: str) -> chain.Revision[Alias] | None:
        return chain.read(self._folder / key, Alias)

    def _base(self, key: str, *, damaged_too: bool) -> tuple[int, Alias | None]:
        """What a change of an alias is based on: the top number, and what the alias says."""
        top = chain.top(self._folder / key)  # before reading: what comes later must not be passed
        try:
            found = self._read(key)
        except NewerFormat:
            raise
        except DataError:
            if not damaged_too:
                raise
            return top, None
        return (found.top, found.value) if found else (0, None)

    def _in_use(self, name: str) -> bool:
        try:
            found = self._read(rules.key(name))
        except DataError:
            return True
        return found is not None and bool(found.value.models)

    def _read_or_skip(self, key: str) -> Alias | None:
        try:
            found = self._read(key)
        except DataError as error:
            logger.bind(alias=key, why=str(error)).warning("an alias that can't be read is skipped")
            return None
        return found.value if found and found.value.models else None


def did_you_mean(names: list[str]) -> str | None:
    """A hint that suggests names, None without any, so that the error's own hint stands."""
    return f"Did you mean {' or '.join(names)}?" if names else None


def rank(alias: Alias) -> tuple[int, str]:
    """Of a model's own aliases the one with the highest rank is its name."""
    return alias.sequence, rules.key(alias.name)


def _check_group(models: tuple[ModelRecord, ...]) -> None:
    if not 1 <= len(models) <= 2:
        raise UsageError(message="an alias names one model, or the two of a top-down pair")
    if len({model.model_type for model in models}) != len(models):
        raise UsageError(
            message=f"two models of type {models[0].model_type} are not a pair; "
            "a top-down pair is a centroid and a centered_instance model"
        )
