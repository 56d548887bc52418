"""Asking a worker about its library: time-outs, kept answers, changes, and answers that don't fit.

Over real connections: tests/endtoend/test_library.py.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from sleap_rtc.client import asking
from sleap_rtc.client.asking import ASK_S, TTL_S, WorkerLibrary
from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.errors import (
    DeadlineExceeded,
    FeatureMissing,
    LinkLost,
    NoLibrary,
    PeerUnreachable,
    ProtocolError,
    SourceChanged,
    UnknownModel,
    UsageError,
)
from sleap_rtc.protocol.library import (
    AskModel,
    CheckModels,
    FileTold,
    LibraryChanged,
    ListedModel,
    ListModels,
    ModelInfoTold,
    ModelsChecked,
    ModelsTold,
    PartTold,
    WantPart,
    WatchLibrary,
)
from sleap_rtc.protocol.link import Accepted
from sleap_rtc.protocol.session import Answered, Send, Session

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Link:
    """A link whose other side is a function."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.blocks = 0
        self.answer: Callable[[Any], Any] = lambda body: 1 / 0

    async def request(self, body: Any, *, within_s: float = 0) -> Any:
        assert within_s == ASK_S
        self.asked.append(body)
        told = self.answer(body)
        if isinstance(told, Exception):
            raise told
        return told

    def want_blocks(self) -> None:
        self.blocks += 1


def listed(number: int, **changes: Any) -> ListedModel:
    given = {
        "id": f"{number:08x}",
        "name": f"run {number}",
        "model_type": "centroid",
        "status": "completed",
        "source": "worker-training",
        "created_at": NOW,
    }
    return ListedModel(**given | changes)


def record(number: int = 1, **changes: Any) -> ModelRecord:
    given = {
        "id": f"{number:08x}",
        "name": "run",
        "model_type": "centroid",
        "status": "completed",
        "source": "worker-training",
        "created_at": NOW,
    }
    return ModelRecord(**given | changes)


FILES = tuple(
    FileTold(file=ModelFile(path=f"f{n}", size=1, blake3=f"{n:064x}"), state="there")
    for n in range(5)
)


def pages_of_two(body: AskModel) -> ModelInfoTold:
    told = FILES[body.first : body.first + 2]
    return ModelInfoTold(record=record(), files=5, first=body.first, told=told, alias="fly")


@pytest.fixture
def link() -> Link:
    return Link()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def library(link: Link, clock: Clock) -> WorkerLibrary:
    made = WorkerLibrary("gpu-1", clock=clock)
    made.link = link
    return made


# ── time ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("error", [DeadlineExceeded, PeerUnreachable])
async def test_no_answer_is_asked_for_once_more(library, link, error) -> None:
    answers = [error(what="An answer", seconds="10", peer="gpu-1", why="w"), ModelsTold(models=())]
    link.answer = lambda _: answers.pop(0)
    assert (await library.page(ListModels())).models == ()
    assert len(link.asked) == 2


async def test_no_answer_twice_is_an_error(library, link) -> None:
    link.answer = lambda _: DeadlineExceeded(what="An answer of gpu-1", seconds="10")
    with pytest.raises(DeadlineExceeded):
        await library.page(ListModels())
    assert len(link.asked) == 2


async def test_a_refusal_is_final(library, link) -> None:
    for error in (UnknownModel(name="fly"), FeatureMissing(peer="gpu-1", what="x")):
        link.asked.clear()
        link.answer = lambda _, error=error: error
        with pytest.raises(type(error)):
            await library.info("fly")
        assert len(link.asked) == 1


def test_the_time_out_is_ten_seconds_of_the_links_own_clock() -> None:
    """What turns silence into the error above: the machine of the link, at a clock of the test."""
    session = Session(now=0.0, peer="gpu-1")
    session.ask(ListModels(), id="a", now=0.0, within_s=ASK_S)
    assert not any(isinstance(effect, Answered) for effect in session.tick(9.99))
    effects = session.tick(10.0)
    (answered,) = [effect for effect in effects if isinstance(effect, Answered)]
    assert isinstance(answered.result, DeadlineExceeded)
    assert any(isinstance(effect, Send) and effect.frame.id == "a" for effect in effects)


