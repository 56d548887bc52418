"""Whether a model's file is the one that its record lists."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.library.checking import content_is, looks_like, place_of, state_of


@pytest.fixture
def cache(tmp_path) -> HashCache:
    return HashCache(tmp_path / "hashes")


@pytest.mark.parametrize(
    ("do", "looks", "state"),
    [
        (lambda path: None, "ok", "ok"),
        (lambda path: path.unlink(), "missing", "missing"),
        (lambda path: path.write_text("short"), "changed", "changed"),
        (lambda path: path.write_text("WEIGHTS"), "ok", "changed"),
        (lambda path: (path.unlink(), path.mkdir()), "changed", "changed"),
        (lambda path: (path.unlink(), path.symlink_to("elsewhere")), "changed", "changed"),
        (lambda path: (path.unlink(), path.symlink_to(path)), "changed", "changed"),
    ],
    ids=["as it was", "gone", "short", "another", "folder", "link", "link to itself"],
)
def test_states(tmp_path, files_in, do, looks, state) -> None:
    (file,) = files_in(tmp_path)
    do(tmp_path / file.path)
    assert looks_like(tmp_path, file) == looks
    assert state_of(tmp_path, file, HashCache(tmp_path / "hashes")) == state


def test_a_file_by_link(tmp_path, files_in, cache) -> None:
    theirs, model = tmp_path / "theirs", tmp_path / "model"
    (file,) = files_in(theirs)
    model.mkdir()
    linked = replace(file, link=str((theirs / file.path).resolve()))
    assert state_of(model, linked, cache) == "missing"  # nothing leads there
    (model / file.path).symlink_to(theirs / file.path)
    assert state_of(model, linked, cache) == "ok"
    assert place_of(model, linked) == (theirs / file.path).resolve()
    (theirs / file.path).write_text("WEIGHTS")
    assert state_of(model, linked, cache) == "changed"
    (theirs / file.path).unlink()
    assert state_of(model, linked, cache) == "missing"


def test_content_at_any_path(tmp_path, files_in, cache) -> None:
    (file,) = files_in(tmp_path)
    assert content_is(tmp_path / file.path, file, cache) == "ok"
    assert content_is(tmp_path / "gone" / file.path, file, cache) == "missing"
    assert content_is(tmp_path / file.path / "deeper", file, cache) == "changed"
    assert content_is(tmp_path, file, cache) == "changed"
