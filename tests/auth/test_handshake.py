from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sleap_rtc.auth import issue
from sleap_rtc.auth.handshake import (
    _TRANSITIONS,
    Done,
    Effect,
    Handshake,
    Refuse,
    SaveInvite,
    SaveMembership,
    Send,
    Setup,
    choose,
)
from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.errors import (
    DeadlineExceeded,
    NotPermitted,
    NotTrusted,
    ProtocolError,
    VersionMismatch,
)
from sleap_rtc.protocol.handshake import (
    HandshakeMessage,
    Hello,
    MembershipOffer,
    Proof,
    Refusal,
)
from sleap_rtc.testing.handshakes import Ends, Tamper, run
from sleap_rtc.testing.made_room import MadeRoom

# ── it works ─────────────────────────────────────────────────────────────────


def test_two_members_prove_themselves(house: MadeRoom, worker: SigningKey) -> None:
    ends = run(
        house,
        offerer={"versions": (1, 2, 3), "features": ("a", "b")},
        answerer={"versions": (2, 1), "features": ("b", "c")},
    )
    assert ends.proven()
    one, other = ends.result("offerer"), ends.result("answerer")
    assert (one.peer.device, one.peer.role, one.peer.name) == (worker.device, "worker", "gpu-1")
    assert (other.peer.device, other.peer.role) == (house.owner.device, "owner")
    for result in (one, other):
        assert (result.version, result.features) == (2, {"b"})
        assert (result.session, result.purpose) == ("session-1", "control")
    assert [machine.state for machine in ends.machines.values()] == ["done", "done"]


def test_who_joined_by_a_single_use_invite_is_remembered_first(
    house: MadeRoom, worker: SigningKey
) -> None:
    ends = run(house)
    saved = SaveInvite(house.key(100).device, worker.device)
    assert ends.effects["offerer"][-2:] == [saved, ends.of("offerer", Done)[0]]
    assert ends.of("answerer", SaveInvite) == []


@pytest.mark.parametrize("behind", ["offerer", "answerer"])
def test_the_newer_list_is_sent_saved_and_then_proven(house: MadeRoom, behind: str) -> None:
    newer = house.next_list(house.next_list())
    ahead = "answerer" if behind == "offerer" else "offerer"
    ends = run(house, **{ahead: {"membership": newer}})
    assert ends.proven()
    assert [type(effect) for effect in ends.effects[behind][:3]] == [Send, SaveMembership, Send]
    assert ends.of(behind, SaveMembership) == [SaveMembership(newer)]
    assert ends.of(ahead, SaveMembership) == []
    assert ends.result(behind).membership == newer
    assert ends.result(ahead).membership == newer


def test_nothing_is_sent_where_both_have_the_same_list(house: MadeRoom) -> None:
    held = house.next_list()
    ends = run(house, offerer={"membership": held}, answerer={"membership": held})
    assert ends.proven()
    for side in ends.effects:
        sent = [type(effect.message) for effect in ends.of(side, Send)]
        assert sent == [Hello, Proof]


def test_the_role_in_the_list_holds(house: MadeRoom, worker: SigningKey) -> None:
    listed = house.next_list(members={worker.device: "viewer"})
    assert run(house, offerer={"membership": listed}).result("offerer").peer.role == "viewer"
    assert run(house, answerer={"membership": listed}).result("offerer").peer.role == "viewer"