# ── keeping ──────────────────────────────────────────────────────────────────


async def test_answers_are_kept_for_their_time(library, link, clock) -> None:
    link.answer = lambda _: ModelsTold(models=(listed(1),))
    first = await library.page(ListModels())
    clock.now += TTL_S - 0.01
    assert await library.page(ListModels()) is first
    assert len(link.asked) == 1
    await library.page(ListModels(sort="name"))  # another question
    assert len(link.asked) == 2
    clock.now += 0.01
    await library.page(ListModels())
    assert len(link.asked) == 3


async def test_an_error_is_not_kept(library, link) -> None:
    link.answer = lambda _: UnknownModel(name="fly")
    for _ in range(2):
        with pytest.raises(UnknownModel):
            await library.info("fly")
    assert len(link.asked) == 2


async def test_a_change_drops_lists_and_what_was_known_of_the_model(library, link) -> None:
    def answer(body: Any) -> Any:
        if isinstance(body, AskModel):
            return ModelInfoTold(record=record(int(body.name, 16)))
        if isinstance(body, CheckModels):
            return ModelsChecked(exist=(True,))
        return ModelsTold(models=(listed(1), listed(2)))

    async def ask_all() -> list[Any]:
        link.asked.clear()
        await library.page(ListModels())
        await library.info("00000001")
        await library.info("00000002")
        await library.exists("00000001")
        return [getattr(body, "name", type(body).__name__) for body in link.asked]

    link.answer = answer
    told = []
    library.on_change = told.append
    everything = ["ListModels", "00000001", "00000002", "CheckModels"]
    assert await ask_all() == everything
    assert await ask_all() == []
    library.noticed(LibraryChanged(models=("00000001",)))
    assert await ask_all() == ["ListModels", "00000001", "CheckModels"]
    library.noticed(LibraryChanged())
    assert await ask_all() == everything
    assert told == [("00000001",), ()]


async def test_an_answer_that_a_change_overtook_is_not_kept(library, link) -> None:
    def answer(_: Any) -> ModelsTold:
        if len(link.asked) == 1:
            library.noticed(LibraryChanged(models=("00000001",)))
        return ModelsTold(models=(listed(1),))

    link.answer = answer
    for _ in range(3):
        await library.page(ListModels())
    assert len(link.asked) == 2


async def test_only_so_many_answers_are_kept(library, link, monkeypatch) -> None:
    monkeypatch.setattr(asking, "MAX_KEPT", 2)
    link.answer = lambda _: ModelsChecked(exist=(True,))
    for name in ("a", "b", "c", "a", "c"):
        await library.exists(name)
    assert [body.names for body in link.asked] == [("a",), ("b",), ("c",), ("a",)]


