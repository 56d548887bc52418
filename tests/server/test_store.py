"""The store: codes once, invites counted, lists never backwards, all of it after a restart."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from sleap_rtc.auth import issue
from sleap_rtc.auth.certificates import Member, verify_chain
from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.auth.signed import chain_to_texts
from sleap_rtc.domain.ids import RoomId, room_id_of
from sleap_rtc.errors import Damaged, InvalidConfig, NotFound, NotPermitted, NotTrusted
from sleap_rtc.protocol.signed import Chain, SignedMembership
from sleap_rtc.server import store as module
from sleap_rtc.server.store import CODE_LIFETIME, FILE, Account, Due, Store, prepare_data_dir
from sleap_rtc.testing.made_room import NOON, MadeRoom

DEVICE = SigningKey.from_seed(bytes([7]) * 32).device


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    yield store
    store.close()


@pytest.fixture
def made() -> MadeRoom:
    return MadeRoom()


def known_room(store: Store, made: MadeRoom) -> None:
    code = store.new_code(now=NOON)
    store.register_by_code(made.owner.device, code=code, name="laptop", program="x", now=NOON)
    store.create_room(verified(made, made.owner_chain), name="lab", now=NOON)


def verified(made: MadeRoom, chain: Chain) -> Member:
    return verify_chain(chain, room=made.room, now=NOON)


def offered(made: MadeRoom, number: int) -> SignedMembership:
    current = made.no_list()
    for step in range(number):
        current = made.next_list(current, revoked=(made.key(200 + step).device,))
    assert current.signed is not None
    return current.signed


def test_a_code_registers_one_device_once(store: Store, made: MadeRoom) -> None:
    code = store.new_code(now=NOON)
    account = store.register_by_code(DEVICE, code=code, name="a", program="x", now=NOON)
    assert account == store.account(DEVICE) == Account(device=DEVICE, may_create_rooms=True)
    with pytest.raises(NotPermitted, match="set-up code"):
        store.register_by_code(made.owner.device, code=code, name="b", program="x", now=NOON)
    assert store.account(made.owner.device) is None
    # The same device, whose answer got lost, may repeat itself.
    assert store.register_by_code(DEVICE, code=code, name="a", program="x", now=NOON) == account


@pytest.mark.parametrize("change", [str.lower, lambda c: c.replace("-", " "), lambda c: f" {c}\n"])
def test_codes_are_read_as_people_type_them(store: Store, change: object) -> None:
    code = store.new_code(now=NOON)
    assert callable(change)
    store.register_by_code(DEVICE, code=change(code), name="a", program="", now=NOON)


def test_codes_end(store: Store) -> None:
    code = store.new_code(now=NOON)
    late = NOON + CODE_LIFETIME
    with pytest.raises(NotPermitted):
        store.register_by_code(DEVICE, code=code, name="a", program="", now=late)
    with pytest.raises(NotPermitted):
        store.register_by_code(DEVICE, code="", name="a", program="", now=NOON)
    store.register_by_code(DEVICE, code=code, name="a", program="", now=NOON)


def test_codes_are_kept_as_hashes_alone(store: Store, tmp_path: Path) -> None:
    code = store.new_code(now=NOON)
    store.close()
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert code.encode() not in content
    assert code.replace("-", "").encode() not in content


def test_of_many_devices_with_one_code_one_wins(store: Store, made: MadeRoom) -> None:
    code = store.new_code(now=NOON)

    def register(number: int) -> bool:
        try:
            device = made.key(number).device
            store.register_by_code(device, code=code, name="a", program="", now=NOON)
        except NotPermitted:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(register, range(16))) == 1


def test_the_first_code_is_made_until_it_was_used(store: Store) -> None:
    first = store.first_code(now=NOON)
    second = store.first_code(now=NOON)
    assert first is not None
    assert second is not None
    with pytest.raises(NotPermitted):
        store.register_by_code(DEVICE, code=first, name="a", program="", now=NOON)
    store.register_by_code(DEVICE, code=second, name="a", program="", now=NOON)
    assert store.first_code(now=NOON) is None


def test_an_invite_lets_in_as_many_as_it_says(store: Store, made: MadeRoom) -> None:
    known_room(store, made)
    devices = [made.key(10 + n) for n in range(3)]
    members = [verified(made, made.joined(key, uses=2)) for key in devices]
    store.admit(members[0], (), program="x", now=NOON)
    store.admit(members[0], (), program="x", now=NOON)
    store.admit(members[1], (), program="x", now=NOON)
    with pytest.raises(NotTrusted, match="used up by 2 other devices"):
        store.admit(members[2], (), program="x", now=NOON)
    assert store.account(devices[0].device) == Account(
        device=devices[0].device, may_create_rooms=False
    )
    assert store.account(devices[2].device) is None
    store.admit(members[1], (), program="x", now=NOON)
    # Another invite has uses of its own.
    store.admit(verified(made, made.joined(devices[2], 101)), (), program="x", now=NOON)


def test_of_many_devices_with_one_invite_one_wins(store: Store, made: MadeRoom) -> None:
    known_room(store, made)
    members = [verified(made, made.joined(made.key(10 + n))) for n in range(16)]

    def admit(member: Member) -> bool:
        try:
            store.admit(member, (), program="", now=NOON)
        except NotTrusted:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(admit, members)) == 1


def test_joining_takes_no_rights_from_a_device(store: Store, made: MadeRoom) -> None:
    known_room(store, made)
    key = made.key(10)
    code = store.new_code(now=NOON)
    store.register_by_code(key.device, code=code, name="a", program="", now=NOON)
    store.admit(verified(made, made.joined(key)), (), program="", now=NOON)
    account = store.account(key.device)
    assert account is not None
    assert account.may_create_rooms


def test_an_unknown_room_is_not_found(store: Store, made: MadeRoom) -> None:
    with pytest.raises(NotFound, match=made.room):
        store.admit(verified(made, made.joined(made.key(10))), (), program="", now=NOON)
    with pytest.raises(NotFound):
        store.membership_text(made.room)
    with pytest.raises(NotFound):
        store.put_membership(made.room, offered(made, 1), device=DEVICE, now=NOON)
    assert store.account(made.key(10).device) is None


def test_a_removed_device_uses_up_no_invite(store: Store, made: MadeRoom) -> None:
    known_room(store, made)
    removed, other = made.key(10), made.key(11)
    members = made.next_list(revoked=(removed.device,))
    assert members.signed is not None
    store.put_membership(made.room, members.signed, device=made.owner.device, now=NOON)
    assert store.admit(verified(made, made.joined(removed)), (), program="", now=NOON).number == 1
    assert store.account(removed.device) is None
    store.admit(verified(made, made.joined(other)), (), program="", now=NOON)


def test_lists_never_go_back(store: Store, made: MadeRoom) -> None:
    known_room(store, made)
    assert store.membership_text(made.room) is None
    owner = made.owner.device
    assert store.put_membership(made.room, offered(made, 2), device=owner, now=NOON).number == 2
    text = store.membership_text(made.room)
    with pytest.raises(NotTrusted, match="never go back"):
        store.put_membership(made.room, offered(made, 1), device=owner, now=NOON)
    assert store.put_membership(made.room, offered(made, 2), device=owner, now=NOON).number == 2
    other_two = made.next_list(made.next_list())
    assert other_two.signed is not None
    with pytest.raises(NotTrusted, match="two different lists"):
        store.put_membership(made.room, other_two.signed, device=owner, now=NOON)
    assert store.membership_text(made.room) == text
    assert store.put_membership(made.room, offered(made, 3), device=owner, now=NOON).number == 3


def test_the_audit_log_says_who_did_what(store: Store, made: MadeRoom) -> None:
    known_room(store, made)
    later = NOON + timedelta(seconds=1)
    store.admit(verified(made, made.joined(made.key(10))), (), program="x", now=later)
    store.put_membership(made.room, offered(made, 1), device=made.owner.device, now=later)
    store.create_room(verified(made, made.owner_chain), name="lab", now=later)
    log = store.audit_log()
    assert [entry.action for entry in reversed(log)] == [
        "made a set-up code",
        "registered by a set-up code",
        "created the room",
        "joined by an invite",
        "changed the members",
    ]
    joined = log[1]
    assert (joined.at, joined.device, joined.room) == (later, made.key(10).device, made.room)
    assert joined.details["invite"] == made.key(100).device
    assert [entry.action for entry in store.audit_log(room=made.room, limit=1)] == [
        "changed the members"
    ]
    assert store.audit_log(room=RoomId("x" * 32)) == []


def test_everything_is_there_after_a_restart(tmp_path: Path, made: MadeRoom) -> None:
    store = Store(tmp_path)
    known_room(store, made)
    store.admit(verified(made, made.joined(made.key(10))), (), program="", now=NOON)
    store.put_membership(made.room, offered(made, 2), device=made.owner.device, now=NOON)
    text, log = store.membership_text(made.room), store.audit_log()
    store.close()
    again = Store(tmp_path)
    again.check()
    assert again.membership_text(made.room) == text
    assert again.audit_log() == log
    with pytest.raises(NotTrusted):
        again.admit(verified(made, made.joined(made.key(11))), (), program="", now=NOON)
    again.close()


def test_the_data_folder_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "data"
    prepare_data_dir(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o755)
    prepare_data_dir(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_network_file_systems_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "network_file_system", lambda _path: "nfs4")
    with pytest.raises(InvalidConfig, match="nfs4"):
        prepare_data_dir(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_damaged_file_is_noticed(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database" * 1_000)
    with pytest.raises(Damaged, match=FILE):
        Store(tmp_path)


# ── members' certificates ────────────────────────────────────────────────────

EVERYBODY = {"after": None, "due": None, "limit": 10}


def arrive(store: Store, made: MadeRoom, key: SigningKey, *, at: datetime = NOON) -> None:
    chain = made.joined(key, uses=10)
    store.admit(verified(made, chain), chain_to_texts(chain), program="", now=at)


def renewal(made: MadeRoom, key: SigningKey, *, days: int) -> tuple[Member, tuple[str, ...]]:
    now = NOON + timedelta(days=days)
    owner_chain = issue.make_room(made.room_key, made.owner.device, name="laptop", now=now)
    chain = issue.grant(
        made.owner,
        owner_chain,
        room=made.room,
        device=key.device,
        name="gpu-1",
        role="worker",
        now=now,
    )
    return verify_chain(chain, room=made.room, now=now), chain_to_texts(chain)


def test_what_lasts_longest_is_kept_for_a_member(store: Store, made: MadeRoom) -> None:
    known_room(store, made)
    key, owner = made.key(10), made.owner.device
    arrive(store, made, key)
    first = store.chain(made.room, key.device)
    member, longer = renewal(made, key, days=20)
    _, shorter = renewal(made, key, days=10)
    store.keep_chain(member, longer, by=owner, now=NOON)
    store.keep_chain(renewal(made, key, days=10)[0], shorter, by=owner, now=NOON)
    arrive(store, made, key)  # with the old one, which doesn't replace the new one
    assert store.chain(made.room, key.device) == longer != first
    (entry,) = [line for line in store.audit_log() if line.action == "renewed certificates"]
    assert (entry.device, entry.details["member"]) == (owner, key.device)


def test_nothing_is_kept_for_who_never_came(store: Store, made: MadeRoom) -> None:
    known_room(store, made)
    member, chain = renewal(made, made.key(10), days=20)
    store.keep_chain(member, chain, by=made.owner.device, now=NOON)
    assert store.chain(made.room, member.device) is None
    assert store.members(made.room, **EVERYBODY) == []
    member, chain = renewal(MadeRoom(seed=7), made.key(10), days=20)
    with pytest.raises(NotFound):
        store.keep_chain(member, chain, by=made.owner.device, now=NOON)


def test_members_are_told_by_device_and_narrowed(store: Store, made: MadeRoom) -> None:
    known_room(store, made)
    keys = sorted((made.key(10 + number) for number in range(4)), key=lambda key: key.device)
    for number, key in enumerate(keys):
        arrive(store, made, key, at=NOON + timedelta(days=number))
    every = store.members(made.room, **EVERYBODY)
    assert [kept.device for kept in every] == [key.device for key in keys]
    assert every[1].seen == NOON + timedelta(days=1)
    page = store.members(made.room, after=keys[0].device, due=None, limit=2)
    assert page == every[1:3]
    end = (NOON + timedelta(days=30)).timestamp()
    seen = (NOON + timedelta(days=1, hours=1)).timestamp()
    due = Due(ends_after=end - 1, ends_before=end + 1, seen_after=seen)
    assert store.members(made.room, after=None, due=due, limit=10) == every[2:]
    assert (
        store.members(
            made.room, after=None, due=Due(ends_after=end, ends_before=1e12, seen_after=0), limit=10
        )
        == []
    )


def test_removed_members_are_forgotten_and_not_renewed(store: Store, made: MadeRoom) -> None:
    known_room(store, made)
    key = made.key(10)
    arrive(store, made, key)
    gone = made.next_list(revoked=(key.device,)).signed
    assert gone is not None
    store.put_membership(made.room, gone, device=made.owner.device, now=NOON)
    assert store.chain(made.room, key.device) is None
    arrive(store, made, key)
    assert store.members(made.room, **EVERYBODY) == []
    member, chain = renewal(made, key, days=20)
    with pytest.raises(NotTrusted, match="removed"):
        store.keep_chain(member, chain, by=made.owner.device, now=NOON)


def test_a_chain_that_would_fill_a_message_is_not_kept(store: Store, made: MadeRoom) -> None:
    known_room(store, made)
    chain = made.joined(made.key(10))
    long = ("x" * module.MAX_KEPT, *chain_to_texts(chain))
    store.admit(verified(made, chain), long, program="", now=NOON)
    assert store.members(made.room, **EVERYBODY) == []


def test_one_device_makes_only_so_many_rooms(
    store: Store, made: MadeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ROOMS_MADE", 2)
    known_room(store, made)
    owner = made.owner.device

    def create(seed: int) -> None:
        key = MadeRoom(seed=seed).room_key
        chain = issue.make_room(key, owner, name="laptop", now=NOON)
        room = room_id_of(key.public)
        store.create_room(verify_chain(chain, room=room, now=NOON), name="x", now=NOON)

    create(7)
    with pytest.raises(NotPermitted, match="2 rooms"):
        create(8)
    create(7)  # once more is no mistake
