"""Rooms between homes, each command as a person types it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from sleap_rtc.auth.store import RoomEntry
from sleap_rtc.cli.app import App
from sleap_rtc.cli.room import given_link, room_shown
from sleap_rtc.cli.room_documents import (
    InviteDocument,
    MemberRemovedDocument,
    MembersDocument,
    RoomCreatedDocument,
    RoomDocument,
    RoomsDocument,
)
from sleap_rtc.testing.made_room import MadeRoom

pytestmark = pytest.mark.slow


@pytest.fixture
def owner(host, cli, tmp_path):
    """The home of somebody who is signed in and owns the room ``lab``."""
    home = tmp_path / "owner"
    assert cli("--home", home, "login", host.url, "--code", host.code).code == 0
    assert cli("--home", home, "room", "create", "lab").code == 0
    return home


def test_a_new_room_and_its_recovery_code(host, cli, tmp_path):
    home = tmp_path / "owner"
    cli("--home", home, "login", host.url, "--code", host.code)
    done = cli("--home", home, "room", "create", "lab", "--json")
    told = msgspec.convert(done.document, RoomCreatedDocument)
    assert (told.room.name, told.room.role, told.room.server) == ("lab", "owner", host.url)
    assert told.room.expires_at > datetime.now(UTC) + timedelta(days=29)
    assert "on paper or in a password manager" in done.err
    assert told.recovery_code not in done.err
    assert told.recovery_code not in (home / "logs" / "client.log").read_text()
    again = cli("--home", home, "room", "create", "lab")
    assert again.code == 4
    assert cli("--home", home, "room", "create", "a b").code == 2


def test_the_link_is_alone_on_standard_output(owner, cli):
    done = cli("--home", owner, "room", "invite")
    (link,) = done.out.splitlines()
    assert "/join/" in link
    assert "#" in link
    assert "For one device to join lab as member" in done.err
    assert link not in done.err
    told = msgspec.convert(
        cli(
            *("--home", owner, "room", "invite", "lab", "--role", "worker"),
            *("--uses", 3, "--hours", 1, "--json"),
        ).document,
        InviteDocument,
    )
    assert (told.role, told.uses, told.room) == ("worker", 3, "lab")
    assert told.expires_at < datetime.now(UTC) + timedelta(hours=1, minutes=1)


@pytest.mark.parametrize(
    "wrong", [("--role", "owner"), ("--uses", 0), ("--hours", 10_000), ("--uses", "many")], ids=str
)
def test_wrong_invites(owner, cli, wrong):
    done = cli("--home", owner, "room", "invite", "lab", *wrong)
    assert done.code == 2
    assert done.out == ""


def test_joining(owner, cli, tmp_path):
    link = cli("--home", owner, "room", "invite", "lab").out.strip()
    guest = tmp_path / "guest"
    done = cli("--home", guest, "room", "join", "--name", "their-lab", "--json", stdin=link)
    told = msgspec.convert(done.document, RoomDocument)
    assert (told.room.name, told.room.role) == ("their-lab", "member")
    listed = msgspec.convert(cli("--home", guest, "room", "list", "--json").document, RoomsDocument)
    assert listed.rooms == (told.room,)
    table = cli("--home", guest, "room", "list")
    assert table.out.splitlines()[1].split()[:2] == ["their-lab", "member"]
    # It was for one device, and this one may not invite.
    other = cli("--home", tmp_path / "other", "room", "join", link)
    assert other.code == 6
    refused = cli("--home", guest, "room", "invite")
    assert refused.code == 6
    assert "Only owners invite" in refused.err


def test_a_link_that_is_none(cli):
    done = cli("room", "join", "https://lab.example/join/abc#v1.x")
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert cli("room", "join", "-").code == 2


def test_no_rooms(cli):
    done = cli("room", "list")
    assert (done.code, done.out) == (0, "")
    assert "in no room" in done.err
    assert cli("workers").code == 3


def test_a_person_pastes_the_link_unseen(make_output, monkeypatch):
    monkeypatch.setattr("getpass.getpass", lambda text, stream: " the link \n")
    assert given_link(App(make_output(terminal=True)), "-") == "the link"
    assert given_link(App(make_output()), "given") == "given"


def test_a_certificate_that_has_ended(make_output):
    made = MadeRoom(now=datetime.now(UTC) - timedelta(days=40))
    entry = RoomEntry(
        room=made.room, name="old", server="https://x.example", role="owner", chain=made.owner_chain
    )
    assert room_shown(entry).expires_at is None


def test_members_are_listed_and_removed(owner, cli, tmp_path):
    anna = tmp_path / "anna"
    link = cli("--home", owner, "room", "invite").out.strip()
    assert cli("--home", anna, "room", "join", link).code == 0
    told = cli("--home", owner, "room", "members", "--json")
    members = msgspec.convert(told.document, MembersDocument).members
    assert sorted(one.role for one in members) == ["member", "owner"]
    (guest,) = [one for one in members if not one.this_device]
    assert "this device" in cli("--home", owner, "room", "members").out
    assert cli("--home", anna, "room", "members").code == 6
    key = guest.device[:12]
    asked = cli("--home", owner, "room", "remove", key)
    assert (asked.code, "--yes" in asked.err) == (2, True)
    gone = cli("--home", owner, "room", "remove", key, "--yes", "--json")
    assert msgspec.convert(gone.document, MemberRemovedDocument).removed.device == guest.device
    left = msgspec.convert(
        cli("--home", owner, "room", "members", "--json").document, MembersDocument
    )
    assert [one.role for one in left.members] == ["owner"]
    assert cli("--home", anna, "workers").code == 6
    assert cli("--home", owner, "room", "remove", key, "--yes").code == 3
