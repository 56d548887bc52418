from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sleap_rtc.auth import issue
from sleap_rtc.auth.certificates import (
    LIFETIME,
    SKEW,
    Certificate,
    Grant,
    InviteCertificate,
    JoinCertificate,
    OwnerCertificate,
    verify_chain,
    verify_invite,
)
from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.auth.signed import seal
from sleap_rtc.domain.values import decode, encode
from sleap_rtc.errors import DataError, NewerFormat, NotTrusted, SleapRtcError
from sleap_rtc.protocol.signed import Signed
from sleap_rtc.testing.made_room import MadeRoom

C = TypeVar("C", bound=Certificate)
MINUTE = timedelta(minutes=1)


def put(key: SigningKey, certificate: Certificate, **changes: Any) -> Signed:
    changed = msgspec.structs.replace(certificate, **changes)
    return seal(key, changed.CONTEXT, changed, what="it")


def opened(link: Signed, kind: type[C]) -> C:
    return decode(kind, link.payload, what="it")


# ── what a chain proves ──────────────────────────────────────────────────────


def test_an_owner(house: MadeRoom) -> None:
    member = verify_chain(house.owner_chain, room=house.room, now=house.now)
    assert (member.device, member.role, member.name) == (house.owner.device, "owner", "laptop")
    assert member.expires == house.now + LIFETIME
    assert member.owner is None
    assert member.invite is None
    assert member.through == ()


def test_a_device_that_joined(house: MadeRoom, worker: SigningKey) -> None:
    member = verify_chain(house.joined(worker), room=house.room, now=house.now)
    invite = house.key(100).device
    assert (member.device, member.role, member.name) == (worker.device, "worker", "gpu-1")
    assert member.owner == house.owner.device
    assert (member.invite, member.uses) == (invite, 1)
    assert member.single_uses == ((invite, worker.device),)
    assert member.through == (house.owner.device, invite)


def test_an_invite_for_many_has_no_single_use(house: MadeRoom, worker: SigningKey) -> None:
    member = verify_chain(house.joined(worker, uses=5), room=house.room, now=house.now)
    assert member.uses == 5
    assert member.single_uses == ()


def test_a_granted_device_needs_no_invite(house: MadeRoom, worker: SigningKey) -> None:
    chain = issue.grant(
        house.owner,
        house.owner_chain,
        room=house.room,
        device=worker.device,
        name="gpu-1",
        role="viewer",
        now=house.now,
    )
    member = verify_chain(chain, room=house.room, now=house.now)
    assert (member.role, member.invite, member.uses) == ("viewer", None, 0)
    assert member.through == (house.owner.device,)


def second_owner(house: MadeRoom) -> tuple[SigningKey, tuple[Signed, ...]]:
    """Another machine of the owner, invited by the room's key itself."""
    device, once = house.key(20), house.key(21)
    invited = issue.invite(
        house.room_key, (), room=house.room, invite_key=once.device, role="owner", now=house.now
    )
    return device, issue.join(once, invited, device=device.device, name="desktop", now=house.now)


def test_the_rooms_key_can_invite_an_owner_who_can_invite(
    house: MadeRoom, worker: SigningKey
) -> None:
    device, chain = second_owner(house)
    owner = verify_chain(chain, room=house.room, now=house.now)
    assert (owner.role, owner.owner) == ("owner", None)
    once = house.key(22)
    invited = issue.invite(
        device, chain, room=house.room, invite_key=once.device, role="member", now=house.now
    )
    joined = issue.join(once, invited, device=worker.device, name="w", now=house.now)
    member = verify_chain(joined, room=house.room, now=house.now)
    assert member.through == (house.key(21).device, device.device, once.device)
    assert member.single_uses == (
        (house.key(21).device, device.device),
        (once.device, worker.device),
    )
    assert member.owner == device.device


def test_an_open_invite(house: MadeRoom) -> None:
    found = verify_invite(house.invited(role="member", uses=3), room=house.room, now=house.now)
    assert (found.invite, found.role, found.uses) == (house.key(100).device, "member", 3)
    assert found.expires == house.now + timedelta(hours=24)


