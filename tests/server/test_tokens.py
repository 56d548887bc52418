"""Challenges and tokens."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sleap_rtc.errors import NotSignedIn, NotTrusted
from sleap_rtc.protocol.http import CHALLENGE_SECONDS, TOKEN_SECONDS
from sleap_rtc.server import tokens as module
from sleap_rtc.server.store import FILE, Store, prepare_data_dir
from sleap_rtc.server.tokens import Challenges, Session, Tokens

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WHO = Session(device="d" * 64, dialled="127.0.0.1:1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    prepare_data_dir(tmp_path)
    found = Store(tmp_path)
    code = found.new_code(now=NOW)
    found.register_by_code(WHO.device, code=code, name="a", program="", now=NOW)
    yield found
    found.close()


def test_a_challenge_is_good_once() -> None:
    challenges = Challenges()
    nonce = challenges.issue(0)
    challenges.use(nonce, 1)
    with pytest.raises(NotTrusted, match="challenge"):
        challenges.use(nonce, 1)


def test_a_challenge_is_good_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    challenges = Challenges()
    nonce = challenges.issue(0)
    with pytest.raises(NotTrusted, match="too old"):
        challenges.use(nonce, CHALLENGE_SECONDS)
    with pytest.raises(NotTrusted):
        challenges.use("never given", 0)
    monkeypatch.setattr(module, "MAX_CHALLENGES", 2)
    first, *_ = (challenges.issue(0) for _ in range(3))
    with pytest.raises(NotTrusted):
        challenges.use(first, 0)


def test_a_token_is_good_for_an_hour(store: Store) -> None:
    tokens = Tokens(store.database, server="lab.org")
    token, expires = tokens.issue(WHO, now=NOW)
    assert expires == NOW + timedelta(seconds=TOKEN_SECONDS)
    assert tokens.find(token, now=NOW) == WHO
    for bad, now in ((token, expires), (token[:-1] + "!", NOW), ("", NOW), ("x" * 10_000, NOW)):
        with pytest.raises(NotSignedIn, match=r"lab\.org"):
            tokens.find(bad, now=now)


def test_it_is_not_in_the_database(store: Store, tmp_path: Path) -> None:
    token, _ = Tokens(store.database, server="").issue(WHO, now=NOW)
    data = b"".join(path.read_bytes() for path in tmp_path.glob(f"{FILE}*"))
    assert WHO.device.encode() in data
    assert token.encode() not in data


def test_a_device_has_not_any_number(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TOKENS", 3)
    tokens = Tokens(store.database, server="")
    made = [tokens.issue(WHO, now=NOW + timedelta(seconds=n))[0] for n in range(5)]
    good = []
    for token in made:
        try:
            tokens.find(token, now=NOW)
        except NotSignedIn:
            continue
        good.append(token)
    assert good == made[2:]
