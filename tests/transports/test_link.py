"""The conformance suite of links, on real WebRTC connections: requests, and what is built anew."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from sleap_rtc.client.asking import WorkerLibrary
from sleap_rtc.domain.places import WorkerInfo
from sleap_rtc.errors import (
    DeadlineExceeded,
    FeatureMissing,
    PeerUnreachable,
    ProtocolError,
    SleapRtcError,
    UnknownModel,
)
from sleap_rtc.protocol.library import LibraryChanged, ListModels, ModelsTold
from sleap_rtc.protocol.link import (
    Describe,
    Description,
    FindModel,
    ListJobs,
)
from sleap_rtc.protocol.peering import Offer
from sleap_rtc.testing import netns
from sleap_rtc.testing.impairment import ImpairedNetwork, Weather
from sleap_rtc.transports import webrtc
from sleap_rtc.transports.link import Link

from .linking import ANY_PAIR, answers

pytestmark = [pytest.mark.webrtc]


@ANY_PAIR
async def test_a_request_is_answered(pair):
    async with pair.link() as link:
        answer = await link.request(Describe())
    assert answer == Description(worker=WorkerInfo(version="1", models=3))
    assert pair.states == ["up", "closed"]


async def test_the_peers_error_arrives_as_the_same_class(pair):
    async with pair.link() as link:
        with pytest.raises(UnknownModel, match="no model 'zebra'"):
            await link.request(FindModel(name="zebra"))


@pytest.mark.parametrize("old", ["worker", "client"])
async def test_an_older_peer_is_not_asked_what_it_cant_understand(pair, old):
    """It would end the connection over a message of an unknown kind."""
    asked = []

    async def handler(channel, body, request):
        asked.append(type(body))
        return await answers(channel, body, request)

    pair.worker.handler = handler
    getattr(pair, old).trust.features = ("blocks", "jobs", "models")
    library = WorkerLibrary("worker")
    async with pair.link(on_up=library.again, on_notice=library.noticed) as link:
        library.link = link
        for question in (library.page(ListModels()), library.info("fly"), library.exists("fly")):
            with pytest.raises(FeatureMissing, match=r"older sleap-rtc.* what is in its library"):
                await question
        with pytest.raises(FeatureMissing):
            await library.part("0a1b2c3d", ("0" * 64,))
        # All the rest goes on as ever, over the same connection.
        await link.request(Describe())
        with pytest.raises(UnknownModel):
            await link.request(FindModel(name="fly"))
    assert asked == [Describe, FindModel]
    assert pair.states == ["up", "closed"]


async def test_peers_of_one_age_ask_about_libraries_and_tell_of_changes(pair):
    told = asyncio.Queue()

    async def handler(channel, body, request):
        if isinstance(body, ListModels):
            await channel.tell(LibraryChanged(models=("0a1b2c3d",)))
            return ModelsTold(models=())
        return await answers(channel, body, request)

    pair.worker.handler = handler
    library = WorkerLibrary("worker")
    library.on_change = told.put_nowait
    async with pair.link(on_up=library.again, on_notice=library.noticed) as link:
        library.link = link
        assert await library.page(ListModels()) == ModelsTold(models=())
        async with asyncio.timeout(60):
            assert await told.get() == ("0a1b2c3d",)


async def test_a_request_without_an_answer_ends_at_its_deadline(pair):
    async with pair.link() as link:
        await link.request(Describe())
        with pytest.raises(DeadlineExceeded) as caught:
            await link.request(ListJobs(), within_s=0.3)
        assert caught.value.message == "An answer of worker took longer than 0.3 s."
        assert "look at its machine" in caught.value.hint_text
        assert isinstance(await link.request(Describe()), Description)


async def test_a_client_answers_no_requests(pair):
    async with pair.link() as link:
        await link.request(Describe())
        channel = pair.worker.channels[0]
        with pytest.raises(ProtocolError, match="to a client"):
            await channel.request(Describe(), id="1", within_s=60)


async def test_a_peer_that_is_not_online_is_named(pair):
    link = Link(pair.client.switchboard, room=pair.rig.room, locate=lambda: None, name="gpu-1")
    async with link:
        with pytest.raises(PeerUnreachable, match="gpu-1 cannot be reached: it is not online"):
            await link.request(Describe(), within_s=0.2)


@ANY_PAIR
async def test_a_lost_connection_is_built_anew_and_requests_go_on(pair):
    ups = []

    async def on_up(channel):
        ups.append(channel)

    async with pair.link(on_up=on_up) as link:
        await link.request(Describe())
        await pair.worker.channels[0].close("as a test wants it")
        answer = await link.request(Describe(), within_s=60)
        assert isinstance(answer, Description)
        assert len(ups) == 2
        assert pair.states[:3] == ["up", "down", "up"]


async def test_a_request_that_was_on_its_way_is_asked_again(pair):
    seen = []
    asked = asyncio.Event()

    async def slow(channel, body, request):
        seen.append(request)
        if len(seen) == 1:
            asked.set()
            await asyncio.Event().wait()
        return await answers(channel, body, request)

    pair.worker.handler = slow
    async with pair.link() as link:
        asking = asyncio.create_task(link.request(Describe(), within_s=60, id="the-one"))
        channel = await asyncio.wait_for(pair.worker.arrivals.get(), 60)
        await asyncio.wait_for(asked.wait(), 60)
        await channel.close("as a test wants it")
        assert isinstance(await asking, Description)
        assert seen == ["the-one", "the-one"]


class LateReturn:
    """A library's connection whose answer to a description comes when it is open already."""

    def __init__(self, real, opened):
        self.real, self.opened = real, opened

    def __getattr__(self, name):
        return getattr(self.real, name)

    async def set_remote_description(self, description):
        await self.real.set_remote_description(description)
        await asyncio.wait([self.opened])


