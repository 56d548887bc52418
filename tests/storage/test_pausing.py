"""Waits of several threads: growing, together, and ended together."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from sleap_rtc.errors import (
    Busy,
    Damaged,
    NetworkError,
    OutOfSpace,
    StorageRefused,
    StorageUnreachable,
)
from sleap_rtc.storage import pausing
from sleap_rtc.storage.pausing import Patience, Pauses, Stopped, failure_of, side_by_side
from sleap_rtc.storage.wire import Answer

QUICK = Patience(attempts=3, base=0.0, cap=0.0)


def answer(status: int, said: str = "", **headers: str) -> Answer:
    body = f"<Error><Code>{said}</Code></Error>".encode() if said else b""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, headers=named, body=body)


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (503, "SlowDown", StorageUnreachable),
        (409, "", StorageUnreachable),
        (400, "RequestTimeout", StorageUnreachable),
        (400, "BadDigest", Damaged),
        (422, "", Damaged),
        (403, "AccessDenied", StorageRefused),
        (404, "NoSuchBucket", StorageRefused),
    ],
)
def test_what_a_refusal_means(status: int, said: str, kind: type[Exception]) -> None:
    failure = failure_of(answer(status, said), "it")
    assert type(failure) is kind
    assert (said or str(status)) in str(failure)


def test_a_full_store_is_not_asked_again() -> None:
    with pytest.raises(OutOfSpace):
        failure_of(answer(507), "it")


def test_a_question_is_asked_until_patience_ends() -> None:
    left = [2]

    def fail() -> str:
        if left[0]:
            left[0] -= 1
            raise NetworkError(message="away")
        return "here"

    assert Pauses(QUICK).patiently(fail) == "here"
    left[0] = 3
    with pytest.raises(NetworkError):
        Pauses(QUICK).patiently(fail)
    used = iter([Busy(what="it", by=""), None])

    def in_use() -> str:
        if (error := next(used)) is not None:
            raise error
        return "free"

    assert Pauses(QUICK).patiently(in_use) == "free"


def test_a_busy_store_is_left_alone_by_all() -> None:
    pauses = Pauses(QUICK)
    pauses.back_off(1, answer(503, retry_after="60"))
    began, held = time.monotonic(), threading.Event()

    def other() -> None:
        with pytest.raises(Stopped):
            pauses.hold_back()
        held.set()

    thread = threading.Thread(target=other)
    thread.start()
    assert not held.wait(0.05)
    pauses.stop()
    thread.join(30)
    assert held.is_set()
    assert time.monotonic() - began < 50


def test_stopped_and_going_on_again() -> None:
    pauses = Pauses(QUICK)
    pauses.check()
    pauses.stop()
    assert pauses.stopped
    for step in (pauses.check, pauses.hold_back, lambda: pauses.back_off(1, None)):
        with pytest.raises(Stopped):
            step()
    pauses.resume()
    pauses.hold_back()
    pauses.back_off(1, answer(429, retry_after="soon"))


def test_the_first_failure_ends_the_others_and_is_the_one_that_is_told() -> None:
    pauses = Pauses(QUICK)
    numbers = iter(range(4))

    def work() -> None:
        if next(numbers) == 0:
            raise Damaged(what="a", why="it is cut")
        while True:
            pauses.check()

    failure = side_by_side(work, 4, name="test", stop=pauses.stop, abort=pytest.fail)
    assert isinstance(failure, Damaged)
    assert pauses.stopped


def test_whoever_is_interrupted_leaves_threads_behind_that_cant_be_ended() -> None:
    """As Ctrl-C does it: a server that doesn't answer isn't waited for."""
    ended, never = threading.Event(), threading.Event()
    waiting = threading.Barrier(3)

    def work() -> None:
        waiting.wait(30)
        never.wait(60)

    def interrupt() -> None:
        waiting.wait(30)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            side_by_side(work, 2, name="left", stop=pytest.fail, abort=ended.set)
        left = [thread for thread in threading.enumerate() if thread.name.startswith("left_")]
        assert ended.is_set()
        assert len(left) == 2
        # The program doesn't wait for them at its end either.
        assert all(thread.daemon for thread in left)
        assert time.monotonic() - began < 30
    finally:
        signal.signal(signal.SIGINT, before)
        never.set()
    for thread in left:
        thread.join(30)


def test_threads_that_end_when_they_are_told_to_are_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pausing, "GRACE_S", 60.0)  # on a busy machine they may take longer
    ended, running, gone = threading.Event(), threading.Event(), []

    def work() -> None:
        running.set()
        assert ended.wait(30)
        gone.append(1)

    def interrupt() -> None:
        assert running.wait(30)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            side_by_side(work, 1, name="test", stop=pytest.fail, abort=ended.set)
    finally:
        signal.signal(signal.SIGINT, before)
    assert gone == [1]
