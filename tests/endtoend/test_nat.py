"""Client and worker behind routers that translate addresses, and an address that changes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from blake3 import blake3

from sleap_rtc.domain.ids import recipe
from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import NotPermitted
from sleap_rtc.files.packing import pack
from sleap_rtc.protocol import frames
from sleap_rtc.protocol.link import DEAD_AFTER_S
from sleap_rtc.testing.nat import Kind, Passes, Router
from sleap_rtc.testing.turn import TurnServer, find_coturn

pytestmark = [pytest.mark.slow, pytest.mark.webrtc]

NUMBERS = (100, 101)


@pytest.fixture
def lab(own_lab):
    """The server is told what to tell of ICE."""
    return own_lab


@pytest.fixture
def behind(lab) -> Callable[..., tuple[Router, Router]]:
    """Puts client and worker behind routers, and tells the server what it is to tell of ICE."""

    def put(
        *, kind: Kind = "cone", passes: Passes = "all", ice: list[dict] | None = None
    ) -> tuple[Router, Router]:
        routers = tuple(Router(number, kind=kind, passes=passes) for number in NUMBERS)
        lab.client.network, lab.worker.network = routers
        for router in routers:
            try:
                router.start()
            except NotPermitted as error:
                pytest.skip(error.message)
        lab.host.begin_again(server_stun_port=lab.host.process.port, ice_servers=ice or [])
        return routers

    return put


@pytest.fixture
def turn(lab) -> Iterator[TurnServer]:
    if find_coturn() is None:
        pytest.skip("coturn is not installed (apt install coturn)")
    first = 40_000
    with TurnServer(lab.root / "turn", lab.host.address, ports=(first, first + 999)) as server:
        yield server


def model(machine, blocks: int) -> str:
    """Make a model of a machine's library, with so much content.

    Returns:
        Its id.
    """
    made = recipe(model_type="centroid", backbone={}, run_name="far", dataset_hash="0" * 64)
    data = random.Random(1).randbytes(blocks * BLOCK)
    with machine.library as registry:
        folder = registry.incoming / "far"
        folder.mkdir(parents=True)
        (folder / "best.npz").write_bytes(data)
        record = ModelRecord(
            id=made.model_id,
            name="far",
            model_type="centroid",
            status="completed",
            source="worker-training",
            created_at=datetime(2026, 3, 1, tzinfo=UTC),
            full_hash=made.full_hash,
            canonical=made.canonical,
            checkpoint="best.npz",
            package=pack({"best.npz": folder / "best.npz"}).package.id,
            files=(ModelFile(path="best.npz", size=len(data), blake3=blake3(data).hexdigest()),),
        )
        return registry.place(folder, record).id


def push(lab, blocks: int, **asked):
    """Have the client push a model of so many blocks to the worker."""
    entry = model(lab.client, blocks)
    # The disk is one for both here, as it isn't where machines have routers of their own.
    env = {"SLEAP_RTC_TRANSPORT": "webrtc"}
    lab.worker.begin(**env)
    return lab.client.do("push", models=[entry], worker="gpu-1", env=env, **asked)


def test_by_the_servers_own_stun_where_holes_can_be_punched(lab, behind) -> None:
    behind(kind="cone")
    end = push(lab, 2).done()
    assert [each["how"] for each in end["moved"]] == ["added"]


@pytest.mark.parametrize(
    ("kind", "passes", "way"),
    [("symmetric", "all", "udp"), ("cone", "servers", "udp"), ("cone", "tcp", "tcp")],
    ids=["symmetric", "nothing but the servers", "no udp"],
)
def test_by_turn_where_nothing_else_can_be(lab, behind, turn, *, kind, passes, way) -> None:
    behind(kind=kind, passes=passes, ice=[turn.ice(way)])
    end = push(lab, 2).done()
    assert [each["how"] for each in end["moved"]] == ["added"]
    assert turn.relayed > 0
    assert lab.worker.records()["centroid"].files[0].size == 2 * BLOCK


@pytest.mark.parametrize("moves", [0, 1], ids=["the client's", "the worker's"])
def test_an_address_that_changes_costs_seconds_and_no_block_that_was_there(
    lab, behind, moves
) -> None:
    side = behind(kind="cone")[moves]
    blocks = 40
    client = push(lab, blocks, slow=True)
    before = client.until(lambda line: line["kind"] == "moving" and line["done"] > 18 * BLOCK)
    side.change_address()
    under_way = frames.MAX_OUTSTANDING * BLOCK
    pauses, done, since = [0.0], before["done"], time.monotonic()
    while done < blocks * BLOCK:
        line = client.until("moving")
        if line["done"] > done:
            pauses.append(time.monotonic() - since)
            done, since = line["done"], time.monotonic()
    end = client.done()
    assert [each["how"] for each in end["moved"]] == ["added"]
    # Sent twice is at most what was under way: far less than what had been checked.
    assert end["sent"] <= blocks * BLOCK + under_way < blocks * BLOCK + before["done"]
    # Without a new path it would take as long as a silence that ends a connection.
    assert max(pauses) < DEAD_AFTER_S