def test_the_newer_list_decides_and_not_the_one_held(house: MadeRoom, worker: SigningKey) -> None:
    """A device that was removed, and taken back since."""
    first = house.next_list(revoked=(worker.device,))
    second = house.next_list(first, members={worker.device: "member"})
    ends = run(house, offerer={"membership": first}, answerer={"membership": second})
    assert ends.proven()
    assert ends.result("offerer").peer.role == "member"


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["offerer", "answerer"]), max_size=12))
def test_in_whatever_order_messages_arrive(order: list[str]) -> None:
    house = MadeRoom()
    worker = house.key(3)
    newer = house.next_list()
    machines = {
        "offerer": Handshake(house.setup(house.owner, house.owner_chain, "offerer")),
        "answerer": Handshake(
            house.setup(worker, house.joined(worker), "answerer", membership=newer)
        ),
    }
    waiting: dict[str, list[HandshakeMessage]] = {"offerer": [], "answerer": []}
    done = []

    def take(side: str, effects: tuple[Effect, ...]) -> None:
        other = "answerer" if side == "offerer" else "offerer"
        waiting[other] += [e.message for e in effects if isinstance(e, Send)]
        done.extend(side for e in effects if isinstance(e, Done))

    for side, machine in machines.items():
        take(side, machine.start())
    for side in itertools.chain(order, itertools.cycle(("offerer", "answerer"))):
        if waiting[side]:
            take(side, machines[side].receive(waiting[side].pop(0)))
        if not any(waiting.values()):
            break
    assert sorted(done) == ["answerer", "offerer"]


# ── a server, or anything between, that changes something ────────────────────


def changing(side: str, kind: type, /, **changes: Any) -> Tamper:
    def tamper(sender: str, message: HandshakeMessage) -> HandshakeMessage:
        if sender == side and isinstance(message, kind):
            return msgspec.structs.replace(message, **changes)
        return message

    return tamper


def test_a_replaced_fingerprint_is_noticed_by_both(house: MadeRoom) -> None:
    """The case that the handshake is for: the server puts its own certificate between."""
    mine, yours = bytes([1]) * 32, bytes([2]) * 32
    ends = run(house, offerer={"peer_fingerprint": mine}, answerer={"peer_fingerprint": yours})
    assert ends.nobody_is_fooled()
    for side in ("offerer", "answerer"):
        assert isinstance(ends.error(side), NotTrusted | NotPermitted)
    assert "may have changed what passed through it" in ends.error("answerer").message


@pytest.mark.parametrize("side", ["offerer", "answerer"])
def test_one_replaced_fingerprint_is_noticed_by_both(house: MadeRoom, side: str) -> None:
    ends = run(house, **{side: {"peer_fingerprint": bytes([1]) * 32}})
    assert not ends.proven()
    assert ends.nobody_is_fooled()


HELLO_CHANGES: list[dict[str, Any]] = [
    {"device": "ab" * 32},
    {"side": "offerer"},
    {"side": "answerer"},
    {"room": "a" * 32},
    {"session": "session-2"},
    {"purpose": "blocks"},
    {"nonce": bytes(32)},
    {"versions": (1,)},
    {"versions": (1, 2, 3)},
    {"versions": (9,)},
    {"features": ()},
    {"features": ("a", "b")},
    {"membership": 5},
    {"membership_digest": bytes([1]) * 32},
    {"handshake": 2},
    {"name": "gpu-9"},
]


@pytest.mark.parametrize("side", ["offerer", "answerer"])
@pytest.mark.parametrize("change", HELLO_CHANGES, ids=str)
def test_no_field_of_a_hello_can_be_changed(
    house: MadeRoom, side: str, change: dict[str, Any]
) -> None:
    setup = {"versions": (1, 2), "features": ("a",)}
    if change.get("side") == side:
        return  # that is what it says anyway
    ends = run(house, tamper=changing(side, Hello, **change), offerer=setup, answerer=setup)
    assert ends.nobody_is_fooled()


@pytest.mark.parametrize("side", ["offerer", "answerer"])
def test_a_downgrade_is_noticed(house: MadeRoom, side: str) -> None:
    setup = {"versions": (1, 2)}
    ends = run(house, tamper=changing(side, Hello, versions=(1,)), offerer=setup, answerer=setup)
    assert ends.nobody_is_fooled()


