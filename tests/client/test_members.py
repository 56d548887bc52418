"""Who is in a room, and putting somebody out, at a real server."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from sleap_rtc.client import members, rooms
from sleap_rtc.domain.ids import fingerprint
from sleap_rtc.errors import AmbiguousName, NotFound, NotPermitted, NotTrusted


async def visit(machine, **options) -> None:
    async with machine.online(**options):
        pass


async def names(lab) -> list[tuple[str, str]]:
    found = await members.members(lab.owner.settings, lab.owner.entry)
    return [(each.name, each.role) for each in found]


async def test_everybody_who_came_is_shown_to_an_owner(lab):
    anna, worker = await lab.joined("anna"), await lab.joined("gpu-1", "worker")
    found = await members.members(lab.owner.settings, lab.owner.entry)
    assert [(each.name, each.role, each.me) for each in found] == [
        ("anna", "member", False),
        ("gpu-1", "worker", False),
        ("laptop", "owner", True),
    ]
    assert found[1].device == worker.device
    assert found[0].expires > datetime.now(UTC) > found[0].seen
    with pytest.raises(NotPermitted, match="Only owners"):
        await members.members(anna.settings, anna.entry)


async def test_who_is_removed_is_out_for_everybody(lab):
    anna, ben = await lab.joined("anna"), await lab.joined("ben")
    await visit(ben)
    async with ben.online():
        gone = await members.remove(lab.owner.settings, lab.owner.entry, "Anna")
        assert gone.device == anna.device
        newer = lab.owner.store.membership(lab.owner.entry.room)
        assert newer.number == 1
        await ben.learns(newer)
    assert await names(lab) == [("ben", "member"), ("laptop", "owner")]
    with pytest.raises(NotTrusted):
        await visit(anna)
    await members.remove(lab.owner.settings, lab.owner.entry, fingerprint(ben.device)[:14])
    assert await names(lab) == [("laptop", "owner")]
    with pytest.raises(NotTrusted):
        await visit(anna)


async def test_an_invite_for_many_is_closed_and_the_others_stay(lab):
    link = rooms.invite(lab.owner.settings, "lab", role="member", uses=5)
    anna, ben, eve = lab.machine("anna"), lab.machine("ben"), lab.machine("eve")
    for machine in (anna, ben):
        await rooms.join(machine.settings, link)
    await members.remove(lab.owner.settings, lab.owner.entry, "anna")
    with pytest.raises(NotTrusted):  # with the same link, and another key
        await rooms.join(eve.settings, link)
    await visit(ben)
    assert await names(lab) == [("ben", "member"), ("laptop", "owner")]


async def test_names_that_several_have_need_a_key(lab):
    first, second = await lab.joined("one"), await lab.joined("two")
    for machine in (first, second):
        link = rooms.invite(lab.owner.settings, "lab", role="member")
        await rooms.join(machine.settings, link)
    twin = lab.machine("twin", name="one")
    await rooms.join(twin.settings, rooms.invite(lab.owner.settings, "lab", role="member"))
    with pytest.raises(AmbiguousName) as caught:
        await members.remove(lab.owner.settings, lab.owner.entry, "one")
    assert fingerprint(twin.device) in caught.value.message
    gone = await members.remove(lab.owner.settings, lab.owner.entry, twin.device[:12])
    assert gone.device == twin.device
    with pytest.raises(NotFound, match="nobody"):
        await members.remove(lab.owner.settings, lab.owner.entry, "nobody")


async def test_an_owner_does_not_remove_itself(lab):
    with pytest.raises(NotPermitted, match="can't remove itself"):
        await members.remove(lab.owner.settings, lab.owner.entry, "laptop")
    assert lab.owner.store.membership(lab.owner.entry.room).number == 0


async def test_who_is_no_owner_removes_nobody(lab):
    anna = await lab.joined("anna")
    with pytest.raises(NotPermitted):
        await members.remove(anna.settings, anna.entry, "laptop")
