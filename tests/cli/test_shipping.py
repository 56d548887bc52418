"""What ``push-model`` and ``pull-model`` ask and tell; ``endtoend/test_moving.py`` really moves."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest

from sleap_rtc.cli import shipping
from sleap_rtc.client.api import AsyncClient
from sleap_rtc.client.moving import Came, Clash, Moved, Planned
from sleap_rtc.client.shipping import Failed, Offer, Shipped
from sleap_rtc.errors import AliasTaken, AlreadyExists, LinkLost
from sleap_rtc.transfer.choice import Situation, plan
from sleap_rtc.transfer.progress import Progress

ID = "0a1b2c3d"


def moved(how="added", **changes) -> Moved:
    given = {
        "direction": "push",
        "model": ID,
        "label": "fly",
        "model_type": "centroid",
        "how": how,
        "result": ID,
        "path": "/worker/models/centroid_0a1b2c3d",
        "size": 2_000_000,
        "sent": 2_000_000,
        "seconds": 2.0,
        "safety": "safe",
    }
    return Moved(**given | changes)


def clash(**changes) -> Clash:
    given = {
        "label": "fly",
        "where": "gpu-1",
        "model": ID,
        "other": "theirs",
        "created_at": "2026-03-01 00:00 UTC",
        "size": 1_000,
    }
    return Clash(**given | changes)


REFUSED = Failed(
    model=ID,
    label="fly",
    error=AlreadyExists(what=f"Another model with the id {ID} on gpu-1", hint="Say what."),
)


LINES = (
    "1. local: tried: both may be on one machine",
    "2. direct: tried: the peers may reach each other",
    "3. s3: storage has all of it",
    "4. webrtc: the link is there, whatever is between the peers",
)


@pytest.fixture
def ships(monkeypatch, home):
    """What moving gives, one time after the other; and what it was asked."""
    results, asked = [], []

    @contextlib.asynccontextmanager
    async def mover(self, worker, *, room=None, beside=(), say=None):
        asked.append(worker)
        for other in beside:
            say(f"{other} is left out: it is not online.")
        yield SimpleNamespace(handshake_s=0.25, worker=worker)

    async def ship(_mover, wish, *, on_model):
        asked.append(wish)
        on_model(0, 2, "fly", None)
        for phase in ("waiting", "copying", "receiving", "verifying"):
            on_model(0, 2, "fly", Progress(phase, 1_000_000, 2_000_000, 1e6, 1.0))
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(AsyncClient, "mover", mover)
    monkeypatch.setattr(AsyncClient, "room", lambda *_: SimpleNamespace(name="lab"))
    monkeypatch.setattr(shipping, "push_models", ship)
    monkeypatch.setattr(shipping, "pull_models", ship)
    return SimpleNamespace(results=results, asked=asked)


def push(cli, *more, **streams):
    return cli("push-model", "fly", "--worker", "gpu-1", *more, **streams)


def test_what_is_told(cli, ships) -> None:
    ships.results += [
        Shipped(
            moved=(
                moved(came=(Came(way="direct", source="ada", size=1_500_000),)),
                moved(
                    "renamed",
                    result=f"{ID}-2",
                    label=ID,
                    came=(
                        Came(way="s3", source="the room's storage", size=2_500_000),
                        Came(way="direct", source="ada", size=500_000),
                    ),
                ),
                moved("completed", sent=0),
                moved("replaced", trash="/worker/models/.trash/x", safety="flagged"),
                moved("known", result="77aa01bc"),
                moved("skipped"),
            ),
            offers=(
                Offer(alias="fly", models=(ID,), state="free"),
                Offer(alias="bee", models=(ID,), state="taken"),
                Offer(alias="ant", models=(ID,), state="ours", given=True),
            ),
        )
    ]
    done = push(cli, "--benchmark")
    assert done.code == 0
    assert "fly (0a1b2c3d): is on gpu-1, 2.0 MB\n" in done.out
    assert f"{ID}: is on gpu-1 as {ID}-2" in done.out
    assert "has its files on gpu-1, 2.0 MB, 0 B moved" in done.out
    assert "in place of another model" in done.out
    assert "is on gpu-1 already, as 77aa01bc" in done.out
    assert "skipped, 0a1b2c3d on gpu-1 is another model" in done.out
    assert "250 ms" in done.out
    assert "By way      2.5 MB s3, from the room's storage\n" in done.out
    assert "            2.0 MB direct, from ada\n" in done.out
    assert "in the trash for 30 days: /worker/models/.trash/x" in done.err
    assert "its safety is flagged, as found on gpu-1" in done.err
    assert "'fly' is free on gpu-1: add --alias fly" in done.err
    assert "'bee' is another model's on gpu-1" in done.err
    assert "It is called 'ant' on gpu-1." in done.err


def test_a_document(cli, ships) -> None:
    ships.results += [Shipped(moved=(moved(),), failed=(REFUSED, REFUSED))]
    done = push(cli, "--json", "--benchmark")
    assert done.code == 4
    [model] = done.document["models"]
    assert (model["how"], model["sent"]) == ("added", 2_000_000)
    assert [each["code"] for each in done.document["failed"]] == ["already_exists"] * 2
    assert done.document["benchmark"]["rate"] == 1_000_000
    assert "warning: fly: " in done.err


def test_without_a_person_a_clash_is_an_error_that_says_what_to_do(cli, ships) -> None:
    ships.results += [Shipped(failed=(REFUSED,), clashes={ID: clash()})]
    done = push(cli)
    assert done.code == 4
    assert "Another model with the id 0a1b2c3d on gpu-1" in done.err
    assert len(ships.asked) == 2


@pytest.mark.parametrize(
    ("typed", "choice"),
    [
        ("s\n", "skip"),
        ("overwrite\n", "overwrite"),
        ("?\n\nk\n", "keep-both"),
        ("keep both\n", "keep-both"),
    ],
)
def test_a_person_is_asked(cli, ships, typed, choice) -> None:
    first = moved("added", model="77aa01bc", label="bee")
    ships.results += [
        Shipped(moved=(first,), failed=(REFUSED,), clashes={ID: clash()}),
        Shipped(moved=(moved("known", model="77aa01bc", label="bee"), moved("replaced"))),
    ]
    done = push(cli, terminal=True, stdin=typed)
    assert done.code == 0
    assert "the id 0a1b2c3d is another model's, theirs, made 2026-03-01" in done.err
    assert "bee (77aa01bc): is on gpu-1, 2.0 MB" in done.out
    assert ships.asked[-1].choices == {ID: choice}


def test_what_may_not_be_overwritten_is_not_offered(cli, ships) -> None:
    ships.results += [
        Shipped(failed=(REFUSED,), clashes={ID: clash(locked="An owner may.")}),
        Shipped(moved=(moved("skipped"),)),
    ]
    done = push(cli, terminal=True, stdin="o\ns\n")
    assert done.code == 0
    assert "It can't be overwritten: An owner may." in done.err
    assert "[o]" not in done.err


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("n\n", 0), ("\n", 4)])
def test_a_free_name_is_offered_to_a_person(cli, ships, monkeypatch, typed, code) -> None:
    offer = Offer(alias="fly", models=(ID,), state="free")
    ships.results += [Shipped(moved=(moved(),), offers=(offer,))]
    called = []

    async def call_there(_mover, alias, models):
        called.append((alias, models))
        if code:
            raise AliasTaken(alias="fly", owner="77aa01bc")

    monkeypatch.setattr(shipping, "call_there", call_there)
    done = push(cli, terminal=True, stdin=typed)
    assert done.code == code
    assert called == ([] if typed == "n\n" else [("fly", (ID,))])
    assert ("It is called 'fly'" in done.err) is (typed == "y\n")


def test_a_name_for_what_was_pulled_is_given_here(cli, ships, home) -> None:
    entry = home.model("fly")
    offer = Offer(alias="bee", models=(entry.id,), state="free")
    ships.results += [Shipped(moved=(moved(direction="pull"),), offers=(offer,))]
    done = cli("pull-model", "fly", "--worker", "gpu-1", terminal=True, stdin="y\n")
    assert done.code == 0
    assert "Call it 'bee' here, too?" in done.err
    assert home.library.get("bee").id == entry.id


def test_a_network_that_goes_away(cli, ships) -> None:
    ships.results += [LinkLost(peer="gpu-1", why="it said goodbye")]
    assert push(cli).code == 5


def test_it_needs_a_worker(cli, home) -> None:
    done = cli("push-model", "fly")
    assert done.code == 2
    assert "--worker" in done.err


def test_the_ways_are_explained_and_nothing_moves(cli, ships) -> None:
    ways = plan(Situation(size=10**9, stored=10**9))
    ships.results += [Shipped(plans=(Planned(model=ID, label="fly", size=10**9, plan=ways),))] * 2
    done = cli("pull-model", "fly", "--worker", "gpu-1", "--worker", "gpu-2", "--explain")
    assert done.code == 0, done.err
    assert done.out.splitlines() == ["fly, 1.0 GB:", *("  " + line for line in LINES)]
    assert "gpu-2 is left out" in done.err
    worker, wish = ships.asked
    assert (worker, wish.explain) == ("gpu-1", True)
    [told] = push(cli, "--explain", "--json").document["plans"]
    assert [(way["way"], way["used"]) for way in told["ways"]] == [
        *(("local", True), ("direct", True)),
        *(("s3", True), ("webrtc", True)),
    ]
