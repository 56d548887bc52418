from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.auth import issue
from sleap_rtc.auth.certificates import LIFETIME, Member, verify_chain
from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.auth.membership import (
    ListedMember,
    Membership,
    MembershipList,
    adopt,
    check_member,
    open_membership,
    sign_membership,
)
from sleap_rtc.auth.signed import MAX_TEXT, seal
from sleap_rtc.domain.values import encode
from sleap_rtc.errors import DataError, NotTrusted, SleapRtcError
from sleap_rtc.protocol.codec import MAX_MESSAGE
from sleap_rtc.protocol.handshake import MembershipOffer, handshake_codec
from sleap_rtc.protocol.signed import Chain, Signed, SignedMembership
from sleap_rtc.testing.made_room import MadeRoom


def member_of(house: MadeRoom, chain: Chain) -> Member:
    return verify_chain(chain, room=house.room, now=house.now)


def sealed(house: MadeRoom, key: SigningKey, chain: Chain, **changes: Any) -> SignedMembership:
    """A list as somebody might sign it who doesn't keep to the rules."""
    plain: dict[str, Any] = {"room": house.room, "number": 1, "issued": house.now}
    document = MembershipList(**(plain | changes))
    signed = seal(key, MembershipList.CONTEXT, document, what="it")
    return SignedMembership(signed=signed, chain=chain)


def offer(house: MadeRoom, offered: SignedMembership, current: Membership | None = None) -> Any:
    return adopt(current or house.no_list(), offered, room=house.room, now=house.now)


# ── lists ────────────────────────────────────────────────────────────────────


def test_lists_are_numbered(house: MadeRoom, worker: SigningKey) -> None:
    first = house.next_list(members={worker.device: "member"})
    second = house.next_list(first, revoked=(worker.device,))
    assert (first.number, second.number) == (1, 2)
    assert first.roles == {worker.device: "member"}
    assert second.revoked == {worker.device}
    assert first.digest != second.digest
    assert first.signed is not None
    assert second.signed is not None
    assert offer(house, first.signed) == first
    assert offer(house, second.signed) == second
    assert offer(house, second.signed, first) == second


def test_a_lower_number_is_never_taken(house: MadeRoom) -> None:
    first = house.next_list()
    second = house.next_list(first)
    assert first.signed is not None
    with pytest.raises(NotTrusted, match="never go back"):
        offer(house, first.signed, second)


def test_the_same_list_again_changes_nothing(house: MadeRoom) -> None:
    first = house.next_list()
    assert first.signed is not None
    assert offer(house, first.signed, first) is first


def test_another_list_with_the_same_number_is_reported(house: MadeRoom, worker: SigningKey) -> None:
    one, other = house.next_list(), house.next_list(revoked=(worker.device,))
    assert other.signed is not None
    with pytest.raises(NotTrusted, match="two different lists with this number") as caught:
        offer(house, other.signed, one)
    assert "tampers" in caught.value.hint_text


def test_a_list_does_not_expire(house: MadeRoom) -> None:
    first = house.next_list()
    assert first.signed is not None
    later = house.now + 10 * LIFETIME
    assert adopt(house.no_list(), first.signed, room=house.room, now=later) == first


def test_a_list_from_the_future_is_refused(house: MadeRoom) -> None:
    ahead = MadeRoom(now=house.now + timedelta(minutes=6)).next_list()
    assert ahead.signed is not None
    with pytest.raises(NotTrusted, match="still to come"):
        offer(house, ahead.signed)


def test_a_list_dated_outside_its_signers_time_is_refused(house: MadeRoom) -> None:
    for days in (-1, 31):
        made = sealed(
            house, house.owner, house.owner_chain, issued=house.now + timedelta(days=days)
        )
        with pytest.raises(NotTrusted):
            offer(house, made)


@pytest.mark.parametrize("role", ["member", "viewer", "worker"])
def test_only_owners_sign_lists(house: MadeRoom, worker: SigningKey, role: Any) -> None:
    chain = house.joined(worker, role=role)
    with pytest.raises(NotTrusted, match="wasn't signed by an owner"):
        offer(house, sealed(house, worker, chain))
    with pytest.raises(NotTrusted, match="wasn't signed by an owner"):
        sign_membership(worker, chain, house.no_list(), members=(), revoked=(), now=house.now)


def test_an_owners_chain_beside_anothers_signature_is_refused(
    house: MadeRoom, worker: SigningKey
) -> None:
    with pytest.raises(NotTrusted, match="wasn't signed by an owner"):
        offer(house, sealed(house, worker, house.owner_chain))


def test_a_list_of_another_room_is_refused(house: MadeRoom, other_house: MadeRoom) -> None:
    theirs = other_house.next_list().signed
    assert theirs is not None
    with pytest.raises(NotTrusted, match="was expected"):
        offer(house, theirs)
    # Signed by an owner of both rooms, it still belongs to one.
    mixed = sealed(house, house.owner, house.owner_chain, room=other_house.room)
    with pytest.raises(NotTrusted, match="was expected"):
        offer(house, mixed)


def test_a_list_that_contradicts_itself_is_refused(house: MadeRoom, worker: SigningKey) -> None:
    entry = ListedMember(device=worker.device, name="w", role="member")
    for changes in (
        {"members": (entry, entry)},
        {"members": (entry,), "revoked": (worker.device,)},
    ):
        with pytest.raises(NotTrusted, match="twice"):
            offer(house, sealed(house, house.owner, house.owner_chain, **changes))


