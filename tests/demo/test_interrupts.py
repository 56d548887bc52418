"""Interrupts raise once, wait while they are held back, and are counted."""

from __future__ import annotations

import signal

import pytest

from sleap_rtc.demo.interrupts import Interrupts

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("number", ALL)
def test_the_first_one_raises_and_the_others_are_counted(number):
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert not interrupts.urgent
        signal.raise_signal(number)
        assert interrupts.urgent


def test_one_that_is_held_back_raises_at_the_end_of_the_block():
    done = []

    def held(interrupts, word):
        with interrupts.held():
            with interrupts.held():
                signal.raise_signal(signal.SIGINT)
            done.append(word)

    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            held(interrupts, "the first one")
        held(interrupts, "a later one")
    assert done == ["the first one", "a later one"]


def test_what_fails_while_one_is_held_back_is_told():
    def fail(interrupts):
        with interrupts.held():
            signal.raise_signal(signal.SIGINT)
            raise ZeroDivisionError

    with Interrupts() as interrupts, pytest.raises(ZeroDivisionError):
        fail(interrupts)


def test_afterwards_all_is_as_before():
    before = [signal.getsignal(number) for number in ALL]
    with Interrupts():
        assert [signal.getsignal(number) for number in ALL] != before
    assert [signal.getsignal(number) for number in ALL] == before


def test_what_was_to_be_ignored_still_is():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGHUP)
            assert interrupts.count == 0
    finally:
        signal.signal(signal.SIGHUP, before)