async def test_a_connection_that_opens_before_the_description_is_reported_applied(
    pair, monkeypatch
):
    make = webrtc.WebRtc._make

    def late(self, ice_servers):
        # The answerer's can't open before it has answered.
        real = make(self, ice_servers)
        return LateReturn(real, self._opened) if self._peer == "worker" else real

    monkeypatch.setattr(webrtc.WebRtc, "_make", late)
    async with pair.link() as link:
        assert isinstance(await link.request(Describe(), within_s=60), Description)


def moved(pair, where):
    """The worker's process signed in anew."""
    pair.worker.name = "elsewhere"
    pair.rig.devices["elsewhere"] = pair.worker
    return msgspec.structs.replace(where, connection="elsewhere")


async def test_a_peer_that_came_back_while_it_was_dialled_is_dialled_anew(pair, rig):
    """The dial to where it was would wait for 30 s."""
    lost = asyncio.Event()

    def change(message):
        if not lost.is_set() and isinstance(message, Offer):
            lost.set()
            return None
        return message

    rig.change = change
    where = pair.worker.presence
    link = Link(pair.client.switchboard, room=rig.room, locate=lambda: where, name="worker")
    async with link:
        await lost.wait()
        where = moved(pair, where)
        link.look_again()
        assert isinstance(await link.request(Describe(), within_s=60), Description)


async def test_a_silent_peer_that_is_online_as_somebody_else_has_ended(pair, rig):
    rig.network = ImpairedNetwork(netns.inside(), Weather())
    where = pair.worker.presence
    silent = asyncio.Event()
    link = Link(
        pair.client.switchboard,
        room=rig.room,
        locate=lambda: where,
        name="worker",
        on_state=lambda state: silent.set() if state == "silent" else None,
    )
    async with link:
        await link.request(Describe(), within_s=60)
        first = link._at["control"][0]
        # Being online as somebody else proves nothing while it speaks.
        where = moved(pair, where)
        link.look_again()
        await link.request(Describe(), within_s=60)
        assert link._at["control"][0] is first

        rig.network.weather.cut = True
        await asyncio.wait_for(silent.wait(), 60)
        rig.network.weather.cut = False
        assert isinstance(await link.request(Describe(), within_s=60), Description)
        assert link._at["control"][0] is not first


async def test_a_fault_of_ours_reaches_whoever_waits_for_the_link(pair, monkeypatch):
    async def broken(**_):
        raise ValueError("broken")

    monkeypatch.setattr(pair.client.switchboard, "dial", broken)
    async with pair.link() as link:
        with pytest.raises(SleapRtcError, match="broken"):
            await link.request(Describe(), within_s=60)
