from sleap_rtc.library.telling import counted, unseen


def test_what_is_taken_is_counted_on_the_way() -> None:
    told: list[tuple[int, int]] = []
    items = counted("abc", 3, lambda done, of: told.append((done, of)))
    assert next(items) == "a"
    assert told == [(0, 3)]
    assert list(items) == ["b", "c"]
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_more_than_there_were_is_no_more_than_all() -> None:
    told: list[tuple[int, int]] = []
    assert list(counted("abc", 1, lambda done, of: told.append((done, of)))) == ["a", "b", "c"]
    assert told == [(0, 1), (1, 1), (1, 1), (1, 1)]
    assert list(counted("", 0, unseen)) == []
