"""Telling what storage gave wrong, and what is said of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from sleap_rtc.client import doubting
from sleap_rtc.client.doubting import explained, report, report_later, reporting
from sleap_rtc.errors import (
    Damaged,
    DataError,
    NotFound,
    SourceChanged,
    StorageUnreachable,
)

ANEW = "Send it again."


class Storage:
    """A room's storage, whose server finds what it is told to find."""

    def __init__(self, *finds: str, failure: Exception | None = None) -> None:
        self.finds, self.failure = list(finds), failure
        self.reports: list[tuple[str, str]] = []
        self.wait: Callable[[], object] = lambda: None

    def open(self) -> Any:
        return self

    def report_damaged(self, blake3: str, etag: str) -> str:
        self.wait()
        self.reports.append((blake3, etag))
        if self.failure is not None:
            raise self.failure
        return self.finds.pop(0)


class Giver:
    """What gave something wrong."""

    def __init__(self, **damaged: str) -> None:
        self.damaged = damaged


async def test_the_worst_is_told() -> None:
    for finds, worst in (
        (("good", "damaged", "gone"), "damaged"),
        (("good", "open"), "open"),
        (("gone", "good"), "good"),
        (("gone",), "gone"),
    ):
        storage: Any = Storage(*finds)
        damaged = {str(number): f"etag-{number}" for number in range(len(finds))}
        assert await report(storage, damaged) == worst
        assert storage.reports == list(damaged.items())


async def test_a_server_that_takes_no_reports_or_is_away_is_no_trouble() -> None:
    for failure in (NotFound(message="There is nothing here."), StorageUnreachable(store="x")):
        storage: Any = Storage(failure=failure)
        assert await report(storage, {"a": ""}) is None
    assert await report(storage, {}) is None


async def test_nobody_waits_for_a_server_for_long() -> None:
    storage: Any = Storage("damaged")
    going_on = threading.Event()
    storage.wait = going_on.wait
    assert await report(storage, {"a": ""}, within=0.01) == "open"
    going_on.set()


@pytest.mark.parametrize(
    ("found", "says", "hint"),
    [
        (
            "damaged",
            "a.slp in the room's storage is damaged: it isn't any more what was stored there.",
            ANEW,
        ),
        (
            "good",
            "a.slp is damaged: block 1 was wrong, and what the room's storage has is right.",
            "It changes on its way, or here: look at this machine's memory and its network.",
        ),
        (
            "gone",
            "a.slp is damaged: block 1 was wrong.",
            "Something else is in its place in the room's storage by now: try again.",
        ),
        (
            "open",
            "a.slp is damaged: block 1 was wrong.",
            f"The server looks into what it has. {ANEW}",
        ),
        (
            None,
            "a.slp is damaged: block 1 was wrong.",
            "Whether that is so in the room's storage is not known: its server can't say.",
        ),
    ],
)
def test_what_is_said(found: Any, says: str, hint: str) -> None:
    error = explained(Damaged(what="a.slp", why="block 1 was wrong"), found, anew=ANEW)
    assert (error.message, error.hint_text) == (says, hint)


def test_what_is_shorter_by_now_is_named() -> None:
    error = SourceChanged(path="content 12ab…")
    assert explained(error, "damaged", anew=ANEW).message.startswith("content 12ab… in the room's")
    assert explained(error, "open", anew=ANEW).message == (
        "content 12ab… is damaged: it is another one than before."
    )


async def test_what_fails_by_it_says_so() -> None:
    storage: Any = Storage("damaged")
    with pytest.raises(Damaged, match=r"a\.slp in the room's storage") as failure:
        async with reporting(storage, Giver(x="e"), anew=ANEW):
            raise DataError(what="a.slp", why="no")
    assert failure.value.hint_text == ANEW
    assert storage.reports == [("x", "e")]


async def test_what_fails_by_something_else_stays_as_it_is() -> None:
    storage: Any = Storage()
    for given, giver, error in (
        (storage, Giver(), Damaged(what="a", why="b")),
        (None, Giver(x="e"), Damaged(what="a", why="b")),
        (storage, Giver(x="e"), StorageUnreachable(store="there", why="away")),
    ):
        with pytest.raises(type(error)) as failure:
            async with reporting(given, giver, anew=ANEW):
                raise error
        assert failure.value is error
    async with reporting(storage, Giver(x="e"), anew=ANEW):
        pass
    assert storage.reports == []


async def test_who_has_it_from_elsewhere_reports_it_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage: Any = Storage("damaged")
    await report_later(None, Giver(x="e"))
    await report_later(storage, Giver())
    assert storage.reports == []
    await report_later(storage, Giver(x="e"))
    assert storage.reports == [("x", "e")]
    # It isn't held up by that.
    monkeypatch.setattr(doubting, "REPORT_S", 0.01)
    going_on = threading.Event()
    storage.wait = going_on.wait
    await report_later(storage, Giver(x="e"))
    going_on.set()