# ── dates ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("late", "good"),
    [(-SKEW, True), (-SKEW - MINUTE, False), (LIFETIME + SKEW, True), (LIFETIME + 2 * SKEW, False)],
)
def test_a_device_is_a_member_for_30_days(
    house: MadeRoom, worker: SigningKey, late: timedelta, good: bool
) -> None:
    chain = house.joined(worker)
    if good:
        verify_chain(chain, room=house.room, now=house.now + late)
    else:
        with pytest.raises(NotTrusted, match=r"ended on|still to come"):
            verify_chain(chain, room=house.room, now=house.now + late)


def test_the_first_link_to_end_ends_the_chain(house: MadeRoom, worker: SigningKey) -> None:
    early = house.now - timedelta(days=20)
    owner = issue.make_room(house.room_key, house.owner.device, name="o", now=early)
    chain = (*owner, *house.joined(worker)[1:])
    assert verify_chain(chain, room=house.room, now=house.now).expires == early + LIFETIME
    with pytest.raises(NotTrusted, match="owner certificate ended"):
        verify_chain(chain, room=house.room, now=house.now + timedelta(days=11))


def test_a_renewed_owner_certificate_takes_the_old_ones_place(
    house: MadeRoom, worker: SigningKey
) -> None:
    later = house.now + timedelta(days=29)
    renewed = issue.make_room(house.room_key, house.owner.device, name="o", now=later)
    chain = (*renewed, *house.joined(worker)[1:])
    assert verify_chain(chain, room=house.room, now=later).device == worker.device


def test_an_invite_that_ended_cannot_be_joined_by(house: MadeRoom, worker: SigningKey) -> None:
    with pytest.raises(NotTrusted, match="its invite ended"):
        issue.join(
            house.key(100),
            house.invited(),
            device=worker.device,
            name="w",
            now=house.now + timedelta(days=2),
        )
    with pytest.raises(NotTrusted, match="it ended"):
        verify_invite(house.invited(), room=house.room, now=house.now + timedelta(days=2))


def test_a_join_dated_before_the_invite_is_refused(house: MadeRoom, worker: SigningKey) -> None:
    chain = house.joined(worker)
    join = opened(chain[2], JoinCertificate)
    early = put(
        house.key(100),
        join,
        issued=house.now - timedelta(hours=1),
        expires=house.now + timedelta(days=1),
    )
    with pytest.raises(NotTrusted, match="its invite is dated"):
        verify_chain((*chain[:2], early), room=house.room, now=house.now)


@pytest.mark.parametrize("lasts", [LIFETIME + timedelta(seconds=1), timedelta(0), -MINUTE])
@pytest.mark.parametrize("link", [0, 1, 2])
def test_no_certificate_lasts_longer_than_allowed(
    house: MadeRoom, worker: SigningKey, link: int, lasts: timedelta
) -> None:
    chain = list(house.joined(worker))
    key = (house.room_key, house.owner, house.key(100))[link]
    kind = (OwnerCertificate, InviteCertificate, JoinCertificate)[link]
    found = opened(chain[link], kind)
    chain[link] = put(key, found, expires=found.issued + lasts)
    with pytest.raises(NotTrusted, match="longer than is allowed"):
        verify_chain(tuple(chain), room=house.room, now=house.now)


@pytest.mark.parametrize("year", [1, 9999])
def test_dates_at_the_ends_of_the_calendar(house: MadeRoom, year: int) -> None:
    issued = datetime(year, 1, 1, tzinfo=UTC)
    found = opened(house.owner_chain[0], OwnerCertificate)
    link = put(house.room_key, found, issued=issued, expires=issued + LIFETIME)
    with pytest.raises(NotTrusted, match=r"ended on|still to come"):
        verify_chain((link,), room=house.room, now=house.now)


def test_a_date_without_a_zone_is_refused(house: MadeRoom) -> None:
    found = opened(house.owner_chain[0], OwnerCertificate)
    link = put(house.room_key, found, issued=house.now.replace(tzinfo=None))
    with pytest.raises(DataError):
        verify_chain((link,), room=house.room, now=house.now)


