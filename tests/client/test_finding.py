"""The worker that is meant where none is named; over real links: tests/endtoend/test_moving.py."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest

from sleap_rtc.client import finding
from sleap_rtc.client.finding import Chosen, choose_worker
from sleap_rtc.errors import (
    AmbiguousName,
    FeatureMissing,
    NotFound,
    PeerUnreachable,
    UnknownModel,
    UsageError,
)

ROOM = SimpleNamespace(room="r", name="lab")


class Online:
    """Workers, and what each has: models' names, or why it isn't reached."""

    def __init__(self, **workers) -> None:
        self.known = workers

    def workers(self, _room):
        return [SimpleNamespace(name=name) for name in self.known]


class Library:
    """A worker's answers."""

    def __init__(self, has) -> None:
        self.has, self.link = has, self

    async def request(self, body, *, within_s):
        assert within_s == finding.WITHIN_S
        if "old" in self.has:
            raise FeatureMissing(peer="gpu", what="be sent models")
        if "twice" in self.has:
            raise AmbiguousName(name=body.name, candidates="1, 2")
        if body.name not in self.has:
            raise UnknownModel(name=body.name)

    async def exists(self, *names):
        return tuple(name in self.has for name in names)


@pytest.fixture(autouse=True)
def reached(monkeypatch):
    @contextlib.asynccontextmanager
    async def open_library(online, _room, worker):
        has = online.known[worker]
        if isinstance(has, Exception):
            raise has
        yield Library(has)

    monkeypatch.setattr(finding, "open_library", open_library)


async def test_the_only_one_is_taken() -> None:
    assert await choose_worker(Online(one=""), ROOM) == Chosen("one", "no other worker is online")
    chosen = await choose_worker(Online(one=PeerUnreachable(peer="one", why="w")), ROOM, ["fly"])
    assert chosen.name == "one"  # it isn't asked: the command itself says what is wrong


async def test_without_one_it_is_said_how_to_start_one() -> None:
    with pytest.raises(NotFound, match="No worker is online in room 'lab'") as caught:
        await choose_worker(Online(), ROOM, ["fly"])
    assert "sleap-rtc worker --room lab" in caught.value.hint_text


async def test_of_several_a_person_says_which() -> None:
    with pytest.raises(UsageError, match="Several workers are online: one, two"):
        await choose_worker(Online(one="", two=""), ROOM)


async def test_the_only_one_that_has_them_is_taken() -> None:
    online = Online(one=["fly"], two=["fly", "bee"], three=[])
    chosen = await choose_worker(online, ROOM, ["fly", "bee"])
    assert chosen == Chosen("two", "no other worker has 'fly' and 'bee'")


async def test_what_is_silent_is_said() -> None:
    online = Online(one=["fly"], two=PeerUnreachable(peer="two", why="w"))
    chosen = await choose_worker(online, ROOM, ["fly"])
    assert chosen == Chosen("one", "no other worker has 'fly' (two gave no answer)")
    online = Online(one=[], two=PeerUnreachable(peer="two", why="w"))
    with pytest.raises(UnknownModel, match=r"None of one has a model 'fly' \(two gave no answer\)"):
        await choose_worker(online, ROOM, ["fly"])


async def test_several_that_have_them_are_named() -> None:
    online = Online(one=["fly"], two=["old", "fly"], three=["twice"], four=["old"])
    with pytest.raises(UsageError, match="Several workers have 'fly': one, two, three") as caught:
        await choose_worker(online, ROOM, ["fly"])
    assert "--worker one" in caught.value.hint_text


async def test_models_that_no_single_worker_has() -> None:
    online = Online(one=["fly"], two=["bee"])
    with pytest.raises(UnknownModel, match="No single worker has 'fly' and 'bee'"):
        await choose_worker(online, ROOM, ["fly", "bee"])
    with pytest.raises(UnknownModel, match="None of one, two has a model 'ant'"):
        await choose_worker(online, ROOM, ["fly", "ant"])


async def test_one_that_never_answers_is_not_waited_for(monkeypatch) -> None:
    monkeypatch.setattr(finding, "WITHIN_S", 0.01)

    @contextlib.asynccontextmanager
    async def never(_online, _room, worker):
        if worker == "two":
            await finding.asyncio.Event().wait()
        yield Library(["fly"])

    monkeypatch.setattr(finding, "open_library", never)
    chosen = await choose_worker(Online(one=[], two=[]), ROOM, ["fly"])
    assert chosen == Chosen("one", "no other worker has 'fly' (two gave no answer)")
