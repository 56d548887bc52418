"""What ``push-model`` and ``pull-model`` ask and tell; ``endtoend/test_moving.py`` really moves."""

from __future__ import annotations

import contextlib
import errno
import os
from types import SimpleNamespace

import pytest

from sleap_rtc.auth.store import DeviceStore, RoomEntry
from sleap_rtc.cli import shipping
from sleap_rtc.client.api import AsyncClient
from sleap_rtc.client.moving import Came, Clash, Moved, Planned
from sleap_rtc.client.shipping import Failed, Offer, Shipped
from sleap_rtc.errors import AliasTaken, AlreadyExists, LinkLost
from sleap_rtc.testing.made_room import MadeRoom
from sleap_rtc.transfer.choice import Situation, plan
from sleap_rtc.transfer.progress import OfFile, Progress
from sleap_rtc.transports.connection import Packets

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
    results, asked, sent = [], [], Packets(sent=2_000, again=3)

    @contextlib.asynccontextmanager
    async def mover(self, worker, *, room=None, beside=(), wanted=(), say=None):
        asked.append(worker)
        for other in beside:
            say(f"{other} is left out. It is not online.")
        why = f"no other worker has {wanted}" if worker is None else ""

        async def packets():
            return sent

        link = SimpleNamespace(packets=packets)
        yield SimpleNamespace(handshake_s=0.25, worker=worker or "gpu-9", why=why, link=link)

    async def ship(_mover, wish, *, on_model):
        asked.append(wish)
        on_model(0, 2, "fly", None)
        for phase in ("storing", "waiting", "copying", "receiving", "verifying"):
            on_model(0, 2, "fly", Progress(phase, 1_000_000, 2_000_000, 1e6, 1.0))
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(AsyncClient, "mover", mover)
    monkeypatch.setattr(AsyncClient, "room", lambda *_: SimpleNamespace(name="lab"))
    monkeypatch.setattr(shipping, "check_known", lambda *_: None)
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
    assert "fly (0a1b2c3d): is on gpu-1, 2.0 MB, by direct\n" in done.out
    assert f"{ID}: is on gpu-1 as {ID}-2, 2.0 MB, by s3 and direct: its id is" in done.out
    assert "has its files on gpu-1, 2.0 MB, 0 B moved, the rest was there" in done.out
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


def test_quiet_only_ids_of_what_is_there_are_told(cli, ships) -> None:
    ships.results += [
        Shipped(
            moved=(moved("renamed", result=f"{ID}-2"), moved("known"), moved("skipped")),
            failed=(REFUSED,),
        )
    ]
    done = push(cli, "--quiet")
    assert (done.code, done.out) == (4, f"{ID}-2\n{ID}\n")


def test_storing_is_told_from_what_the_worker_fetches_then(cli, ships) -> None:
    ships.results += [Shipped(moved=(moved(),))]
    assert "fly to gpu-1 (1 of 2 models): storing, 1.0 MB of 2.0 MB, 1.0 MB/s" in push(cli).err


def test_what_was_sent_again_is_told_as_far_as_it_is_known(cli, ships) -> None:
    came = (Came(way="webrtc", source="ada", size=2_000_000),)
    there = moved("known")
    ships.results += [Shipped(moved=(moved(came=came, again=1), there))] * 2
    assert "Sent again  3 of 2,000 packets over WebRTC, 1 block\n" in push(cli, "--benchmark").out
    told = push(cli, "--benchmark", "--json").document["benchmark"]
    assert (told["packets_sent"], told["packets_again"], told["blocks_again"]) == (2_000, 3, 1)

    direct = (Came(way="direct", source="ada", size=2_000_000),)
    ships.results += [Shipped(moved=(moved(came=direct), there))] * 2
    assert "Sent again" not in push(cli, "--benchmark").out
    told = push(cli, "--benchmark", "--json").document["benchmark"]
    assert {told[each] for each in ("packets_sent", "packets_again", "blocks_again")} == {None}

    pulled = moved(direction="pull", came=came, again=0)
    ships.results += [Shipped(moved=(pulled,))]
    pull = cli("pull-model", "fly", "--worker", "gpu-1", "--benchmark", "--json")
    told = pull.document["benchmark"]
    assert (told["packets_sent"], told["packets_again"], told["blocks_again"]) == (None, None, 0)


def test_packets_of_both_connections_of_one_command_count(cli, ships) -> None:
    came = (Came(way="webrtc", source="ada", size=2_000_000),)
    ships.results += [
        Shipped(moved=(moved(came=came),), failed=(REFUSED,), clashes={ID: clash()}),
        Shipped(moved=(moved("replaced", came=came),)),
    ]
    done = push(cli, "--benchmark", terminal=True, stdin="o\n")
    assert "6 of 4,000 packets" in done.out


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


