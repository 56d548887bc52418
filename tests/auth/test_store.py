from __future__ import annotations

import multiprocessing
import os
import stat
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.auth.membership import Membership
from sleap_rtc.auth.store import DeviceStore, RoomEntry, host_directory
from sleap_rtc.domain.ids import DeviceId, fingerprint
from sleap_rtc.errors import (
    Damaged,
    DataError,
    InvalidName,
    NotPermitted,
    NotTrusted,
    UnknownRoom,
    WorkerChanged,
)
from sleap_rtc.testing.made_room import MadeRoom


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> DeviceStore:
    return DeviceStore(home, host="lab-1.example.org")


def entry(house: MadeRoom, *, name: str = "lab") -> RoomEntry:
    return RoomEntry(
        room=house.room,
        name=name,
        server="https://lab.example.org",
        role="owner",
        chain=house.owner_chain,
    )


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def listed(store: DeviceStore, house: MadeRoom) -> Path:
    return next((store._rooms / house.room / "membership").iterdir())


# ── keys ─────────────────────────────────────────────────────────────────────


def test_a_device_has_one_key(home: Path, store: DeviceStore) -> None:
    key = store.device_key()
    assert store.device_key().device == key.device
    assert DeviceStore(home, host="lab-1").device_key().device == key.device


def test_every_host_of_a_shared_home_has_its_own(home: Path, store: DeviceStore) -> None:
    assert DeviceStore(home, host="lab-2").device_key().device != store.device_key().device


