"""Who isn't let in, by a real server and a real worker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sleap_rtc.auth.invites import create_invite, encode_link
from sleap_rtc.auth.issue import make_room
from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.auth.store import DeviceStore

pytestmark = [pytest.mark.slow, pytest.mark.webrtc]


def old_link(lab) -> str:
    """An invite that ended an hour ago."""
    store = DeviceStore(lab.client.home)
    entry, device = store.room("lab"), store.device_key()
    then = datetime.now(UTC) - timedelta(hours=2)
    key = store.room_key(entry.room)
    assert key is not None
    made = create_invite(
        device,
        make_room(key, device.device, name="laptop", now=then),
        server=entry.server,
        room=entry.room,
        role="worker",
        now=then,
        secret=SigningKey.generate(),
        lasts=timedelta(hours=1),
    )
    return encode_link(made)


def test_invites_that_let_nobody_in(lab) -> None:
    link = lab.invite()
    used = lab.machine("first").do("join", link=link)
    assert used.ended() == 0

    for name, given, said, refusal in (
        ("second", link, "used", (6, "not_trusted")),
        ("late", old_link(lab), "ended", (2, "invalid_code")),
        ("typo", link[:-9], "cut short", (2, "invalid_code")),
    ):
        machine = lab.machine(name)
        code, error = machine.do("join", link=given).refused()
        assert (code, error["code"]) == refusal
        assert said in error["message"]
        assert not list(machine.home.glob("rooms/*"))

    # A worker that is started with such a link says the same, and leaves no half-made place.
    worker = lab.new_worker("gpu-2", link)
    code, error = worker.begin(ready=False).refused()
    assert code == 6
    code, error = worker.begin(ready=False).refused()
    assert (code, error["code"]) == (3, "not_found")


def test_somebody_who_was_never_invited(lab) -> None:
    lab.worker.begin()
    stranger = lab.machine("stranger")
    # With another's papers for the room, and a key of their own.
    DeviceStore(stranger.home).save_room(DeviceStore(lab.client.home).room("lab"))
    for code in (None, lab.host.code()):
        if code is not None:
            assert stranger.do("login", server=lab.host.url, code=code).ended() == 0
        exit_code, error = stranger.train(lab.config()).refused()
        said = "not_signed_in" if code is None else "not_trusted"
        assert (exit_code, error["code"]) == (6, said)
    assert not (lab.worker.directory / "jobs").exists()


def test_a_guest_who_may_only_watch(lab) -> None:
    lab.worker.begin()
    guest = lab.person("guest", lab.invite("viewer"))
    exit_code, error = guest.train(lab.config()).refused()
    assert (exit_code, error["code"]) == (6, "not_permitted")
    assert "viewer" in error["message"]
    assert not (lab.worker.directory / "jobs").exists()


def test_a_second_worker_of_the_same_name(lab) -> None:
    lab.worker.begin()
    other = lab.new_worker("gpu-1", lab.invite(), directory="other")
    code, error = other.begin(ready=False).refused()
    assert (code, error["code"]) == (4, "conflict")
    assert "gpu-1" in error["message"]
    # And nobody works in the directory of another.
    code, error = lab.worker.begin(ready=False).refused()
    assert (code, error["code"]) == (4, "busy")
