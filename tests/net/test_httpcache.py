"""Answers on disk: fresh, stale, damaged, too many."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sleap_rtc.net.httpcache import FRESH, STALE, HttpCache, Kept, freshness

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
URL = "https://example.org/a?b=c"


def kept(body: bytes = b"text", **headers: str) -> Kept:
    return Kept(
        url=URL, status=200, headers=headers, body=body, stored=NOW, fresh_until=NOW + FRESH
    )


@pytest.mark.parametrize(
    ("control", "seconds"),
    [
        ("", 86_400),
        ("max-age=60", 60),
        ("public, Max-Age=60, immutable", 60),
        ("max-age=99999999", 86_400),
        ("max-age=99999999999999999999", 86_400),
        ("no-cache", 0),
        ("max-age=60, must-revalidate", 0),
        ("no-store", None),
        ("private, no-store, max-age=5", None),
    ],
)
def test_freshness(control: str, seconds: int | None) -> None:
    found = freshness({"cache-control": control}, NOW)
    assert found == (None if seconds is None else NOW + timedelta(seconds=seconds))


@given(st.text(max_size=100))
def test_no_header_keeps_anything_longer_than_a_day(control: str) -> None:
    found = freshness({"cache-control": control}, NOW)
    assert found is None or NOW <= found <= NOW + FRESH


def test_ages() -> None:
    found = kept()
    assert found.is_fresh(NOW)
    assert not found.is_fresh(NOW + FRESH)
    assert not found.is_fresh(NOW - timedelta(seconds=1))  # the clock went back
    assert found.is_usable(NOW + FRESH)
    assert not found.is_usable(NOW + STALE)


def test_what_is_asked_to_see_whether_it_is_still_true() -> None:
    assert kept().conditions == {}
    assert kept(etag='"x"', **{"last-modified": "y"}).conditions == {
        "if-none-match": '"x"',
        "if-modified-since": "y",
    }


def test_what_is_kept_is_found_by_the_same_asker_alone(tmp_path: Path) -> None:
    cache = HttpCache(tmp_path / "http")
    cache.put(URL, kept(b"line\nline\n", etag='"1"'), secret="Bearer a")
    found = cache.get(URL, secret="Bearer a")
    assert found == kept(b"line\nline\n", etag='"1"')
    assert cache.get(URL) is None
    assert cache.get(URL, secret="Bearer b") is None
    assert stat.S_IMODE((tmp_path / "http").stat().st_mode) == 0o700
    assert "Bearer" not in "".join(p.read_text() for p in (tmp_path / "http").glob("*/*"))
    cache.forget(URL, secret="Bearer a")
    assert cache.get(URL, secret="Bearer a") is None
    cache.forget(URL)


@given(st.binary(max_size=300), st.integers(0, 300))
@example(b"", 206)  # the end of the line alone is gone
def test_a_damaged_entry_is_none(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, at: int
) -> None:
    cache = HttpCache(tmp_path_factory.mktemp("http"))
    cache.put(URL, kept(body))
    (path,) = (tmp_path_factory.getbasetemp()).glob(f"{cache._folder.name}/*/*.json")
    data = bytearray(path.read_bytes())
    at %= len(data)
    data[at] ^= 0xFF
    path.write_bytes(data)
    found = cache.get(URL)
    assert found is None or found.body == body
    path.write_bytes(data[:at])
    assert cache.get(URL) is None or at > len(data) - 1


def test_the_least_used_go_first(tmp_path: Path) -> None:
    cache = HttpCache(tmp_path, max_bytes=10_000)
    for number in range(6):
        cache.put(f"{URL}{number}", kept(b"x" * 2_000))
        path = cache._path(f"{URL}{number}", "")
        os.utime(path, (number, number))
    assert cache.get(f"{URL}0") is not None  # which makes it the newest
    cache.prune()
    there = [n for n in range(6) if cache.get(f"{URL}{n}") is not None]
    assert there == [0, 3, 4, 5]
    cache.put(f"{URL}large", kept(b"x" * 3_000))
    assert cache.get(f"{URL}large") is None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    cache = HttpCache(file)
    cache.put(URL, kept())
    assert cache.get(URL) is None
    cache.prune()


def test_what_breaks_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    cache = HttpCache(tmp_path)
    cache.put(URL, kept())
    assert list(tmp_path.glob("*/*")) == []
