"""Signaling messages: round trips, patterns, and errors that survive the wire."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.domain.ids import DeviceId, RoomId
from sleap_rtc.domain.places import Gpu, Hardware, Presence, WorkerInfo
from sleap_rtc.errors import BY_CODE, AliasTaken, ProtocolError, SleapRtcError
from sleap_rtc.protocol import signaling as s

ids = st.integers(0, 2**53)
rooms = st.from_regex(r"\A[a-z2-7]{32}\Z").map(RoomId)
devices = st.from_regex(r"\A[0-9a-f]{64}\Z").map(DeviceId)
names = st.text(min_size=1, max_size=64)
blobs = st.text(max_size=200)
chains = st.lists(blobs, max_size=4).map(tuple)
connections = st.text(st.characters(codec="ascii"), min_size=1, max_size=64)
hardware = st.builds(
    Hardware,
    cpus=st.integers(0, 512),
    ram=st.integers(0, 2**45),
    disk_free=st.integers(0, 2**60),
    gpus=st.lists(st.builds(Gpu, name=st.text(max_size=9), memory=ids), max_size=3).map(tuple),
    platform=st.text(max_size=9),
)
workers = st.none() | st.builds(WorkerInfo, hardware=hardware, version=st.text(max_size=9))
presences = st.builds(
    Presence,
    device=devices,
    connection=connections,
    room=rooms,
    name=names,
    kind=st.sampled_from(["client", "worker"]),
    worker=workers,
)
messages: dict[type[Any], st.SearchStrategy[Any]] = {
    s.Challenge: st.builds(s.Challenge, nonce=devices, versions=st.just((1, 2))),
    s.SignedIn: st.builds(s.SignedIn, version=ids, connection=connections),
    s.Done: st.builds(s.Done, id=ids),
    s.Joined: st.builds(s.Joined, id=ids, name=names),
    s.Entered: st.builds(s.Entered, id=ids, present=st.lists(presences, max_size=3).map(tuple)),
    s.MembershipTold: st.builds(s.MembershipTold, id=ids, signed=st.none() | blobs),
    s.MembershipNews: st.builds(s.MembershipNews, room=rooms, signed=blobs),
    s.MembersTold: st.builds(
        s.MembersTold,
        id=ids,
        members=st.lists(
            st.builds(
                s.KeptMember,
                device=devices,
                chain=chains,
                seen=st.just(datetime(2026, 3, 1, 12, tzinfo=UTC)),
            ),
            max_size=3,
        ).map(tuple),
        more=st.booleans(),
    ),
    s.ChainTold: st.builds(s.ChainTold, id=ids, chain=st.none() | chains),
    s.Refused: st.builds(s.Refused, code=names, message=blobs, id=st.none() | ids),
    s.Present: st.builds(s.Present, presence=presences),
    s.Absent: st.builds(s.Absent, room=rooms, connection=connections),
    s.Relayed: st.builds(s.Relayed, room=rooms, sender=connections, device=devices, payload=blobs),
    s.SignIn: st.builds(
        s.SignIn,
        version=ids,
        device=devices,
        signature=st.from_regex(r"\A[0-9a-f]{128}\Z"),
        name=names,
        setup_code=st.none() | names,
        invite=st.none() | chains,
    ),
    s.CreateRoom: st.builds(s.CreateRoom, id=ids, room=rooms, name=names, chain=chains),
    s.JoinRoom: st.builds(s.JoinRoom, id=ids, room=rooms, chain=chains),
    s.EnterRoom: st.builds(
        s.EnterRoom,
        id=ids,
        room=rooms,
        chain=chains,
        name=names,
        kind=st.just("worker"),
        worker=workers,
    ),
    s.LeaveRoom: st.builds(s.LeaveRoom, id=ids, room=rooms),
    s.UpdateWorker: st.builds(s.UpdateWorker, id=ids, room=rooms, worker=st.just(WorkerInfo())),
    s.Relay: st.builds(s.Relay, id=ids, room=rooms, to=connections, payload=blobs),
    s.PutMembership: st.builds(s.PutMembership, id=ids, room=rooms, signed=blobs),
    s.GetMembership: st.builds(s.GetMembership, id=ids, room=rooms),
    s.GetMembers: st.builds(
        s.GetMembers, id=ids, room=rooms, after=st.none() | devices, due=st.booleans()
    ),
    s.PutChain: st.builds(s.PutChain, id=ids, room=rooms, chain=chains),
    s.GetChain: st.builds(s.GetChain, id=ids, room=rooms),
}


def test_every_message_is_tested_below() -> None:
    assert set(messages) == {*get_args(s.FromServer), *get_args(s.FromDevice)}


@given(st.one_of(*(messages[kind] for kind in get_args(s.FromServer))))
def test_what_the_server_says_comes_back(message: Any) -> None:
    assert s.from_server.decode(s.from_server.encode(message), peer="the server") == message


@given(st.one_of(*(messages[kind] for kind in get_args(s.FromDevice))))
def test_what_a_device_says_comes_back(message: Any) -> None:
    assert s.from_device.decode(s.from_device.encode(message), peer="a device") == message


@pytest.mark.parametrize("room", ["a" * 31, "a" * 33, "A" * 32, "a" * 32 + "\n", "1" * 32, ""])
def test_a_room_id_is_exactly_one(room: str) -> None:
    data = s.from_device.encode(s.GetMembership(id=1, room=RoomId(room)))
    with pytest.raises(ProtocolError, match="room"):
        s.from_device.decode(data, peer="a device")


def test_what_is_signed_names_nonce_server_and_device() -> None:
    payload = s.sign_in_payload(nonce="n", server="lab.org:443", device="d")
    assert payload == b"n\nlab.org:443\nd"


def test_secrets_are_in_no_repr() -> None:
    sign_in = s.SignIn(
        version=1, device=DeviceId("d"), signature="ab" * 64, name="n", setup_code="CODE"
    )
    assert "CODE" not in repr(sign_in)
    assert "abab" not in repr(sign_in)
    turn = s.IceServer(urls=("turn:a",), username="u", credential="hidden")
    assert "hidden" not in repr(turn)


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_every_error_survives_the_wire(code: str) -> None:
    error = BY_CODE[code](message="m", who="a device", why="w", name="x", hint="do this")
    data = s.from_server.encode(s.Refused.because(error, 7))
    told = s.from_server.decode(data, peer="the server")
    assert isinstance(told, s.Refused)
    assert (told.id, type(told.error)) == (7, BY_CODE[code])
    assert (told.error.message, told.error.hint_text) == (error.message, "do this")


def test_an_unknown_code_keeps_its_words() -> None:
    told = s.Refused(code="of_tomorrow", message="What it says.", hint="And how.")
    assert type(told.error) is SleapRtcError
    assert (told.error.message, told.error.hint_text) == ("What it says.", "And how.")


@pytest.mark.parametrize("letter", ["x", "\x01", "ł", "😀"])
def test_long_details_are_cut_to_what_a_message_holds(letter: str) -> None:
    details = {f"d{n}": letter * 5_000 for n in range(30)}
    error = AliasTaken(alias=letter * 9_000, owner="me", hint=letter * 5_000, **details)
    data = s.from_server.encode(s.Refused.because(error))
    told = s.from_server.decode(data, peer="the server")
    assert isinstance(told, s.Refused)
    assert told.details["alias"] == letter * 2_000