@pytest.mark.parametrize("side", ["offerer", "answerer"])
def test_a_signature_cannot_be_changed_or_left_out(house: MadeRoom, side: str) -> None:
    other = "answerer" if side == "offerer" else "offerer"
    ends = run(house, tamper=changing(side, Proof, signature=bytes(64)))
    assert not ends.of(other, Done)
    assert isinstance(ends.error(other), NotTrusted)
    ends = run(house, tamper=lambda who, m: None if who == side and isinstance(m, Proof) else m)
    assert not ends.of(other, Done)
    assert ends.machines[other].state == "proof"


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("session", "session-2"),
        ("purpose", "blocks"),
        ("own_fingerprint", bytes([9]) * 32),
    ],
)
@pytest.mark.parametrize("side", ["offerer", "answerer"])
def test_both_must_mean_the_same_connection(
    house: MadeRoom, side: str, what: str, value: Any
) -> None:
    assert run(house, **{side: {what: value}}).nobody_is_fooled()


@pytest.mark.parametrize(
    ("what", "value"), [("session", "session-2"), ("purpose", "blocks"), ("room", None)]
)
def test_a_proof_is_bound_to_more_than_the_hello_says(
    house: MadeRoom, other_house: MadeRoom, what: str, value: Any
) -> None:
    """Even if something between rewrites both hellos so that they agree, the proofs don't."""
    worker = house.key(3)
    if what == "room":
        other_house.owner = house.owner
        ends = Ends(
            house.setup(house.owner, house.owner_chain, "offerer"),
            other_house.setup(worker, other_house.joined(worker), "answerer"),
            lambda side, m: (
                msgspec.structs.replace(
                    m,
                    room=house.room if side == "answerer" else other_house.room,
                    chain=house.joined(worker) if side == "answerer" else other_house.owner_chain,
                )
                if isinstance(m, Hello)
                else m
            ),
        )
    else:
        right = {"session": "session-1", "purpose": "control"}[what]
        ends = run(
            house,
            answerer={what: value},
            tamper=lambda side, m: (
                msgspec.structs.replace(m, **{what: right if side == "answerer" else value})
                if isinstance(m, Hello)
                else m
            ),
        )
    assert ends.nobody_is_fooled()
    assert any("doesn't fit this connection" in ends.error(s).message for s in ends.effects)


def test_a_recorded_handshake_is_worth_nothing(house: MadeRoom) -> None:
    recorded: dict[type, HandshakeMessage] = {}

    def record(side: str, message: HandshakeMessage) -> HandshakeMessage:
        if side == "answerer":
            recorded[type(message)] = message
        return message

    assert run(house, tamper=record).proven()
    machine = Handshake(house.setup(house.owner, house.owner_chain, "offerer"))
    machine.start()
    machine.receive(recorded[Hello])
    (told, refuse) = machine.receive(recorded[Proof])
    assert isinstance(refuse, Refuse)
    assert isinstance(refuse.error, NotTrusted)
    assert isinstance(told, Send)


def test_own_words_sent_back_are_refused(house: MadeRoom) -> None:
    machine = Handshake(house.setup(house.owner, house.owner_chain, "offerer"))
    (hello,) = machine.start()
    assert isinstance(hello, Send)
    assert isinstance(hello.message, Hello)
    for sent_back in (hello.message, msgspec.structs.replace(hello.message, side="answerer")):
        machine = Handshake(house.setup(house.owner, house.owner_chain, "offerer"))
        machine.start()
        refuse = machine.receive(sent_back)[-1]
        assert isinstance(refuse, Refuse)
        assert "own words" in refuse.error.message


def test_an_own_nonce_sent_back_is_refused(house: MadeRoom) -> None:
    nonce = bytes([4]) * 32
    ends = run(house, offerer={"nonce": nonce}, answerer={"nonce": nonce})
    assert ends.nobody_is_fooled()


