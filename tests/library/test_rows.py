import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from sleap_rtc.domain.models import Location, Metrics, ModelRecord, Training
from sleap_rtc.errors import InvalidSearch, UsageError
from sleap_rtc.library.entries import Position, Query, cursor_of
from sleap_rtc.library.registry import Registry
from sleap_rtc.library.rows import family

RecordOf = Callable[..., ModelRecord]


@pytest.fixture
def names(
    registry: Registry,
    record_of: RecordOf,
    clock: Callable[[], object],
    files_in: Callable[..., object],
) -> Callable[..., list[str]]:
    """A library of five models, and the names that a query finds in it."""
    now = record_of().created_at
    gpu = Location(kind="worker", name="gpu-01", last_seen=now)
    lab = Location(kind="room", name="lab", last_seen=now)
    best = Metrics(best_val_loss=0.1, final_val_loss=0.9, epochs=3)
    made = Training(hyperparameters={"backbone": "unet", "filters": 64})
    for number, (name, model_type, changes) in enumerate(
        [
            (
                "old",
                "bottomup",
                {"status": "completed", "metrics": best, "tags": ("x", "y"), "training": made},
            ),
            ("Mouse run", "centroid", {"status": "failed", "tags": ("x",), "notes": "Käfig 7"}),
            ("fly-run_2", "centroid", {"metrics": Metrics(final_val_loss=0.5)}),
            ("fly run", "centered_instance", {"source": "hub", "locations": (gpu, lab)}),
            ("here", "single_instance", {"status": "imported", "locations": (gpu,)}),
        ]
    ):
        record = record_of(name, model_type, created_at=now + timedelta(days=number), **changes)
        if name == "here":
            folder = registry.incoming / "one"
            files = files_in(folder, best_ckpt="x" * 50)
            registry.place(folder, replace(record, files=files))
        else:
            registry.register(record)

    def found(**query: object) -> list[str]:
        page = registry.list(Query(**query))  # type: ignore[arg-type]
        return [entry.record.name for entry in page.entries]

    return found


NAMED = ["fly run", "fly-run_2", "here", "Mouse run", "old"]
ALL = ["here", "fly run", "fly-run_2", "Mouse run", "old"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ALL),
        ({"reverse": True}, ALL[::-1]),
        ({"sort": "name"}, ["fly run", "fly-run_2", "here", "Mouse run", "old"]),
        ({"sort": "type"}, ["old", "fly run", "fly-run_2", "Mouse run", "here"]),
        ({"sort": "loss"}, ["old", "fly-run_2", "here", "fly run", "Mouse run"]),
        ({"sort": "size"}, ["here", "fly run", "fly-run_2", "Mouse run", "old"]),
        ({"statuses": ("failed", "completed")}, ["Mouse run", "old"]),
        ({"types": ("centroid",)}, ["fly-run_2", "Mouse run"]),
        ({"sources": ("hub",)}, ["fly run"]),
        ({"tags": ("x",)}, ["Mouse run", "old"]),
        ({"tags": ("x", "y")}, ["old"]),
        ({"where": "local"}, ["here"]),
        ({"where": "worker"}, ["here", "fly run"]),
        ({"where": "room"}, ["fly run"]),
        ({"where": "both"}, ["here"]),
        ({"at": "gpu-01"}, ["here", "fly run"]),
        ({"at": "lab", "statuses": ("completed",)}, []),
        ({"text": "fly"}, ["fly run", "fly-run_2"]),
        ({"text": "FL"}, ["fly run", "fly-run_2"]),
        ({"text": "run mou"}, ["Mouse run"]),
        ({"text": "fly-run_2"}, ["fly-run_2"]),
        ({"text": "kafig 7"}, ["Mouse run"]),
        ({"text": "centered_instance"}, ["fly run"]),
        ({"text": "y"}, ["old"]),
        ({"text": "zebra"}, []),
        ({"text": '" OR *"'}, []),
        ({"text": "NEAR(fly AND"}, []),
        ({"text": "tag:X,q -tag:y"}, ["Mouse run"]),
        ({"tags": ("X",)}, ["Mouse run", "old"]),
        ({"text": "loss<=0.5"}, ["fly-run_2", "old"]),
        ({"text": "-loss<0.3"}, ["here", "fly run", "fly-run_2", "Mouse run"]),
        ({"text": "loss>0"}, ["fly-run_2", "old"]),
        ({"text": "epochs>=0"}, ["old"]),
        ({"text": "-epochs>=0"}, ALL[:-1]),
        ({"text": "size>49"}, ["here"]),
        ({"text": "size:50"}, ["here"]),
        ({"text": "-fly"}, ["here", "Mouse run", "old"]),
        ({"text": "run -fly"}, ["Mouse run"]),
        ({"text": "-notes:kafig type:c*"}, ["fly run", "fly-run_2"]),
        ({"text": "notes:kafig,zebra"}, ["Mouse run"]),
        ({"text": "notes:fly"}, []),
        ({"text": "config:64"}, ["old"]),
        ({"text": "family:unet"}, ["old"]),
        ({"text": "unet filters"}, ["old"]),
        ({"text": "location:nowhere"}, ["fly-run_2", "Mouse run", "old"]),
        ({"text": "location:room,both"}, ["here", "fly run"]),
        ({"text": "at:GPU-01 source:hub"}, ["fly run"]),
        ({"text": "status:failed,completed", "sort": "loss"}, ["old", "Mouse run"]),
        ({"text": "created:2026-03", "sort": "name"}, NAMED),
        ({"text": "created>2026-03"}, []),
        ({"text": "created>=2026 created<2027", "sort": "name"}, NAMED),
        ({"text": "fly", "sort": "rank"}, ["fly run", "fly-run_2"]),
        ({"text": "run", "sort": "rank", "types": ("centroid",)}, ["fly-run_2", "Mouse run"]),
        ({"sort": "rank"}, ALL),
        ({"sort": "rank", "reverse": True}, ALL[::-1]),
        ({"text": "  "}, ALL),
        ({"text": "fly", "sort": "name", "reverse": True}, ["fly-run_2", "fly run"]),
    ],
)
def test_filters_and_sorts(
    names: Callable[..., list[str]], query: dict[str, object], expected: list[str]
) -> None:
    assert names(**query) == expected


