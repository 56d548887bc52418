"""MLflow's model registry, by its Python client, in a SQLite file.

A model is a registered model with one version; what we know of it are tags of
both. Its rows are inserted in one go by MLflow's own table classes, since its
client would take a quarter of an hour for 10,000.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.store.model_registry.dbmodels.models import (
    SqlModelVersion,
    SqlModelVersionTag,
    SqlRegisteredModel,
    SqlRegisteredModelAlias,
    SqlRegisteredModelTag,
)
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from bench import made
from bench.subject import Operation

_BATCH = 1_000


class Subject:
    """One file below a folder."""

    def __init__(self, folder: Path) -> None:
        self._address = f"sqlite:///{folder / 'mlflow.sqlite'}"
        self._client = MlflowClient(tracking_uri=self._address, registry_uri=self._address)
        self._client.search_registered_models(max_results=1)  # makes the tables
        self._count = 0

    def grow(self, to: int) -> dict[str, float]:
        """Insert models."""
        started = time.monotonic()
        engine = create_engine(self._address)
        for first in range(self._count, to, _BATCH):
            with Session(engine) as session:
                for number in range(first, min(first + _BATCH, to)):
                    session.add_all(_rows(number))
                session.commit()
        engine.dispose()
        self._count = to
        return {"build": time.monotonic() - started}

    def operations(self) -> dict[str, Operation]:
        """What can be measured."""
        wanted = made.FILTER
        chosen = (
            f"tags.status = '{wanted['status']}' AND tags.type = '{wanted['type']}' "
            f"AND tags.`{wanted['tag']}` = 'yes'"
        )
        word = f"name LIKE '%{made.WORD}%'"
        prefix = f"name LIKE '%{made.PREFIX}%'"
        newest = ["last_updated_timestamp DESC"]
        return {
            "register": self._register,
            "get": self._get,
            "get by alias": self._get_by_alias,
            "set alias": self._set_alias,
            "list a page": lambda _: partial(self._search, None),
            "list filtered": lambda _: partial(self._search, chosen),
            "list after a change": self._list_after_a_change,
            "search a word": lambda _: partial(self._search, word),
            "search another word": lambda n: partial(self._finds, f"name LIKE '%{made.word(n)}%'"),
            "search a name": lambda n: partial(
                self._search, f"name LIKE '%run{n * 7919 % self._count:06d}%'"
            ),
            "search a prefix, newest": lambda _: partial(self._search, prefix, newest),
        }

    def _search(self, chosen: str | None, order: list[str] | None = None) -> int:
        return len(
            self._client.search_registered_models(
                filter_string=chosen, max_results=made.PAGE, order_by=order
            )
        )

    def _finds(self, chosen: str) -> int:
        return self._search(chosen) > 0

    def _register(self, number: int) -> Callable[[], int]:
        # A version of a model that is there: less than ours does, which makes a model.
        name = self._name(number * 7919 % self._count)
        tags = {"status": "training", "type": "single_instance"}
        create = self._client.create_model_version
        return lambda: bool(create(name, source="/models/run", tags=tags))

    def _list_after_a_change(self, number: int) -> Callable[[], int]:
        register = self._register(number)
        return lambda: register() and self._search(None)

    def _get(self, number: int) -> Callable[[], int]:
        name = self._name(number * 7919 % self._count)
        return lambda: bool(self._client.get_model_version(name, "1").name)

    def _get_by_alias(self, number: int) -> Callable[[], int]:
        named = self._named(number)
        get = partial(self._client.get_model_version_by_alias, self._name(named), made.alias(named))
        return lambda: bool(get().name)

    def _set_alias(self, number: int) -> Callable[[], int]:
        name = self._name(self._named(number) + 1)
        change = partial(self._client.set_registered_model_alias, name, f"new-{number}", "1")
        return lambda: change() is None

    def _named(self, number: int) -> int:
        """The number of a model that has an alias."""
        return number * 7919 % (self._count // made.ALIASED) * made.ALIASED

    @staticmethod
    def _name(number: int) -> str:
        return str(made.model(number)["name"])


def _rows(number: int) -> list[Any]:
    known = made.model(number)
    name, at = known["name"], round(known["created"].timestamp() * 1000)
    texts = {key: str(known[key]) for key in ("status", "type", "loss", "epochs", "duration_s")}
    tags = texts | dict.fromkeys(known["tags"], "yes")
    version = SqlModelVersion(
        name=name,
        version=1,
        creation_time=at,
        last_updated_time=at,
        description=known["notes"],
        current_stage="None",
        source="/models/run",
        storage_location="/models/run",
        status="READY",
    )
    rows: list[Any] = [
        SqlRegisteredModel(name=name, creation_time=at, last_updated_time=at),
        version,
    ]
    for key, value in tags.items():
        rows.append(SqlRegisteredModelTag(name=name, key=key, value=value))
        rows.append(SqlModelVersionTag(name=name, version=1, key=key, value=value))
    if known["alias"] is not None:
        rows.append(SqlRegisteredModelAlias(name=name, alias=known["alias"], version=1))
    return rows