def test_an_owner_cannot_sign_itself_away(house: MadeRoom) -> None:
    with pytest.raises(NotTrusted, match="removed from room"):
        house.next_list(revoked=(house.owner.device,))
    with pytest.raises(NotTrusted, match="removes the owner"):
        house.next_list(members={house.owner.device: "member"})


def second_owner(house: MadeRoom) -> tuple[SigningKey, Chain]:
    device = house.key(40)
    return device, issue.make_room(house.room_key, device.device, name="desktop", now=house.now)


@pytest.mark.parametrize("how", ["revoked", "demoted"])
def test_a_removed_owner_signs_no_more_lists(house: MadeRoom, how: str) -> None:
    device, chain = second_owner(house)
    current = (
        house.next_list(revoked=(device.device,))
        if how == "revoked"
        else house.next_list(members={device.device: "viewer"})
    )
    with pytest.raises(NotTrusted, match=r"was removed|no owner any more"):
        offer(house, sealed(house, device, chain, number=2), current)


def test_what_is_signed_must_be_a_list(house: MadeRoom) -> None:
    for change in ({"number": 0}, {"number": -1}, {"members": "x"}, {"revoked": ("zz",)}):
        with pytest.raises(DataError):
            offer(house, sealed(house, house.owner, house.owner_chain, **change))


@given(st.binary(max_size=200))
def test_any_signed_bytes_are_a_list_or_an_error(payload: bytes) -> None:
    house = MadeRoom()
    signed = Signed(
        context="membership",
        payload=payload,
        signer=house.owner.device,
        signature=house.owner.sign("membership", payload),
    )
    with pytest.raises(SleapRtcError):
        offer(house, SignedMembership(signed=signed, chain=house.owner_chain))


def test_the_largest_list_fits_one_message(house: MadeRoom) -> None:
    def listed(count: int) -> Membership:
        members = {SigningKey.from_seed(bytes([n]) * 32).device: "worker" for n in range(count)}
        return house.next_list(members=members)  # type: ignore[arg-type]

    largest = listed(250)
    assert largest.signed is not None
    assert len(handshake_codec.encode(MembershipOffer(membership=largest.signed))) <= MAX_MESSAGE
    assert len(encode(largest.signed)) <= MAX_TEXT
    many = [
        ListedMember(device=house.key(n % 250).device, name="x" * 64, role="worker")
        for n in range(600)
    ]
    with pytest.raises(DataError, match="can be signed"):
        sign_membership(
            house.owner,
            house.owner_chain,
            house.no_list(),
            members=many,
            revoked=(),
            now=house.now,
        )


def test_adopting_needs_the_rooms_own_list(house: MadeRoom, other_house: MadeRoom) -> None:
    assert other_house.room != house.room
    assert (
        open_membership(sealed(house, house.owner, house.owner_chain), room=house.room).number == 1
    )


# ── what a list makes of a device ────────────────────────────────────────────


def test_without_a_list_the_chain_says_it_all(house: MadeRoom, worker: SigningKey) -> None:
    member = member_of(house, house.joined(worker))
    assert check_member(member, house.no_list()) == member


def test_a_revoked_device_is_refused(house: MadeRoom, worker: SigningKey) -> None:
    member = member_of(house, house.joined(worker))
    with pytest.raises(NotTrusted, match="removed from room"):
        check_member(member, house.next_list(revoked=(worker.device,)))


def test_the_list_gives_another_role(house: MadeRoom, worker: SigningKey) -> None:
    member = member_of(house, house.joined(worker))
    listed = house.next_list(members={worker.device: "viewer"})
    assert check_member(member, listed) == msgspec.structs.replace(member, role="viewer")


def test_the_list_cannot_make_an_owner(house: MadeRoom, worker: SigningKey) -> None:
    member = member_of(house, house.joined(worker, role="member"))
    listed = house.next_list(members={worker.device: "owner", house.owner.device: "owner"})
    assert check_member(member, listed).role == "member"
    assert check_member(member_of(house, house.owner_chain), listed).role == "owner"


def test_a_revoked_invite_is_no_way_in(house: MadeRoom, worker: SigningKey) -> None:
    invite = house.key(100).device
    member = member_of(house, house.joined(worker))
    with pytest.raises(NotTrusted, match="the invite it came by"):
        check_member(member, house.next_list(revoked=(invite,)))
    # Who has been listed stays: this closes an invite behind the device that used it.
    closed = house.next_list(members={worker.device: "worker"}, revoked=(invite,))
    assert check_member(member, closed) == member


@pytest.mark.parametrize("how", ["revoked", "demoted"])
def test_the_word_of_a_removed_owner_counts_no_more(
    house: MadeRoom, worker: SigningKey, how: str
) -> None:
    device, chain = second_owner(house)
    granted = issue.grant(
        device,
        chain,
        room=house.room,
        device=worker.device,
        name="w",
        role="worker",
        now=house.now,
    )
    member = member_of(house, granted)
    gone: dict[str, Any] = (
        {"revoked": (device.device,)}
        if how == "revoked"
        else {"members": {device.device: "viewer"}}
    )
    with pytest.raises(NotTrusted, match="the owner who let it in"):
        check_member(member, house.next_list(**gone))
    gone["members"] = {**gone.get("members", {}), worker.device: "worker"}
    assert check_member(member, house.next_list(**gone)) == member
