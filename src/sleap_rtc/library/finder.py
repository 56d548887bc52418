"""Finding models by what people write: id, alias, the beginning of an id, path.

Only files are read, never the index. A model's directory is named by type and
id, so one with a known id is found by trying the known types; the directory is
listed only to learn new types, and for prefixes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
from loguru import logger

from sleap_rtc.domain.ids import ModelId, is_id_prefix, is_model_id
from sleap_rtc.errors import AmbiguousName, DataError, UnknownModel
from sleap_rtc.library import layout, records
from sleap_rtc.library.aliases import Aliases, did_you_mean
from sleap_rtc.library.entries import Entry, Group
from sleap_rtc.library.index import stamp_of
from sleap_rtc.library.rows import Found

_SHOWN: Final = 10
_TRUSTED_AGE_NS: Final = 2_000_000_000
"""A directory's time stamp tells of every change only when it is older than its clock is coarse."""


class Unreadable(msgspec.Struct, frozen=True):
    """A model whose record can't be read.

    Attributes:
        directory: Name of its directory.
        why: One sentence.
    """

    directory: str
    why: str


class Finder:
    """Reads the models of one library.

    Attributes:
        aliases: The library's aliases.
    """

    def __init__(self, models: Path, *, clock: Callable[[], datetime]) -> None:
        self.models = models
        self.aliases = Aliases(models, clock=clock, locate=self.locate, alive=self.is_alive)
        self._types = dict.fromkeys(layout.KNOWN_TYPES)
        self._listed = 0

    def get(self, name: str) -> Entry:
        """The model with an id, or an alias that names one.

        Raises:
            UnknownModel: There is none.
            AmbiguousName: The alias names a pair.
            DataError: Its record can't be read.
        """
        found = self._exactly(name)
        if found is None:
            raise self._unknown(name)
        if isinstance(found, Group):
            members = (f"{name}:{entry.record.model_type}" for entry in found.entries)
            raise AmbiguousName(
                name=name, candidates=", ".join(members), hint="Name one of the pair."
            )
        return found

    def exists(self, name: str) -> bool:
        """Whether an id or alias names something here, even if its record can't be read."""
        if is_model_id(name) and self.is_alive(ModelId(name)):
            return True
        alias = self.aliases.lookup(name.partition(":")[0])
        return alias is not None and all(self.is_alive(model) for model in alias.models)

    def resolve(self, text: str) -> Entry | Group | Path:
        """What a person means, in this order: id, alias, prefix of an id, path.

        Raises:
            UnknownModel: Nothing fits.
            AmbiguousName: A prefix fits several models.
            DataError: A record can't be read.
        """
        found = self._exactly(text)
        if found is None and is_id_prefix(text):
            found = self._by_prefix(text)
        place = self._by_path(text) if found is None else found
        if place is None:
            raise self._unknown(text)
        return place

    def read(self, directory: Path | str) -> Entry:
        """The model in a directory.

        Raises:
            UnknownModel: There is none, or it was deleted.
            DataError: Its record can't be read.
        """
        return self.entry(records.read(directory), directory)

    def entry(self, revision: records.Revision, directory: Path | str) -> Entry:
        """A record with its alias and place.

        Raises:
            UnknownModel: It is deleted.
        """
        if revision.record.deleted_at is not None:
            raise UnknownModel(name=revision.record.id, hint="It was deleted.")
        alias = self.aliases.of(revision.record, revision.hints) if revision.hints else None
        return Entry(record=revision.record, alias=alias, folder=str(directory))

    def walk(self) -> Iterator[Entry | Unreadable]:
        """Every model that isn't deleted, in no order."""
        for name in layout.names(self.models):
            try:
                yield self.read(self.models / name)
            except UnknownModel:
                continue
            except (DataError, OSError) as error:
                yield Unreadable(directory=name, why=str(error))

    def load(self, name: str) -> Found | None:
        """The model in a directory as the index wants it; None where there is none."""
        directory = self.models / name
        stamp = stamp_of(
            f"{self.models}/{name}"
        )  # before the record: a change in between is then seen later
        try:
            revision = records.read(directory)
        except UnknownModel:
            return None
        except (DataError, OSError) as error:
            logger.bind(model=name, why=str(error)).warning("a model can't be listed")
            return Found(directory=name, stamp=stamp, record=None, alias=None)
        alias = self.aliases.of(revision.record, revision.hints) if revision.hints else None
        return Found(directory=name, stamp=stamp, record=revision.record, alias=alias)

    def locate(self, model: ModelId) -> Path | None:
        """The directory of a model, deleted or not; None if it has none."""
        found = self._place_of(model)
        return None if found is None else Path(found)

    def occupied(self, model: ModelId, model_type: str) -> Path | None:
        """Whatever stands where a model with this id would, whether a model or not."""
        for kind in dict.fromkeys((model_type, *self._types)):
            path = f"{self.models}/{kind}_{model}"  # as text: each registration looks so
            if os.path.lexists(path):
                return Path(path)
        return None

    def learn(self, model_type: str) -> None:
        """Take note of a model type that is in use."""
        self._types.setdefault(model_type)

    def is_alive(self, model: ModelId) -> bool:
        """Whether a model is here and not deleted; one that can't be read counts as alive."""
        directory = self.locate(model)
        if directory is None:
            return False
        try:
            return records.read(directory).record.deleted_at is None
        except UnknownModel:
            return False
        except DataError:
            return True

    def _exactly(self, name: str) -> Entry | Group | None:
        if is_model_id(name):
            directory = self._place_of(ModelId(name))
            if directory is not None:
                with contextlib.suppress(UnknownModel):
                    return self.read(directory)
        return self._by_alias(name)

    def _by_alias(self, text: str) -> Entry | Group | None:
        name, colon, member = text.partition(":")
        alias = self.aliases.lookup(name)
        if alias is None:
            return None
        directories = [self._place_of(model) for model in alias.models]
        entries = []
        for directory in directories:
            with contextlib.suppress(UnknownModel):
                if directory is not None:
                    entries.append(self.read(directory))
        if colon:
            return next((e for e in entries if e.record.model_type == member), None)
        if len(entries) < len(alias.models):
            return None
        return entries[0] if len(entries) == 1 else Group(alias=name, entries=tuple(entries))

    def _by_prefix(self, text: str) -> Entry | None:
        possible = layout.names(self.models, having=f"_{text}")
        names = [name for name in possible if _id_in(name).startswith(text)]
        if len(names) == 1:
            with contextlib.suppress(UnknownModel):
                return self.read(self.models / names[0])
        fitting: list[Entry] = []
        labels: list[str] = []
        for name in sorted(names, key=_id_in):
            try:
                entry = self.read(self.models / name)
            except UnknownModel:
                continue
            except DataError:
                labels.append(f"{_id_in(name)} (damaged)")
                continue
            fitting.append(entry)
            labels.append(f"{entry.id} ({entry.alias})" if entry.alias else entry.id)
        if len(labels) > 1:
            more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
            raise AmbiguousName(name=text, candidates=", ".join(labels[:_SHOWN]) + more)
        return fitting[0] if fitting else None

    def _by_path(self, text: str) -> Entry | Path | None:
        if not text or "\0" in text:
            return None
        try:
            path = Path(text).expanduser()
        except RuntimeError:  # there is no such user
            return None
        if not os.path.lexists(path):
            path = self.models / text
            if layout.parse(text) is None or not os.path.lexists(path):
                return None
        inside = path.resolve()
        library = self.models.resolve()
        if inside != library and inside.is_relative_to(library):
            directory = self.models / inside.relative_to(library).parts[0]
            with contextlib.suppress(UnknownModel):
                return self.read(directory)
        return path.absolute()

    def _place_of(self, model: ModelId) -> str | None:
        """As :meth:`locate`, as text: paths are most of what looking a model up would cost."""
        found = self._with_record(model)
        return self._with_record(model) if found is None and self._learn_types() else found

    def _with_record(self, model: ModelId) -> str | None:
        for kind in self._types:
            place = f"{self.models}/{kind}_{model}"
            # Of most types there is none: a question that raises no error within is half as long.
            # The stroke at the end lets nothing but a directory count.
            if os.access(f"{place}/{layout.RECORD}/", os.F_OK):
                return place
        return None

    def _learn_types(self) -> bool:
        """Look for types of which nothing was known, unless nothing changed since the last look."""
        try:
            stamp = self.models.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        if stamp == self._listed:
            return False
        found = {kind for kind, _ in filter(None, map(layout.parse, layout.names(self.models)))}
        new = found - self._types.keys()
        self._types |= dict.fromkeys(new)
        self._listed = stamp if time.time_ns() - stamp > _TRUSTED_AGE_NS else 0
        return bool(new)

    def _unknown(self, name: str) -> UnknownModel:
        if is_model_id(name) and self.locate(ModelId(name)) is not None:
            hint = f"It was deleted; sleap-rtc restore-model {name} brings it back."
            return UnknownModel(name=name, hint=hint)
        near = self.aliases.near(name.partition(":")[0])
        return UnknownModel(name=name[:200], hint=did_you_mean(near))


def _id_in(name: str) -> str:
    return name.rpartition("_")[2]