# ── roles ────────────────────────────────────────────────────────────────────


def test_an_owner_cannot_make_an_owner(house: MadeRoom, worker: SigningKey) -> None:
    with pytest.raises(NotTrusted, match="room's own key"):
        house.invited(role="owner")
    with pytest.raises(NotTrusted, match="room's own key"):
        issue.grant(
            house.owner,
            house.owner_chain,
            room=house.room,
            device=worker.device,
            name="w",
            role="owner",
            now=house.now,
        )


def test_a_forged_owner_role_through_an_invite_is_refused(
    house: MadeRoom, worker: SigningKey
) -> None:
    chain = house.joined(worker)
    forged = put(house.owner, opened(chain[1], InviteCertificate), role="owner")
    with pytest.raises(NotTrusted, match="room's own key"):
        verify_chain((chain[0], forged, chain[2]), room=house.room, now=house.now)


@pytest.mark.parametrize("role", ["member", "viewer", "worker"])
def test_only_owners_let_devices_in(house: MadeRoom, worker: SigningKey, role: Any) -> None:
    chain = house.joined(worker, role=role)
    with pytest.raises(NotTrusted, match="no place"):
        issue.invite(
            worker,
            chain,
            room=house.room,
            invite_key=house.key(101).device,
            role="viewer",
            now=house.now,
        )
    with pytest.raises(NotTrusted, match="no place"):
        issue.grant(
            worker,
            chain,
            room=house.room,
            device=house.key(4).device,
            name="w",
            role="viewer",
            now=house.now,
        )


@pytest.mark.parametrize("role", ["", "admin", "Owner", None])
def test_unknown_roles_are_refused(house: MadeRoom, worker: SigningKey, role: Any) -> None:
    chain = house.joined(worker)
    forged = put(house.owner, opened(chain[1], InviteCertificate), role=role)
    with pytest.raises(DataError):
        verify_chain((chain[0], forged, chain[2]), room=house.room, now=house.now)


# ── links that don't belong where they are ───────────────────────────────────


def test_links_of_another_room_are_refused(
    house: MadeRoom, other_house: MadeRoom, worker: SigningKey
) -> None:
    chain = other_house.joined(worker)
    with pytest.raises(NotTrusted, match="doesn't begin with the key"):
        verify_chain(chain, room=house.room, now=house.now)


def test_an_invite_of_the_same_owner_in_another_room_is_refused(
    house: MadeRoom, other_house: MadeRoom, worker: SigningKey
) -> None:
    """One device owns both rooms; its invite for one must be worth nothing in the other."""
    other_house.owner = house.owner
    chain = (house.owner_chain[0], *other_house.joined(worker)[1:])
    with pytest.raises(NotTrusted, match="invite certificate belongs to another room"):
        verify_chain(chain, room=house.room, now=house.now)
    chain = (*house.joined(worker)[:2], other_house.joined(worker)[2])
    with pytest.raises(NotTrusted):
        verify_chain(chain, room=house.room, now=house.now)


def test_a_link_cannot_stand_for_another(house: MadeRoom, worker: SigningKey) -> None:
    """Every link, relabelled as every other kind, and at every place, is refused."""
    chain = house.joined(worker)
    kinds = (OwnerCertificate, InviteCertificate, JoinCertificate, Grant)
    for at, link in enumerate(chain):
        for kind in kinds:
            if link.context == kind.CONTEXT:
                continue
            changed = list(chain)
            changed[at] = msgspec.structs.replace(link, context=kind.CONTEXT)
            with pytest.raises(NotTrusted):
                verify_chain(tuple(changed), room=house.room, now=house.now)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_only_whole_chains_in_their_order_prove_anything(order: list[int]) -> None:
    links = _links()
    chain = tuple(links["links"][at] for at in order)
    good = {(0,): links["owner"], (0, 1, 2): links["worker"], (0, 3): links["worker"]}
    expected = good.get(tuple(order))
    if expected is not None:
        assert verify_chain(chain, room=links["room"], now=links["now"]).device == expected
    else:
        with pytest.raises(NotTrusted):
            verify_chain(chain, room=links["room"], now=links["now"])