def test_aliases_are_found(names: Callable[..., list[str]], registry: Registry) -> None:
    old = registry.list(Query(text="old")).entries[0]
    registry.set_alias("the-best", old.id)
    assert names(text="best") == ["old"]
    assert registry.list(Query(text="best")).entries[0].alias == "the-best"


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sort", ["date", "name", "type", "loss", "size"])
@pytest.mark.parametrize("limit", [1, 2, 5])
def test_pages_give_every_model_once_and_in_order(
    names: Callable[..., list[str]], registry: Registry, sort: str, reverse: bool, limit: int
) -> None:
    whole = names(sort=sort, reverse=reverse)
    assert sorted(whole) == sorted(ALL)
    paged: list[str] = []
    cursor = None
    for _ in itertools.count():
        query = Query(sort=sort, reverse=reverse, limit=limit, cursor=cursor)  # type: ignore[arg-type]
        page = registry.list(query)
        assert 1 <= len(page.entries) <= limit
        paged += [entry.record.name for entry in page.entries]
        cursor = page.cursor
        if cursor is None:
            break
    assert paged == whole


def test_a_page_after_a_deleted_model_goes_on(
    names: Callable[..., list[str]], registry: Registry
) -> None:
    first = registry.list(Query(limit=2))
    registry.delete(first.entries[-1].id)
    rest = registry.list(Query(limit=5, cursor=first.cursor))
    assert [entry.record.name for entry in rest.entries] == ALL[2:]


@pytest.mark.parametrize("limit", [0, -1, 1_001])
def test_a_page_has_a_bounded_size(registry: Registry, limit: int) -> None:
    with pytest.raises(UsageError, match="1 to 1000 models"):
        registry.list(Query(limit=limit))


def test_a_listed_model_is_the_read_one(
    names: Callable[..., list[str]], registry: Registry
) -> None:
    assert len(names()) == 5
    for entry in registry.list().entries:
        assert registry.get(entry.id) == entry


@pytest.mark.parametrize(
    ("query", "number"),
    [({}, 5), ({"text": "fly"}, 2), ({"text": "run -fly"}, 1), ({"statuses": ("failed",)}, 1)],
)
def test_models_are_counted(
    names: Callable[..., list[str]], registry: Registry, query: dict[str, object], number: int
) -> None:
    assert registry.count(Query(limit=1, **query)) == number  # type: ignore[arg-type]
    page = registry.list(Query(limit=1, **query))  # type: ignore[arg-type]
    if page.cursor is not None:
        rest = Query(limit=1, cursor=page.cursor, **query)  # type: ignore[arg-type]
        assert registry.count(rest) == number - 1


def test_what_is_in_use(names: Callable[..., list[str]], registry: Registry) -> None:
    types = ["bottomup", "centered_instance", "centroid", "single_instance"]
    assert registry.in_use("type") == types
    assert registry.in_use("type", "CENT") == types[1:3]
    assert registry.in_use("type", most=2) == types[:2]
    assert registry.in_use("tag", "x") == ["x"]
    assert registry.in_use("place") == ["gpu-01", "lab"]