def test_an_own_certificate_shown_back_is_refused(house: MadeRoom) -> None:
    same = bytes([4]) * 32
    ends = run(house, offerer={"own_fingerprint": same, "peer_fingerprint": same})
    assert ends.nobody_is_fooled()
    assert "own certificate" in ends.error("offerer").message


def test_one_sides_proof_is_not_the_others(house: MadeRoom) -> None:
    """A proof sent back to whoever made it."""
    own: dict[str, HandshakeMessage] = {}

    def reflect(side: str, message: HandshakeMessage) -> HandshakeMessage:
        if isinstance(message, Proof):
            own[side] = message
            other = "answerer" if side == "offerer" else "offerer"
            return own.get(other, message)
        return message

    ends = run(house, tamper=reflect)
    assert not ends.proven()


# ── people who don't belong ──────────────────────────────────────────────────


def test_a_stranger_is_refused(house: MadeRoom, other_house: MadeRoom) -> None:
    stranger = house.key(9)
    ends = run(house, tamper=changing("answerer", Hello, chain=other_house.joined(stranger)))
    assert ends.nobody_is_fooled()
    assert "doesn't begin with the key of room" in ends.error("offerer").message


def test_the_chain_of_somebody_else_is_refused(house: MadeRoom) -> None:
    stranger = house.key(9)
    ends = run(house, tamper=changing("answerer", Hello, device=stranger.device))
    assert "its chain is for another key" in ends.error("offerer").message
    assert ends.nobody_is_fooled()


def test_a_stolen_chain_without_its_key_is_refused(house: MadeRoom, worker: SigningKey) -> None:
    thief = house.key(9)

    def tamper(side: str, message: HandshakeMessage) -> HandshakeMessage:
        if side == "answerer" and isinstance(message, Hello):
            return msgspec.structs.replace(
                message, device=worker.device, chain=house.joined(worker)
            )
        return message

    ends = Ends(
        house.setup(house.owner, house.owner_chain, "offerer"),
        house.setup(thief, house.joined(thief, 101), "answerer"),
        tamper,
    )
    assert not ends.of("offerer", Done)


def test_an_invite_is_no_membership(house: MadeRoom) -> None:
    ends = run(house, tamper=changing("answerer", Hello, chain=house.invited()))
    assert ends.nobody_is_fooled()


def test_an_ended_chain_is_refused_by_both(house: MadeRoom) -> None:
    later = house.now + timedelta(days=31)
    ends = run(house, offerer={"now": later})
    assert ends.nobody_is_fooled()
    assert ends.error("offerer").message.startswith("This device is not trusted")
    renewed = issue.make_room(
        house.room_key, house.owner.device, name="o", now=house.now + timedelta(days=30)
    )
    ends = run(house, offerer={"now": later, "chain": renewed})
    assert "ended on" in ends.error("offerer").message
    assert ends.nobody_is_fooled()


def test_a_chain_that_is_not_ones_own_is_noticed_at_once(
    house: MadeRoom, worker: SigningKey
) -> None:
    ends = run(house, offerer={"chain": house.joined(worker)})
    assert "its chain is for another key" in ends.error("offerer").message
    assert ends.of("offerer", Send) == []


@pytest.mark.parametrize("holder", ["offerer", "answerer"])
def test_a_removed_device_is_refused_whoever_holds_the_list(
    house: MadeRoom, worker: SigningKey, holder: str
) -> None:
    removed = house.next_list(revoked=(worker.device,))
    ends = run(house, **{holder: {"membership": removed}})
    assert ends.nobody_is_fooled()
    assert "removed from room" in ends.error(holder).message


def test_a_device_learns_that_it_was_removed_and_keeps_that(
    house: MadeRoom, worker: SigningKey
) -> None:
    removed = house.next_list(revoked=(worker.device,))
    (offered,) = [removed.signed]
    assert offered is not None
    machine = Handshake(house.setup(worker, house.joined(worker), "answerer"))
    machine.start()
    owner = Handshake(house.setup(house.owner, house.owner_chain, "offerer", membership=removed))
    (hello,) = owner.start()
    assert isinstance(hello, Send)
    machine.receive(hello.message)
    save, told, refuse = machine.receive(MembershipOffer(membership=offered))
    assert save == SaveMembership(removed)
    assert isinstance(told, Send)
    assert isinstance(refuse, Refuse)
    assert "removed from room" in refuse.error.message