def test_a_key_is_for_its_user_alone(home: Path, store: DeviceStore) -> None:
    before = os.umask(0)
    try:
        store.device_key()
    finally:
        os.umask(before)
    path = home / "devices" / "lab-1" / "device.key"
    assert mode_of(path) == 0o600
    assert mode_of(path.parent) == 0o700
    assert mode_of(home / "devices") == 0o700
    assert [child.name for child in path.parent.iterdir()] == ["device.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o666])
def test_a_key_that_others_can_reach_is_not_used(home: Path, store: DeviceStore, mode: int) -> None:
    store.device_key()
    path = home / "devices" / "lab-1" / "device.key"
    path.chmod(mode)
    with pytest.raises(NotPermitted, match="other users") as caught:
        store.device_key()
    assert caught.value.hint_text == f"If nobody else can have read it: chmod 600 {path}"
    path.chmod(0o600)
    store.device_key()


def test_what_is_no_key_is_damaged_and_stays(home: Path, store: DeviceStore) -> None:
    store.device_key()
    path = home / "devices" / "lab-1" / "device.key"
    other = generate_private_key(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    for data in (b"", b"nonsense", path.read_bytes()[:60], other, b"x" * 10_000):
        path.write_bytes(data)
        with pytest.raises(Damaged, match="not an Ed25519 key"):
            store.device_key()
        assert path.read_bytes() == data


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file is in the way")
    with pytest.raises(OSError, match="home"):
        DeviceStore(tmp_path / "home").device_key()


def make_key(home: Path, barrier: object, answers: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    answers.put(DeviceStore(home, host="lab-1").device_key().device)  # type: ignore[attr-defined]


def test_processes_that_start_at_once_agree_on_one_key(home: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(4), context.SimpleQueue()
    processes = [context.Process(target=make_key, args=(home, barrier, answers)) for _ in range(4)]
    for process in processes:
        process.start()
    devices = {answers.get() for _ in processes}
    for process in processes:
        process.join()
    assert len(devices) == 1
    assert DeviceStore(home, host="lab-1").device_key().device in devices


@pytest.mark.parametrize(
    ("node", "directory"),
    [
        ("GPU-1.lab.example.org", "gpu-1"),
        ("", "localhost"),
        ("..", "localhost"),
        ("a/../b", "a-"),
        ("päivi", "p-ivi"),
        ("x" * 100, "x" * 64),
    ],
)
def test_a_hosts_directory_is_safe(node: str, directory: str) -> None:
    assert host_directory(node) == directory.strip("-")


# ── rooms' keys ──────────────────────────────────────────────────────────────


def test_a_rooms_key_is_kept_apart(home: Path, store: DeviceStore, house: MadeRoom) -> None:
    assert store.room_key(house.room) is None
    store.save_room_key(house.room_key)
    store.save_room_key(house.room_key)
    found = store.room_key(house.room)
    assert found is not None
    assert found.seed == house.room_key.seed
    path = home / "rooms" / f"{house.room}.key"
    assert mode_of(path) == 0o600
    assert mode_of(path.parent) == 0o700
    path.chmod(0o644)
    with pytest.raises(NotPermitted, match="other users"):
        store.room_key(house.room)


def test_the_key_of_another_room_is_noticed(
    home: Path, store: DeviceStore, house: MadeRoom, other_house: MadeRoom
) -> None:
    store.save_room_key(house.room_key)
    path = home / "rooms" / f"{house.room}.key"
    path.rename(path.with_name(f"{other_house.room}.key"))
    with pytest.raises(Damaged, match="another room"):
        store.room_key(other_house.room)


# ── rooms ────────────────────────────────────────────────────────────────────


def test_rooms_are_found_by_name_and_id(
    store: DeviceStore, house: MadeRoom, other_house: MadeRoom
) -> None:
    assert store.rooms() == []
    store.save_room(entry(other_house, name="b"))
    store.save_room(entry(house, name="a"))
    assert [found.name for found in store.rooms()] == ["a", "b"]
    assert store.room("a") == store.room(house.room) == entry(house, name="a")
    with pytest.raises(UnknownRoom, match="no room 'c'"):
        store.room("c")
    store.save_room(entry(house, name="b"))
    with pytest.raises(InvalidName, match="fits several rooms"):
        store.room("b")
    store.forget_room(house.room)
    store.forget_room(house.room)
    assert store.room("b").room == other_house.room


def test_fields_of_a_later_version_are_kept(store: DeviceStore, house: MadeRoom) -> None:
    later = msgspec.structs.replace(entry(house), unknown={"colour": "red"}, format="1.4")
    store.save_room(later)
    assert store.room("lab") == later


def test_a_damaged_room_is_named(
    store: DeviceStore, house: MadeRoom, other_house: MadeRoom
) -> None:
    store.save_room(entry(house))
    path = store._rooms / house.room / "room.json"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"room\.json"):
        store.rooms()
    store.save_room(entry(other_house))
    (store._rooms / other_house.room / "room.json").rename(path)
    with pytest.raises(Damaged, match="another room"):
        store.rooms()


def test_a_room_id_cannot_leave_the_directory(store: DeviceStore, house: MadeRoom) -> None:
    for bad in ("../x", "", "a" * 31, "A" * 32):
        with pytest.raises(InvalidName):
            store.save_room(msgspec.structs.replace(entry(house), room=bad))
        with pytest.raises(InvalidName):
            store.room_key(bad)  # type: ignore[arg-type]
        with pytest.raises(InvalidName):
            store.seen_invites(bad)  # type: ignore[arg-type]


# ── membership lists ─────────────────────────────────────────────────────────


def test_the_newest_list_is_kept(store: DeviceStore, house: MadeRoom) -> None:
    assert store.membership(house.room) == Membership(room=house.room)
    store.save_membership(house.no_list())
    first = house.next_list()
    second = house.next_list(first, revoked=(house.key(3).device,))
    store.save_membership(first)
    assert store.membership(house.room) == first
    store.save_membership(second)
    store.save_membership(second)
    assert store.membership(house.room) == second
    assert len(list((store._rooms / house.room / "membership").iterdir())) == 1


def test_an_older_list_changes_nothing(store: DeviceStore, house: MadeRoom) -> None:
    first = house.next_list()
    second = house.next_list(first)
    store.save_membership(second)
    store.save_membership(first)
    assert store.membership(house.room) == second


def test_another_list_with_the_same_number_is_refused(store: DeviceStore, house: MadeRoom) -> None:
    first = house.next_list()
    store.save_membership(first)
    with pytest.raises(NotTrusted, match="two different lists"):
        store.save_membership(house.next_list(revoked=(house.key(3).device,)))
    assert store.membership(house.room) == first


def test_a_damaged_list_is_never_passed_over(store: DeviceStore, house: MadeRoom) -> None:
    store.save_membership(house.next_list())
    path = listed(store, house)
    path.write_bytes(path.read_bytes().replace(b'"signature":"', b'"signature":"AAAA'))
    with pytest.raises(Damaged, match="membership"):
        store.membership(house.room)
    path.write_bytes(b"{")
    with pytest.raises(Damaged, match="not JSON"):
        store.membership(house.room)


def test_leftovers_are_not_lists(store: DeviceStore, house: MadeRoom) -> None:
    first = house.next_list()
    store.save_membership(first)
    directory = listed(store, house).parent
    (directory / ".tmp-0123456789abcdef").write_bytes(b"half")
    (directory / "notes.txt").write_bytes(b"x")
    assert store.membership(house.room) == first


# ── single-use invites ───────────────────────────────────────────────────────


def test_who_used_an_invite_is_remembered(store: DeviceStore, house: MadeRoom) -> None:
    invite, one, other = (house.key(n).device for n in (100, 3, 4))
    assert store.seen_invites(house.room) == {}
    store.remember_invite(house.room, invite, one)
    store.remember_invite(house.room, invite, one)
    assert store.seen_invites(house.room) == {invite: one}
    with pytest.raises(NotTrusted, match="another one has used it"):
        store.remember_invite(house.room, invite, other)
    assert store.seen_invites(house.room) == {invite: one}


def test_a_damaged_mark_is_named(store: DeviceStore, house: MadeRoom) -> None:
    invite = house.key(100).device
    store.remember_invite(house.room, invite, house.key(3).device)
    directory = store._rooms / house.room / "invites"
    (directory / ".tmp-0123456789abcdef").write_bytes(b"half")
    (directory / invite).write_bytes(b"\xff")
    with pytest.raises(Damaged, match=invite):
        store.seen_invites(house.room)


def use_invite(home: Path, room: str, device: str, barrier: object, answers: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    invite = MadeRoom().key(100).device
    try:
        DeviceStore(home, host="h").remember_invite(room, invite, DeviceId(device))  # type: ignore[arg-type]
        answers.put(device)  # type: ignore[attr-defined]
    except NotTrusted:
        answers.put("")  # type: ignore[attr-defined]


def test_one_of_several_devices_wins_an_invite(home: Path, house: MadeRoom) -> None:
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(3), context.SimpleQueue()
    processes = [
        context.Process(
            target=use_invite, args=(home, house.room, house.key(n).device, barrier, answers)
        )
        for n in (3, 4, 5)
    ]
    for process in processes:
        process.start()
    won = [device for device in (answers.get() for _ in processes) if device]
    for process in processes:
        process.join()
    assert len(won) == 1
    seen = DeviceStore(home, host="h").seen_invites(house.room)
    assert list(seen.values()) == won


def read_as_another_user(home: Path, answers: object) -> None:
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    try:
        DeviceStore(home, host="lab-1").device_key()
        answers.put("it was read")  # type: ignore[attr-defined]
    except NotPermitted as error:
        answers.put(error.message)  # type: ignore[attr-defined]


def test_a_key_that_cannot_be_read_is_named(home: Path, store: DeviceStore) -> None:
    store.device_key()
    path = home / "devices" / "lab-1" / "device.key"
    path.chmod(0)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=read_as_another_user, args=(home, answers))
    process.start()
    assert answers.get() == f"The key {path} cannot be read by this user."
    process.join()


def test_nothing_secret_is_in_a_rooms_file(store: DeviceStore, house: MadeRoom) -> None:
    store.save_room_key(house.room_key)
    store.save_room(entry(house))
    text = (store._rooms / house.room / "room.json").read_bytes()
    for key in (house.room_key, house.owner):
        assert key.seed.hex().encode() not in text
    assert isinstance(store.device_key(), SigningKey)


# ── workers that were met ────────────────────────────────────────────────────


def test_a_name_keeps_its_device_until_told_otherwise(tmp_path: Path, house: MadeRoom) -> None:
    store, one, other = DeviceStore(tmp_path), house.key(3).device, house.key(4).device
    assert store.known_worker(house.room, "gpu-1") is None
    store.remember_worker(house.room, "gpu-1", one)
    store.remember_worker(house.room, "GPU-1", one)
    assert store.known_worker(house.room, "Gpu-1") == one
    assert store.known_worker(house.room, "gpu-2") is None
    with pytest.raises(WorkerChanged) as caught:
        store.remember_worker(house.room, "gpu-1", other)
    for device in (one, other):
        assert fingerprint(device) in caught.value.message
    with pytest.raises(WorkerChanged):
        store.remember_worker(house.room, "gpu-1", other, instead_of=house.key(5).device)
    store.remember_worker(house.room, "gpu-1", other, instead_of=one)
    assert DeviceStore(tmp_path).known_worker(house.room, "gpu-1") == other


def test_the_longest_name_of_long_letters_can_be_kept(tmp_path: Path, house: MadeRoom) -> None:
    store, name = DeviceStore(tmp_path), "\U00020000" * 64
    store.remember_worker(house.room, name, house.key(3).device)
    assert store.known_worker(house.room, name) == house.key(3).device


def test_a_damaged_note_of_a_worker_is_named(tmp_path: Path, house: MadeRoom) -> None:
    store = DeviceStore(tmp_path)
    store.remember_worker(house.room, "gpu-1", house.key(3).device)
    (path,) = tmp_path.glob("devices/*/rooms/*/workers/*.json")
    path.write_text("{")
    with pytest.raises(DataError, match=path.name):
        store.known_worker(house.room, "gpu-1")
