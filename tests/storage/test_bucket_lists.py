"""Lists of objects: in pages, without end, and of many keys at once."""

from __future__ import annotations

import pytest

from sleap_rtc.errors import DataError
from sleap_rtc.storage import bucket_lists
from sleap_rtc.testing.seaweed import SeaweedServer

from .scripted import Script


def test_a_long_list_is_read_in_pages(script: Script) -> None:
    objects = b"<Contents><Key>%d</Key><Size>1</Size><LastModified>?</LastModified></Contents>"
    more = b"<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    script.answers = [
        (200, b"<R>" + objects % 1 + more + b"</R>"),
        (200, b"<R>" + objects % 2 + b"</R>"),
    ]
    assert [found.key for found in script.store().keys("")] == ["1", "2"]


def test_a_list_without_an_end_is_refused(script: Script) -> None:
    page = (
        b"<ListBucketResult><Contents><Key>a</Key><Size>1</Size></Contents>"
        b"<IsTruncated>true</IsTruncated>"
        b"<NextContinuationToken>%s</NextContinuationToken></ListBucketResult>"
    )
    script.answers = [(200, page % token) for token in (b"1", b"2", b"3", b"2")]
    found = script.store().keys("")
    assert [next(found).key for _ in range(4)] == ["a"] * 4
    with pytest.raises(DataError, match="no end"):
        next(found)
    assert len(script.asked) == 4


def listing(*keys: str, token: str = "") -> bytes:
    objects = "".join(f"<Contents><Key>{k}</Key><Size>1</Size></Contents>" for k in keys)
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
    return f"<R>{objects}{more if token else ''}</R>".encode()


def test_a_list_begins_where_it_is_needed(script: Script) -> None:
    """And what it doesn't have before its keys are all later is asked about by itself."""
    keys = [f"r/{number}" for number in range(100, 140)]
    script.answers = [
        (200, listing(*keys[:30], token="more")),
        (200, listing("r/13", *keys[30:38], "r/14", token="even more")),
        (404, b""),
        (200, b"x"),
    ]
    found = script.store().heads(keys)
    assert [each is not None for each in found].count(True) == 39
    (_, _, first), (_, _, second), *heads = script.questions
    assert (first["start-after"], first["max-keys"], first["prefix"]) == ("r/10", "40", "r/1")
    assert second["continuation-token"] == "more"
    assert not {"start-after", "max-keys"} & set(second)
    assert {method for method, _, _ in heads} == {"HEAD"}
    assert {path for _, path, _ in heads} == {"/b/r/138", "/b/r/139"}


@pytest.mark.slow
def test_many_are_looked_for_by_a_list(
    seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is too long, and then not again."""
    store = seaweed.make_bucket("many-heads")
    keys = [f"r/{number}" for number in range(60)]
    for number in range(0, 60, 2):
        store.create(keys[number], b"x" * number)
    alone: list[str] = []
    head = store.head
    monkeypatch.setattr(store, "head", lambda key: alone.append(key) or head(key))
    expected = [None if number % 2 else number for number in range(60)]

    def sizes() -> list[int | None]:
        return [None if found is None else found.size for found in store.heads(keys)]

    assert (sizes(), alone) == (expected, [])
    monkeypatch.setattr(bucket_lists, "_PAGE", 5)
    assert sizes() == expected
    assert 0 < len(alone) < 60
    alone.clear()
    assert sizes() == expected
    assert len(alone) == 60
