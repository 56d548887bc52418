from __future__ import annotations

import base64
import zlib
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.auth.certificates import verify_chain
from sleap_rtc.auth.invites import (
    Invite,
    _checksum,
    create_invite,
    encode_link,
    parse_link,
    parse_recovery_code,
    recovery_code,
)
from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.errors import InvalidCode, NotTrusted
from sleap_rtc.testing.made_room import MadeRoom

SERVER = "https://lab.example.org"


def made(house: MadeRoom, *, server: str = SERVER, **changes: Any) -> Invite:
    plain: dict[str, Any] = {
        "server": server,
        "room": house.room,
        "role": "worker",
        "now": house.now,
        "secret": house.key(50),
    }
    return create_invite(house.owner, house.owner_chain, **(plain | changes))


def refused(text: str, house: MadeRoom, *, days: int = 0) -> str:
    with pytest.raises(InvalidCode) as caught:
        parse_link(text, now=house.now + timedelta(days=days))
    assert caught.value.message.startswith("The invite link can't be used: ")
    return caught.value.message


# ── links ────────────────────────────────────────────────────────────────────


def test_a_link_carries_an_invite(house: MadeRoom, worker: SigningKey) -> None:
    invite = made(house, uses=3)
    parsed, terms = parse_link(encode_link(invite), now=house.now)
    assert (parsed.server, parsed.room, parsed.chain) == (SERVER, house.room, invite.chain)
    assert parsed.secret.device == invite.secret.device
    assert (terms.role, terms.uses) == ("worker", 3)
    chain = parsed.join(worker.device, name="gpu-1", now=house.now)
    assert verify_chain(chain, room=house.room, now=house.now).device == worker.device


def test_the_secret_is_in_the_fragment_alone(house: MadeRoom) -> None:
    link = encode_link(made(house))
    before, _, fragment = link.partition("#")
    assert before == f"{SERVER}/join/{house.room}"
    assert fragment.startswith("v1.")


def test_a_link_survives_a_terminals_line(house: MadeRoom) -> None:
    assert len(encode_link(made(house, server="https://" + "a" * 60 + ".example.org:8443"))) < 1_000


def test_the_secret_is_not_shown(house: MadeRoom) -> None:
    invite = made(house)
    assert invite.secret.seed.hex() not in repr(invite)
    assert str(invite.secret.seed) not in repr(invite)


