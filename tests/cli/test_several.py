"""Several things in one command: what fails of one doesn't keep the others."""

from __future__ import annotations

import click
import pytest

from sleap_rtc.cli.app import App
from sleap_rtc.cli.several import Several
from sleap_rtc.errors import AlreadyExists, Cancelled, UnknownModel, UsageError


def test_what_fails_is_told_last_with_its_exit_code(make_output):
    out = make_output()
    several = Several(App(out))
    done = []
    for name in ("a", "b", "c"):
        with several.one(name):
            if name == "b":
                raise UnknownModel(name=name)
            done.append(name)
    several.check()
    (failed,) = several.failed
    assert (done, failed.name, failed.error.code) == (["a", "c"], "b", "unknown_model")
    assert out.stderr.getvalue() == ""
    with pytest.raises(click.exceptions.Exit) as caught:
        several.end()
    assert caught.value.exit_code == 3
    assert "'b'" in out.stderr.getvalue()


def test_different_failures_are_one_failure(make_output):
    several = Several(App(make_output()))
    with several.one("x"):
        raise UnknownModel(name="x")
    with several.one("y"):
        raise AlreadyExists(what="y")
    several.check()
    with pytest.raises(click.exceptions.Exit) as caught:
        several.end()
    assert caught.value.exit_code == 1


def test_the_only_one_is_the_commands_own_error(make_output):
    several = Several(App(make_output()))
    with several.one("x"):
        raise UnknownModel(name="x")
    with pytest.raises(UnknownModel):
        several.check()


def test_what_the_system_refuses_of_one_does_not_keep_the_others(make_output):
    several = Several(App(make_output()))
    with several.one("x"):
        raise PermissionError(13, "Permission denied", "/drive/best.ckpt")
    with several.one("y"):
        pass
    (failed,) = several.failed
    assert (failed.name, failed.error.code) == ("x", "not_permitted")
    assert "/drive/best.ckpt: Permission denied." in failed.error.message
    with pytest.raises(OSError, match="out of memory"), several.one("z"):
        raise OSError("out of memory")


@pytest.mark.parametrize("error", [Cancelled(what="It"), UsageError(message="no")])
def test_a_no_and_a_mistake_end_all(make_output, error):
    several = Several(App(make_output()))
    with pytest.raises(type(error)), several.one("x"):
        raise error


def test_without_failures_there_is_nothing_to_tell(make_output):
    several = Several(App(make_output()))
    with several.one("x"):
        pass
    several.check()
    several.end()
    assert several.failed == ()
