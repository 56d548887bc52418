"""The error tree: the drawing is the code, codes are stable, words from outside are only words."""

from __future__ import annotations

import inspect
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc import errors
from sleap_rtc.errors import (
    BY_CODE,
    MAX_DETAIL,
    AliasTaken,
    EngineMissing,
    SleapRtcError,
    UnknownWorker,
    UsageError,
    from_wire,
    to_wire,
)

CLASSES = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, SleapRtcError)
]
DRAWING = inspect.getdoc(errors) or ""


def drawn() -> dict[str, tuple[str | None, int | None, int | None]]:
    """Name → parent, exit code and HTTP status, as the drawing has them."""
    tree = DRAWING.partition("::\n")[2].partition("\n\nThe first line")[0]
    above: list[tuple[int, str]] = []
    found: dict[str, tuple[str | None, int | None, int | None]] = {}
    for line in filter(str.strip, tree.splitlines()):
        match = re.match(r"([ │├└─]*)(\w+)(?: +(?:exit )?(\d+) +(?:http )?(\d{3}))?", line)
        assert match is not None, line
        depth = match.start(2)
        above = [(at, name) for at, name in above if at < depth]
        parent = above[-1][1] if above else None
        code, status = match[3], match[4]
        found[match[2]] = (parent, int(code) if code else None, int(status) if status else None)
        above.append((depth, match[2]))
    return found


def test_the_drawing_shows_every_class_below_its_parent() -> None:
    shown = {name: parent for name, (parent, _, _) in drawn().items()}
    made = {kind.__name__: kind.__base__.__name__ for kind in CLASSES if kind is not SleapRtcError}
    assert shown == {"SleapRtcError": None, **made}


def test_the_drawing_shows_the_codes() -> None:
    for name, (_, exit_code, status) in drawn().items():
        kind = getattr(errors, name)
        if exit_code is not None:
            assert (kind.exit_code, kind.http_status) == (exit_code, status), name


def test_every_class_has_a_code_of_its_own() -> None:
    codes = [kind.__dict__.get("code") for kind in CLASSES]
    assert None not in codes
    assert len(set(codes)) == len(codes)
    assert dict(zip(codes, CLASSES, strict=True)) == BY_CODE
    assert all(re.fullmatch(r"[a-z_]{1,64}", str(code)) for code in codes)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_docstring_is_the_sentence(kind: type[SleapRtcError]) -> None:
    names = [name for _, name, _, _ in string.Formatter().parse(kind.sentence) if name]
    assert names
    error = kind(**{name: f"<{name}>" for name in names})
    assert all(f"<{name}>" in str(error) for name in names)
    assert "{" not in str(error)
    assert error.message == str(error)
    # A hint's names are among those of the sentence, so that raising the class fills it.
    assert "{" not in error.hint_text
    assert error.hint_text.strip() == error.hint_text


def test_a_detail_that_is_missing_is_no_second_error() -> None:
    assert str(UnknownWorker(name="gpu-1")) == "No worker 'gpu-1' is online in room '{room}'."


def test_details_are_cut() -> None:
    error = UsageError(message="x" * 9_000)
    assert len(str(error)) == MAX_DETAIL
    assert len(UsageError(message="m", hint="x" * 9_000).hint_text) == MAX_DETAIL


def test_a_class_s_hint_is_filled_and_a_given_one_is_not() -> None:
    assert EngineMissing(engine="tiny", where="gpu-1").hint_text.endswith("install tiny")
    assert EngineMissing(engine="tiny", where="gpu-1", hint="{engine}{").hint_text == "{engine}{"


words = st.text(max_size=60) | st.sampled_from(["{", "}", "{0}", "{self}", "{x!r:>9999999999}"])


@given(
    st.sampled_from(CLASSES),
    st.dictionaries(st.sampled_from(["name", "what", "why", "self", "message"]) | words, words),
    words,
)
def test_errors_survive_the_wire(
    kind: type[SleapRtcError], details: dict[str, str], hint: str
) -> None:
    details.pop("hint", None)
    error = kind(hint=hint, **details)
    told = to_wire(error)
    again = from_wire(told["code"], told["details"], message=told["message"], hint=told["hint"])
    assert type(again) is kind
    assert (again.message, again.hint_text) == (error.message[:1_000], hint)
    assert again.details == dict(list(error.details.items())[:16])


@given(st.text(max_size=64), st.dictionaries(words, words, max_size=16), words, words)
def test_whatever_a_peer_says_is_an_error(
    code: str, details: dict[str, str], message: str, hint: str
) -> None:
    error = from_wire(code, details, message=message, hint=hint)
    assert (error.message, error.hint_text) == (message, hint)


def test_a_later_version_s_code_keeps_its_words() -> None:
    error = from_wire("of_tomorrow", {"a": "b"}, message="What it says.", hint="And how.")
    assert type(error) is SleapRtcError
    assert (error.message, error.hint_text) == ("What it says.", "And how.")


def test_what_is_told_is_cut_to_a_message() -> None:
    details = {f"d{n}": "x" * 5_000 for n in range(30)}
    told = to_wire(AliasTaken(alias="x", owner="y", **details))
    assert len(told["details"]) == 16
    assert sum(len(name) + len(text) for name, text in told["details"].items()) <= 8_100