@pytest.mark.parametrize(
    ("server", "origin"),
    [
        ("HTTPS://Lab.Example.org/", "https://lab.example.org"),
        ("https://lab.example.org:443", "https://lab.example.org"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://host:80/", "http://host"),
    ],
)
def test_a_server_has_one_spelling(house: MadeRoom, server: str, origin: str) -> None:
    link = encode_link(made(house, server=server))
    assert link.startswith(f"{origin}/join/")
    assert parse_link(link, now=house.now)[0].server == origin


@pytest.mark.parametrize(
    "server",
    [
        "",
        "lab.example.org",
        "ftp://lab.example.org",
        "https://",
        "https://user@lab.example.org",
        "https://lab.example.org/path",
        "https://lab.example.org?x",
        "https://lab.example.org:0",
        "https://lab.example.org:99999",
        "https://lab.example.org:port",
        "https://[::1",
        "https://lab example.org",
        "https://läb.example.org",
        "javascript:alert(1)",
    ],
)
def test_other_addresses_are_refused(house: MadeRoom, server: str) -> None:
    with pytest.raises(InvalidCode, match="server's address"):
        made(house, server=server)


def test_a_wrapped_or_padded_paste_is_understood(house: MadeRoom) -> None:
    link = encode_link(made(house))
    wrapped = "  " + "\n   ".join(link[at : at + 70] for at in range(0, len(link), 70)) + "\n"
    assert parse_link(wrapped, now=house.now)[0].room == house.room


def test_every_shortened_paste_is_refused(house: MadeRoom) -> None:
    link = encode_link(made(house))
    for end in range(len(link)):
        message = refused(link[:end], house)
        assert link[-40:] not in message
    assert "cut short" in refused(link[:-1], house)
    assert "after # is missing" in refused(link.partition("#")[0], house)


def test_every_mistyped_character_is_refused(house: MadeRoom) -> None:
    link = encode_link(made(house))
    start = link.index("/join/") + 6
    for at in range(start, len(link) - 1):
        changed = link[:at] + ("A" if link[at] != "A" else "B") + link[at + 1 :]
        refused(changed, house)


def test_an_ended_invite_is_refused(house: MadeRoom) -> None:
    message = refused(encode_link(made(house)), house, days=2)
    assert "ended on 2026-03-02 12:00 UTC" in message


def test_another_version_is_refused(house: MadeRoom) -> None:
    link = encode_link(made(house)).replace("#v1.", "#v2.")
    assert "version v2" in refused(link, house)


@pytest.mark.parametrize("text", ["", "hello", "#", "https://x/join/y#v1.AAAA", "x" * 5_000])
def test_other_texts_are_refused(house: MadeRoom, text: str) -> None:
    refused(text, house)


def packed(house: MadeRoom, body: bytes) -> str:
    data = zlib.compress(body)
    text = base64.urlsafe_b64encode(_checksum(house.room, data) + data).decode().rstrip("=")
    return f"{SERVER}/join/{house.room}#v1.{text}"


def test_a_body_that_unpacks_without_end_is_refused(house: MadeRoom) -> None:
    assert "not an invite" in refused(packed(house, bytes(2_000_000)), house)


@given(st.binary(max_size=100))
def test_any_body_is_an_invite_or_an_error(body: bytes) -> None:
    house = MadeRoom()
    refused(packed(house, body), house)


@given(st.text(max_size=200))
def test_any_text_is_an_invite_or_an_error(text: str) -> None:
    house = MadeRoom()
    refused(text, house)
    refused(f"{SERVER}/join/{house.room}#v1.{text}", house)


def test_an_invite_of_another_room_is_refused(house: MadeRoom, other_house: MadeRoom) -> None:
    invite = msgspec.structs.replace(made(other_house), room=house.room)
    assert "doesn't begin with the key of room" in refused(encode_link(invite), house)


def test_a_secret_of_another_invite_is_refused(house: MadeRoom) -> None:
    invite = msgspec.structs.replace(made(house), secret=house.key(51))
    assert "belongs to another invite" in refused(encode_link(invite), house)


def test_a_device_chain_is_no_invite(house: MadeRoom, worker: SigningKey) -> None:
    invite = msgspec.structs.replace(made(house), chain=house.joined(worker))
    assert "doesn't end in an invite" in refused(encode_link(invite), house)


def test_a_member_cannot_invite(house: MadeRoom, worker: SigningKey) -> None:
    with pytest.raises(NotTrusted):
        create_invite(
            worker,
            house.joined(worker),
            server=SERVER,
            room=house.room,
            role="viewer",
            now=house.now,
            secret=house.key(51),
        )


# ── recovery codes ───────────────────────────────────────────────────────────


@given(st.binary(min_size=32, max_size=32))
def test_a_recovery_code_is_the_key(seed: bytes) -> None:
    code = recovery_code(SigningKey.from_seed(seed))
    assert len(code.split("-")) == 14
    assert parse_recovery_code(code).seed == seed
    sloppy = code.lower().replace("-", " ").replace("0", "o").replace("1", "l")
    assert parse_recovery_code(f" {sloppy}\n").seed == seed


@given(
    st.binary(min_size=32, max_size=32),
    st.integers(0, 55),
    st.sampled_from("0123456789ABCDEFGHJKMNPQRSTVWXYZ"),
)
def test_a_wrong_character_is_noticed(seed: bytes, at: int, typed: str) -> None:
    code = recovery_code(SigningKey.from_seed(seed)).replace("-", "")
    if code[at] == typed:
        return
    with pytest.raises(InvalidCode, match="at least one character is wrong"):
        parse_recovery_code(code[:at] + typed + code[at + 1 :])


def test_swapped_characters_are_noticed() -> None:
    code = recovery_code(SigningKey.from_seed(bytes(range(32)))).replace("-", "")
    at = next(i for i in range(55) if code[i] != code[i + 1])
    with pytest.raises(InvalidCode):
        parse_recovery_code(code[:at] + code[at + 1] + code[at] + code[at + 2 :])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "0 letters"),
        ("ABCD-EFGH", "8 letters"),
        ("é" * 56, "does not occur"),
        ("A" * 5000, "long"),
    ],
)
def test_what_is_no_code(text: str, why: str) -> None:
    with pytest.raises(InvalidCode, match=why):
        parse_recovery_code(text)


@given(st.text(max_size=80))
def test_any_text_is_a_code_or_an_error(text: str) -> None:
    with pytest.raises(InvalidCode):
        parse_recovery_code(text)