def test_a_terminal_shows_how_far_all_and_the_file_of_the_moment_are() -> None:
    file = OfFile("best.ckpt", done=900_000, size=1_800_000)
    progress = Progress("receiving", 1_000_000, 2_000_000, 1e6, 1.0, file)
    first, second, third = shipping.drawn("fly to gpu-1 (1 of 2 models)", progress)
    assert first.endswith("  fly to gpu-1 (1 of 2 models)")
    assert second.strip() == "1.0 MB of 2.0 MB, 1.0 MB/s, 1.0 s left"
    assert third.strip() == "best.ckpt: 900 KB of 1.8 MB"
    assert len(third) - len(third.lstrip()) == len(second) - len(second.lstrip())
    assert len(shipping.drawn("fly to gpu-1", Progress("waiting", 0, 10))) == 2


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


def test_what_had_moved_before_the_network_failed_is_told(cli, ships) -> None:
    lost = LinkLost(peer="gpu-1", why="it said goodbye")
    left = [Failed(model=name, label=name, error=lost) for name in ("bee", "ant")]
    ships.results += [Shipped(moved=(moved(),), failed=(REFUSED, *left), cut=lost)] * 2
    done = push(cli)
    assert (done.code, done.out.splitlines()[0][:19]) == (5, "fly (0a1b2c3d): is ")
    assert "warning: fly: Another model with the id" in done.err
    assert "1 model done before the network failed; not done: bee, ant. What has" in done.err
    assert "the same command goes on from there." in done.err
    assert "it said goodbye" in done.err
    document = push(cli, "--json").document
    assert [each["how"] for each in document["models"]] == ["added"]
    assert [each["label"] for each in document["failed"]] == ["fly", "bee", "ant"]


@pytest.mark.parametrize("connects", [True, False])
def test_what_moved_before_a_question_is_told_when_the_network_fails_after_it(
    cli, ships, connects
) -> None:
    lost = LinkLost(peer="gpu-1", why="it said goodbye")
    first = moved(model="77aa01bc", label="bee")
    both = [Failed(model=each, label=each, error=lost) for each in (ID, "77aa01bc")]
    ships.results += [
        Shipped(moved=(first,), failed=(REFUSED,), clashes={ID: clash()}),
        Shipped(failed=tuple(both), cut=lost) if connects else lost,
    ]
    done = push(cli, terminal=True, stdin="o\n")
    assert done.code == 5
    assert "bee (77aa01bc): is on gpu-1" in done.out
    assert "not done: fly." in done.err or f"not done: {ID}." in done.err


@pytest.mark.parametrize(("command", "wanted"), [("push-model", "()"), ("pull-model", "('fly',)")])
def test_a_worker_that_was_not_named_is_told(cli, ships, command, wanted) -> None:
    direction = command.partition("-")[0]
    first = moved("added", direction=direction)
    ships.results += [
        Shipped(moved=(first,), failed=(REFUSED,), clashes={ID: clash(where="gpu-9")}),
        Shipped(moved=(moved("replaced", direction=direction),)),
    ]
    done = cli(command, "fly", terminal=True, stdin="o\n")
    assert done.code == 0, done.err
    assert f"Using worker gpu-9: no other worker has {wanted}." in done.err
    # Asked again after a question, it is the same one.
    assert [each for each in ships.asked if not hasattr(each, "names")] == [None, "gpu-9"]


def test_what_isnt_here_is_said_before_anybody_is_asked(cli, home) -> None:
    done = cli("push-model", "fly", "--worker", "gpu-1")
    assert done.code == 3
    assert "There is no model 'fly' here." in done.err


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_a_home_that_can_not_be_written_is_said_before_anybody_is_asked(
    cli, home, monkeypatch, number
) -> None:
    made = MadeRoom()
    server, chain = "http://127.0.0.1:9", made.owner_chain
    DeviceStore(home.root).save_room(
        RoomEntry(room=made.room, name="lab", server=server, role="owner", chain=chain)
    )
    command = ("pull-model", "fly", "--worker", "gpu-1")
    assert "127.0.0.1:9" in cli(*command).err  # this is who would be asked

    def refuses(_fd: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuses)
    done = cli(*command)
    assert "127.0.0.1:9" not in done.err
    what = f"{home.root}: the file system is read-only"
    if number == errno.ENOSPC:
        what = f"{home.root} has"
    assert what in done.err
    assert "hint: M" in done.err


def test_what_was_read_on_one_machine_has_moved(cli, ships) -> None:
    came = (Came(way="local", source="ada", size=2_000_000),)
    ships.results += [Shipped(moved=(moved(sent=0, came=came),))]
    assert "fly (0a1b2c3d): is on gpu-1, 2.0 MB, by local\n" in push(cli).out


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