def test_a_second_device_under_a_single_use_invite_is_refused(
    house: MadeRoom, worker: SigningKey
) -> None:
    invite = house.key(100).device
    seen = {invite: house.key(8).device}
    ends = run(house, offerer={"seen_invites": seen})
    assert ends.nobody_is_fooled()
    assert "another one has used it" in ends.error("offerer").message
    assert run(house, offerer={"seen_invites": {invite: worker.device}}).proven()
    many = house.joined(worker, uses=2)
    assert run(house, offerer={"seen_invites": seen}, answerer={"chain": many}).proven()


def test_another_member_than_the_one_meant_is_refused(house: MadeRoom, worker: SigningKey) -> None:
    assert run(house, offerer={"expected": worker.device}).proven()
    ends = run(house, offerer={"expected": house.key(8).device})
    assert ends.nobody_is_fooled()
    assert "was meant for device" in ends.error("offerer").message


# ── membership numbers ───────────────────────────────────────────────────────


def test_another_list_than_the_claimed_one_is_refused(house: MadeRoom) -> None:
    first = house.next_list()
    second = house.next_list(first)
    third = house.next_list(second)
    for claimed, sent in ((third, second), (second, third)):
        assert sent.signed is not None
        ends = run(
            house,
            offerer={"membership": first},
            answerer={"membership": claimed},
            tamper=changing("answerer", MembershipOffer, membership=sent.signed),
        )
        assert ends.nobody_is_fooled()
        assert "another membership list than it claimed" in ends.error("offerer").message
        assert ends.of("offerer", SaveMembership) == []


def test_a_lower_list_is_never_taken(house: MadeRoom) -> None:
    first = house.next_list()
    second = house.next_list(first)
    assert first.signed is not None
    ends = run(
        house,
        offerer={"membership": second},
        answerer={"membership": house.next_list(second)},
        tamper=changing("answerer", MembershipOffer, membership=first.signed),
    )
    assert ends.nobody_is_fooled()
    assert "never go back" in ends.error("offerer").message


def test_two_lists_with_one_number_are_reported(house: MadeRoom, worker: SigningKey) -> None:
    one = house.next_list()
    other = house.next_list(members={worker.device: "worker"})
    ends = run(house, offerer={"membership": one}, answerer={"membership": other})
    assert ends.nobody_is_fooled()
    for side in ends.effects:
        assert "two different lists" in ends.error(side).message


def test_a_list_of_a_stranger_is_refused(house: MadeRoom, other_house: MadeRoom) -> None:
    theirs = other_house.next_list()
    ends = run(
        house,
        answerer={"membership": msgspec.structs.replace(theirs, room=house.room)},
    )
    assert ends.nobody_is_fooled()
    assert ends.of("offerer", SaveMembership) == []


# ── versions ─────────────────────────────────────────────────────────────────


def test_the_highest_common_version_is_chosen() -> None:
    assert choose((1, 2, 5), (5, 2, 9), peer="it") == 5
    with pytest.raises(VersionMismatch, match="speaks protocol versions 3, 4; this"):
        choose((1, 2), (4, 3), peer="it")


def test_without_a_common_version_both_say_so(house: MadeRoom) -> None:
    ends = run(house, offerer={"versions": (2,)})
    assert ends.nobody_is_fooled()
    assert isinstance(ends.error("offerer"), VersionMismatch)


# ── what a machine takes, and when ───────────────────────────────────────────