def test_ranked_pages_give_every_model_once(
    registry: Registry, record_of: RecordOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        registry.register(record_of(f"fly {number}", notes="fly " * number))
    for most in (100, 5):  # with more than 5 hits, what is found goes by where the words are
        monkeypatch.setattr("sleap_rtc.library.rows.MAX_RANKED", most)
        for reverse in (False, True):
            query = Query(text="fly", sort="rank", reverse=reverse)
            whole = [entry.id for entry in registry.list(query).entries]
            paged: list[str] = []
            cursor = None
            while True:
                page = registry.list(replace(query, limit=2, cursor=cursor))
                paged += [entry.id for entry in page.entries]
                cursor = page.cursor
                if cursor is None:
                    break
            assert paged == whole
            assert len(set(paged)) == 9


WHERE = [
    {"notes": "fly"},
    {"tags": ("fly",)},
    {"name": "a fly"},
    {"training": Training(device="fly 4090")},
    {"notes": "nothing of it"},
    {"name": "The Fly", "notes": "fly fly"},
    {"notes": "flying", "training": Training(hyperparameters={"backbone": "fly-net"})},
]


@pytest.fixture
def many(
    registry: Registry,
    record_of: RecordOf,
    clock: Callable[[], datetime],
    monkeypatch: pytest.MonkeyPatch,
) -> Registry:
    """A library of models that have a word in other places each, too many to be weighed."""
    monkeypatch.setattr("sleap_rtc.library.rows.MAX_RANKED", 1)
    for number, changes in enumerate(WHERE):
        made = clock() + timedelta(days=number)
        given = {"name": f"m{number}"} | changes
        registry.register(record_of(created_at=made, **given))
    alias = registry.list(Query(text="nothing")).entries[0]
    registry.set_alias("fly-1", alias.id)
    return registry


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
@pytest.mark.parametrize("reverse", [False, True])
def test_of_many_models_where_the_words_are_decides(
    many: Registry, limit: int, reverse: bool
) -> None:
    found: list[str] = []
    query = Query(text="fly", sort="rank", limit=limit, reverse=reverse)
    assert many.count(query) == 7
    while True:
        page = many.list(query)
        found += [entry.record.name for entry in page.entries]
        if page.cursor is None:
            break
        query = replace(query, cursor=page.cursor)
        assert many.count(query) == 7 - len(found)
    expected = ["The Fly", "m4", "a fly", "m6", "m1", "m3", "m0"]
    assert found == (expected[::-1] if reverse else expected)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("notes:fly", 2),
        ("notes:fly,nothing", 3),
        ('notes:fly "fly"', 2),
        ("name:fly", 2),
        ("fly -name:fly", 5),
        ("fly tag:fly", 1),
        ('"the fly"', 1),
        ("fly 4090", 1),
        ("centroid fly", 7),
        ('fly OR "', None),
    ],
)
def test_whatever_is_searched_for_among_many_is_found_whole(
    many: Registry, text: str, number: int | None
) -> None:
    query = Query(text=text, sort="rank", limit=3)
    if number is None:
        with pytest.raises(InvalidSearch):
            many.list(query)
        return
    by_date = {entry.id for entry in many.list(Query(text=text)).entries}
    found: list[str] = []
    while True:
        page = many.list(query)
        found += [entry.id for entry in page.entries]
        if page.cursor is None:
            break
        query = replace(query, cursor=page.cursor)
    assert len(found) == number
    assert set(found) == by_date


@pytest.mark.parametrize(
    ("sort", "key", "row", "text"),
    [
        ("field", 7, 1, "fly"),
        ("field", -1, 1, "fly"),
        ("field", "x", 1, "fly"),
        ("field", 0.5, 1, "fly"),
        ("field", 0, 1, ""),
        ("rank", 0.0, 1, ""),
    ],
)
def test_a_made_up_cursor_is_refused_and_the_index_stays(
    many: Registry, sort: str, key: Any, row: int, text: str
) -> None:
    assert many.list().entries
    cursor = cursor_of(Position(sort=sort, reverse=False, key=key, row=row))  # type: ignore[arg-type]
    for ask in (many.list, many.count):
        with pytest.raises(UsageError, match="not one that a list gave"):
            ask(Query(text=text, sort="rank", cursor=cursor))
    assert many.recovered is None


def test_a_crowd_of_one_moment_is_listed_whole(
    registry: Registry, record_of: RecordOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sleap_rtc.library.rows._CROWD", 2)
    made = {registry.register(record_of(f"r{number}")).id for number in range(12)}
    assert {entry.id for entry in registry.list().entries} == made
    for moment in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        far = record_of(f"{moment}", created_at=moment)
        made.add(registry.register(far).id)
    assert {entry.id for entry in registry.list().entries} == made


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"training": Training(hyperparameters={"backbone": "unet"})}, "unet"),
        ({"canonical": '{"backbone":{"swint":{}}}'}, "swint"),
        ({"canonical": '{"backbone":[1]}'}, ""),
        ({"canonical": "[]"}, ""),
        ({"canonical": "{"}, ""),
        ({"canonical": None}, ""),
    ],
)
def test_a_backbone_is_found(record_of: RecordOf, changes: dict[str, object], found: str) -> None:
    assert family(record_of(**changes)) == found