class Connection:
    """A new connection of the link."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[Any] = []

    async def request(self, body: Any, **_: Any) -> Accepted:
        self.asked.append(body)
        if self.error is not None:
            raise self.error
        return Accepted()


async def test_a_new_connection_is_asked_for_changes_and_nothing_old_is_believed(
    library, link
) -> None:
    link.answer = lambda _: ModelsTold(models=())
    await library.page(ListModels())
    connection = Connection()
    await library.again(connection)
    assert connection.asked == [WatchLibrary()]
    await library.page(ListModels())
    assert len(link.asked) == 2


@pytest.mark.parametrize(
    "error",
    [
        FeatureMissing(peer="gpu-1", what="tell"),
        NoLibrary(why="gone"),
        DeadlineExceeded(what="An answer", seconds="10"),
    ],
)
async def test_a_worker_that_tells_of_no_changes_can_be_asked(library, link, error) -> None:
    await library.again(Connection(error))
    with pytest.raises(LinkLost):
        await library.again(Connection(LinkLost(peer="gpu-1", why="cut")))


# ── pages ────────────────────────────────────────────────────────────────────


async def test_models_over_several_pages(library, link) -> None:
    def answer(body: ListModels) -> ModelsTold:
        at = int(body.cursor or 0)
        end = min(at + min(body.limit, 3), 8)
        models = tuple(listed(n) for n in range(at, end))
        more = 8 - end if body.count else None
        return ModelsTold(models=models, cursor=str(end) if end < 8 else None, more=more)

    link.answer = answer
    found = await library.models(ListModels())
    assert [model.id for model in found.models] == [f"{n:08x}" for n in range(8)]
    assert found.more == 0
    found = await library.models(ListModels(sort="name"), limit=5)
    assert (len(found.models), found.more) == (5, 3)


async def test_the_files_of_a_model_over_several_pages(library, link) -> None:
    link.answer = pages_of_two
    model = await library.info("fly")
    assert (model.alias, model.cut) == ("fly", False)
    assert model.files == FILES
    assert model.record.files == tuple(each.file for each in FILES)
    assert [body.first for body in link.asked] == [0, 2, 4]
    assert [body.name for body in link.asked] == ["fly", "00000001", "00000001"]


async def test_a_model_that_changes_while_it_is_told_is_asked_for_again(library, link) -> None:
    def answer(body: AskModel) -> ModelInfoTold:
        told = pages_of_two(body)
        return replace(told, record=record(notes="news")) if len(link.asked) > 1 else told

    link.answer = answer
    assert (await library.info("fly")).record.notes == "news"
    link.asked.clear()
    link.answer = lambda body: replace(
        pages_of_two(body), record=record(notes=str(len(link.asked)))
    )
    with pytest.raises(SourceChanged):
        await library.info("other")


# ── answers that don't fit ───────────────────────────────────────────────────


@pytest.mark.parametrize(
    "told",
    [
        Accepted(),
        ModelsTold(models=(), cursor="on and on"),
        ModelsTold(models=tuple(map(listed, range(3)))),
    ],
    ids=["another kind", "no end", "more than asked for"],
)
async def test_a_page_that_was_not_asked_for(library, link, told) -> None:
    link.answer = lambda _: told
    with pytest.raises(ProtocolError):
        await library.page(ListModels(limit=2))


@pytest.mark.parametrize(
    "answer",
    [
        lambda body: replace(pages_of_two(body), first=body.first + 1),
        lambda body: replace(pages_of_two(body), told=FILES[:2] if body.first == 0 else ()),
        lambda body: replace(pages_of_two(body), files=1),
        lambda body: replace(pages_of_two(body), record=record(files=(FILES[0].file,))),
    ],
    ids=["elsewhere", "none", "more", "twice"],
)
async def test_files_that_were_not_asked_for(library, link, answer) -> None:
    link.answer = answer
    with pytest.raises(ProtocolError):
        await library.info("fly")


async def test_a_check_of_other_names(library, link) -> None:
    link.answer = lambda _: ModelsChecked(exist=(True, True))
    with pytest.raises(ProtocolError):
        await library.exists("fly")
    assert await library.exists() == ()


async def test_a_part_is_fetched_over_block_connections(library, link) -> None:
    package = PackageRef(id="0" * 64, size=1, files=1, listing=50)
    link.answer = lambda _: PartTold(package=package)
    assert await library.part("00000001", ("1" * 64,)) == package
    assert link.asked == [WantPart(model="00000001", hashes=("1" * 64,))]
    assert link.blocks == 1
    link.answer = lambda _: PartTold(package=replace(package, files=2))
    with pytest.raises(ProtocolError):
        await library.part("00000001", ("1" * 64,))


@pytest.mark.parametrize(
    "query", [ListModels(text="x" * 1_001), ListModels(tags=("",)), ListModels(types=("x" * 65,))]
)
async def test_a_question_beyond_all_bounds_is_not_sent(library, link, query) -> None:
    with pytest.raises(UsageError):
        await library.page(query)
    with pytest.raises(UsageError):
        await library.info("x" * 201)
    assert link.asked == []


async def test_a_worker_without_end(library, link, monkeypatch) -> None:
    monkeypatch.setattr(asking, "MOST_MODELS", 10)
    link.answer = lambda body: ModelsTold(
        models=(listed(1),), cursor=f"{len(link.asked)}", more=99 if body.count else None
    )
    found = await library.models(ListModels())
    assert (len(found.models), found.more) == (10, 99)