def messages(house: MadeRoom) -> dict[type, HandshakeMessage]:
    seen: dict[type, HandshakeMessage] = {}

    def record(side: str, message: HandshakeMessage) -> HandshakeMessage:
        if side == "answerer":
            seen[type(message)] = message
        return message

    assert run(house, answerer={"membership": house.next_list()}, tamper=record).proven()
    return seen


@pytest.mark.parametrize("state", ["idle", "hello", "membership", "proof", "done", "refused"])
def test_whatever_is_not_in_the_table_is_refused(house: MadeRoom, state: str) -> None:
    known = messages(house)
    setup = house.setup(house.owner, house.owner_chain, "offerer")
    for kind in (Hello, MembershipOffer, Proof):
        if (state, kind) in _TRANSITIONS:
            continue
        machine = Handshake(setup)
        machine._state = state  # type: ignore[assignment]
        effects = machine.receive(known[kind])
        refuse = effects[-1]
        assert isinstance(refuse, Refuse)
        assert isinstance(refuse.error, ProtocolError)
        assert machine.state == "refused"
        # It never opens again.
        again = machine.receive(known[Hello])
        assert [type(effect) for effect in again] == [Refuse]


def test_a_second_handshake_is_refused(house: MadeRoom) -> None:
    ends = run(house)
    (hello,) = [e.message for e in ends.of("answerer", Send) if isinstance(e.message, Hello)]
    _, refuse = ends.machines["offerer"].receive(hello)
    assert isinstance(refuse, Refuse)
    assert "after the handshake is over" in refuse.error.message
    with pytest.raises(RuntimeError):
        ends.machines["offerer"].start()


def test_a_refusal_ends_it_and_is_shown_cleaned(house: MadeRoom) -> None:
    machine = Handshake(house.setup(house.owner, house.owner_chain, "offerer"))
    machine.start()
    (refuse,) = machine.receive(Refusal(code="not_trusted", why="no\x1b[31m\nway."))
    assert isinstance(refuse, Refuse)
    assert isinstance(refuse.error, NotPermitted)
    assert refuse.error.message == "The other side refused this connection: no [31m way."
    assert machine.state == "refused"


def test_a_refusal_may_still_come_when_this_side_is_done(house: MadeRoom) -> None:
    ends = run(house, tamper=changing("offerer", Proof, signature=bytes(64)))
    assert ends.of("offerer", Done)
    assert isinstance(ends.error("offerer"), NotPermitted)
    assert ends.machines["offerer"].state == "refused"


def test_the_other_side_is_told_why(house: MadeRoom) -> None:
    ends = run(house, answerer={"session": "session-2"})
    told = [e.message for e in ends.of("offerer", Send) if isinstance(e.message, Refusal)]
    assert told[0].code == "not_trusted"
    assert "session" in told[0].why


def test_the_shell_can_end_it(house: MadeRoom) -> None:
    machine = Handshake(house.setup(house.owner, house.owner_chain, "offerer"))
    machine.start()
    error = DeadlineExceeded(what="The handshake", seconds=15)
    told, refuse = machine.refuse(error)
    assert isinstance(told, Send)
    assert refuse == Refuse(error)
    assert machine.state == "refused"


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": b"short"},
        {"own_fingerprint": b"short"},
        {"peer_fingerprint": bytes(20)},
    ],
)
def test_a_shells_mistakes_are_caught(house: MadeRoom, change: dict[str, Any]) -> None:
    plain = msgspec.structs.asdict(house.setup(house.owner, house.owner_chain, "offerer"))
    with pytest.raises(ValueError, match="bytes"):
        Setup(**(plain | change))
    with pytest.raises(ValueError, match="another room"):
        Setup(**(plain | {"room": "a" * 32}))


def test_no_secret_is_shown(house: MadeRoom) -> None:
    setup = house.setup(house.owner, house.owner_chain, "offerer")
    assert str(house.owner.seed) not in repr(setup)
    assert house.owner.seed.hex() not in repr(setup)
