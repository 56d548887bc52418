"""The API without ``async``: all of it is there. Its examples run in ``endtoend``."""

from __future__ import annotations

import inspect

import pytest

from sleap_rtc.client.api import AsyncClient
from sleap_rtc.client.synchronous import Client

# Being present in a room by itself, and questions or models one by one over a connection that
# stays, are for programs that are asynchronous all through.
ASYNC_ALONE = {"link", "mover", "online"}


def public(kind: type) -> dict[str, object]:
    return {name: value for name, value in inspect.getmembers(kind) if not name.startswith("_")}


def test_it_can_all_that_the_asynchronous_one_can() -> None:
    assert set(public(AsyncClient)) - ASYNC_ALONE - set(public(Client)) == set()


@pytest.mark.parametrize("name", sorted(set(public(AsyncClient)) & set(public(Client)) - {"track"}))
def test_it_takes_the_same(name: str) -> None:
    here = inspect.signature(getattr(Client, name)).parameters
    there = inspect.signature(getattr(AsyncClient, name)).parameters
    assert list(here) == list(there)
    for parameter, theirs in there.items():
        assert here[parameter].kind == theirs.kind
        if theirs.default is not inspect.Parameter.empty:
            assert here[parameter].default == theirs.default


def test_without_a_network(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SLEAP_RTC_HOME", str(tmp_path / "home"))
    with Client() as client:
        assert client.rooms() == []
        assert client.jobs() == []
        assert client.library.list().entries == ()
        assert client.settings.home == tmp_path / "home"