def _links() -> dict[str, Any]:
    room_key, owner, once, worker = (SigningKey.from_seed(bytes([n]) * 32) for n in range(4))
    now = datetime(2026, 3, 1, tzinfo=UTC)
    chain = issue.make_room(room_key, owner.device, name="o", now=now)
    room = opened(chain[0], OwnerCertificate).room
    invited = issue.invite(owner, chain, room=room, invite_key=once.device, role="worker", now=now)
    joined = issue.join(once, invited, device=worker.device, name="w", now=now)
    granted = issue.grant(
        owner, chain, room=room, device=worker.device, name="w", role="worker", now=now
    )
    return {
        "links": (*joined, granted[1]),
        "room": room,
        "now": now,
        "owner": owner.device,
        "worker": worker.device,
    }


def test_an_invite_is_not_a_device(house: MadeRoom) -> None:
    with pytest.raises(NotTrusted, match="ends in an invite"):
        verify_chain(house.invited(), room=house.room, now=house.now)
    with pytest.raises(NotTrusted, match="doesn't end in an invite"):
        verify_invite(house.owner_chain, room=house.room, now=house.now)
    with pytest.raises(NotTrusted, match="doesn't end in an invite"):
        verify_invite(house.joined(house.key(3)), room=house.room, now=house.now)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_every_link_must_be_signed_by_the_one_before(
    house: MadeRoom, worker: SigningKey, at: int
) -> None:
    chain = list(house.joined(worker))
    stranger = house.key(66)
    kind = (OwnerCertificate, InviteCertificate, JoinCertificate)[at]
    chain[at] = put(stranger, opened(chain[at], kind))
    with pytest.raises(NotTrusted, match=r"signed by somebody else|doesn't begin with the key"):
        verify_chain(tuple(chain), room=house.room, now=house.now)
    # The right name over the wrong signature is no better.
    true_signer = house.joined(worker)[at].signer
    chain[at] = msgspec.structs.replace(chain[at], signer=true_signer)
    with pytest.raises(NotTrusted, match="signature"):
        verify_chain(tuple(chain), room=house.room, now=house.now)


@pytest.mark.parametrize("count", [0, 5])
def test_chains_are_bounded(house: MadeRoom, count: int) -> None:
    with pytest.raises(NotTrusted, match="links"):
        verify_chain(house.owner_chain * count, room=house.room, now=house.now)


@settings(max_examples=60)
@given(st.binary(max_size=120), st.sampled_from(["owner", "invite", "join", "grant", "x"]))
def test_anything_signed_is_a_chain_or_an_error(payload: bytes, kind: str) -> None:
    links = _links()
    room_key = SigningKey.from_seed(bytes(32))
    context = f"certificate/{kind}"
    signed = Signed(
        context=context,
        payload=payload,
        signer=room_key.device,
        signature=room_key.sign(context, payload),
    )
    with pytest.raises(SleapRtcError):
        verify_chain((signed,), room=links["room"], now=links["now"])


def test_later_versions(house: MadeRoom) -> None:
    found = opened(house.owner_chain[0], OwnerCertificate)
    minor = put(house.room_key, found, format="1.9", unknown={"colour": "red"})
    assert verify_chain((minor,), room=house.room, now=house.now).role == "owner"
    with pytest.raises(NewerFormat):
        verify_chain((put(house.room_key, found, format="2.0"),), room=house.room, now=house.now)


def test_a_key_with_a_trailing_newline_is_no_key(house: MadeRoom) -> None:
    plain = encode(house.owner_chain[0]).replace(
        house.room_key.device.encode(), house.room_key.device.encode() + b"\\n"
    )
    with pytest.raises(DataError):
        decode(Signed, plain, what="it")


@pytest.mark.parametrize("name", ["", "a b", "-a", "a\n", "x" * 65, "a/b"])
def test_names_are_checked(house: MadeRoom, worker: SigningKey, name: str) -> None:
    chain = house.joined(worker)
    forged = put(house.key(100), opened(chain[2], JoinCertificate), name=name)
    with pytest.raises(DataError):
        verify_chain((*chain[:2], forged), room=house.room, now=house.now)
