"""Changes that somebody else made to a library are noticed by their marks."""

from __future__ import annotations

import time

from sleap_rtc.library.marks import ALL, KEPT_S, changing, names
from sleap_rtc.library.watching import Changed, LibraryWatch


class Now:
    def __init__(self) -> None:
        self.ns = time.time_ns()

    def __call__(self) -> int:
        return self.ns


def test_what_another_process_did_is_noticed_once(open_registry, record_of) -> None:
    mine, theirs = open_registry(), open_registry("their-index")
    old = theirs.register(record_of("old"))
    watch = LibraryWatch(mine.models_dir)
    assert not watch.look()
    made = theirs.register(record_of("new"))
    assert watch.look() == Changed(models=(made.id,))
    assert not watch.look()
    theirs.update(old.id, lambda record: record)  # a change that changes nothing may be told
    watch.look()
    theirs.set_alias("fly", old.id)
    theirs.delete(made.id)
    assert set(watch.look().models) == {old.id, made.id}
    assert not watch.look()


def test_a_library_that_is_not_there_yet(open_registry, record_of) -> None:
    registry = open_registry()
    watch = LibraryWatch(registry.models_dir)
    assert not watch.look()
    made = registry.register(record_of("first"))
    assert watch.look().models == (made.id,)


def test_of_a_great_many_changes_no_model_is_named(models) -> None:
    watch = LibraryWatch(models)
    with changing(models, [ALL]):
        assert not watch.look()
    assert watch.look() == Changed(any=True)
    assert not watch.look()


def test_whoever_made_many_changes_and_died_is_noticed(models) -> None:
    watch = LibraryWatch(models)
    with changing(models, [ALL]):
        (name,) = names(models)
        late = LibraryWatch(models)
        assert not watch.look()
        assert not late.look()
    (models / ".changes" / name.replace("~", "-")).rename(models / ".changes" / name)
    for each in (watch, late):  # nobody holds its lock any more
        assert each.look() == Changed(any=True)
        assert not each.look()
    assert not LibraryWatch(models).look()


def test_whoever_slept_longer_than_marks_are_kept_may_have_missed_some(open_registry) -> None:
    now = Now()
    watch = LibraryWatch(open_registry().models_dir, now_ns=now)
    now.ns += int(KEPT_S * 1e9)
    assert watch.look() == Changed(any=True)
    assert not watch.look()


def test_an_old_folder_is_not_listed_again(models, monkeypatch) -> None:
    from sleap_rtc.library import watching  # noqa: PLC0415 - to look inside

    folder = models / ".changes"
    folder.mkdir(parents=True)
    now = Now()
    now.ns += 10_000_000_000
    watch = LibraryWatch(models, now_ns=now)
    monkeypatch.setattr(watching.marks, "names", lambda _: 1 / 0)
    assert not watch.look()


def test_a_strange_name_among_the_marks_says_nothing(models) -> None:
    watch = LibraryWatch(models)
    (models / ".changes").mkdir(parents=True)
    (models / ".changes" / "what-is-this").touch()
    (models / ".changes" / f"{'0' * 16}-nomodel").touch()
    assert not watch.look()
