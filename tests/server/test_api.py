"""The HTTP API over a real server: who may ask, and what bad guests are told."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from blake3 import blake3

from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.auth.signed import chain_to_texts
from sleap_rtc.domain.values import encode
from sleap_rtc.errors import (
    NotFound,
    NotPermitted,
    NotSignedIn,
    NotTrusted,
    QuotaExceeded,
    StorageOff,
    TooManyRequests,
)
from sleap_rtc.protocol.http import CHALLENGE_PATH, SIGN_IN_PATH, TokenRequest, TokenTold
from sleap_rtc.protocol.signaling import PATH, SIGN_IN_CONTEXT, sign_in_payload
from sleap_rtc.server.api import ENDPOINTS, MAX_BODY, OPENAPI_PATH
from sleap_rtc.storage.folder import FolderStore
from sleap_rtc.storage.service import AbortUpload, UploadStatus

from .conftest import Device, Place, Reply, send

STRANGER = SigningKey.from_seed(bytes([77]) * 32)


def post(place: Place, path: str, body: bytes = b"{}", **headers: str) -> Reply:
    return send(place.address, "POST", path, body, **headers)


def challenge(place: Place) -> str:
    return str(json.loads(post(place, CHALLENGE_PATH, b"").body)["nonce"])


def signed(place: Place, key: SigningKey, **changes: Any) -> bytes:
    nonce = changes.pop("nonce", None) or challenge(place)
    server = changes.pop("server", place.address.dialled)
    payload = sign_in_payload(nonce=nonce, server=server, device=key.device)
    given: dict[str, Any] = {
        "device": key.device,
        "nonce": nonce,
        "signature": key.sign(SIGN_IN_CONTEXT, payload).hex(),
        "name": "laptop",
    }
    return encode(TokenRequest(**(given | changes)))


def token_of(place: Place) -> str:
    reply = post(place, SIGN_IN_PATH, signed(place, place.lab.made.owner))
    return str(json.loads(reply.body)["token"])


# ── signing in ───────────────────────────────────────────────────────────────


def test_a_device_signs_in(place: Place) -> None:
    reply = post(place, SIGN_IN_PATH, signed(place, place.lab.made.owner))
    assert reply.status == 200
    told = json.loads(reply.body)
    assert told["expires_in"] == 3_600
    assert reply.headers["cache-control"] == "no-store"
    assert "token" not in repr(TokenTold(token="s" * 20, expires=datetime.now(UTC), expires_in=1))


def test_sign_ins_that_are_no_good(place: Place) -> None:
    owner = place.lab.made.owner
    used = signed(place, owner)
    assert post(place, SIGN_IN_PATH, used).status == 200
    for body, code in (
        (used, "not_trusted"),  # a challenge is good once
        (signed(place, owner, nonce=secrets.token_hex(32)), "not_trusted"),
        (signed(place, owner, server="lab.org:443"), "not_trusted"),
        (signed(place, STRANGER), "not_signed_in"),
        (signed(place, owner, device=STRANGER.device), "not_trusted"),
        (signed(place, owner, name="../x"), "invalid_name"),
    ):
        assert post(place, SIGN_IN_PATH, body).error["code"] == code


def test_tokens_that_are_no_good(place: Place) -> None:
    token = token_of(place)
    body = encode(AbortUpload(upload_id="0" * 32))
    assert post(place, "/api/abort-upload", body, Authorization=f"Bearer {token}").status == 200
    for bad in (
        "",
        "Bearer",
        f"Bearer {token[:-1]}{'A' if token[-1] != 'A' else 'B'}",
        f"Bearer {token.lower()}",
        f"Basic {token}",
        f"Bearer {token}x",
        "Bearer " + "x" * 9_000,
        "Bearer é",
    ):
        reply = post(place, "/api/abort-upload", body, Authorization=bad)
        assert (reply.status, reply.error["code"]) == (401, "not_signed_in")


# ── what is asked ────────────────────────────────────────────────────────────


def test_errors_have_one_shape(place: Place) -> None:
    auth = {"Authorization": f"Bearer {token_of(place)}"}
    upload = "/api/request-upload"
    for method, path, body, status in (
        ("GET", "/api/nothing", None, 404),
        ("GET", "/api/", None, 404),
        ("GET", PATH, None, 404),
        ("GET", upload, None, 405),
        ("PUT", OPENAPI_PATH, b"", 405),
        ("GET", "/api/upload-status/" + "0" * 32, None, 404),
        ("GET", "/api/upload-status/../../etc/passwd", None, 404),
        ("GET", "/api/upload-status/" + "G" * 32, None, 404),
        ("POST", upload, b"", 422),
        ("POST", upload, b"nonsense", 422),
        ("POST", upload, b"[" * 100_000, 422),
        ("POST", upload, b'{"room": "../../x", "area": "rooms"}', 422),
        ("POST", upload, b"x" * (MAX_BODY + 1), 422),
    ):
        reply = send(place.address, method, path, body, **auth)
        assert (reply.status, reply.error["message"] != "") == (status, True), path
    assert send(place.address, "GET", upload).headers["allow"] == "POST"


@pytest.mark.parametrize("endpoint", [e for e in ENDPOINTS if e.signed_in], ids=lambda e: e.name)
def test_every_endpoint_wants_a_token(place: Place, endpoint: Any) -> None:
    path = endpoint.path.replace("{upload_id}", "0" * 32)
    reply = send(place.address, endpoint.method, path, b"{}")
    assert (reply.status, reply.error["code"]) == (401, "not_signed_in")


def test_the_document_is_served(place: Place) -> None:
    reply = send(place.address, "GET", OPENAPI_PATH)
    assert reply.status == 200
    assert "/api/request-upload" in json.loads(reply.body)["paths"]


def test_rooms_of_others(place: Place) -> None:
    viewer, worker = place.join(20, "viewer"), place.join(21, "worker")
    with pytest.raises(NotPermitted, match="viewer"):
        viewer.ask(b"x")
    with pytest.raises(NotPermitted, match="only reads"):
        worker.ask(b"x", area="uploads")
    assert worker.ask(b"x").state == "open"
    with pytest.raises(NotFound, match="doesn't know room"):
        place.owner.ask(b"x", room="a" * 32)
    with pytest.raises(NotSignedIn):
        place.device(STRANGER).ask(b"x")
    told = place.owner.ask(b"mine")
    with pytest.raises(NotFound):
        worker.api.ask(f"/api/upload-status/{told.upload_id}", UploadStatus)


def test_who_was_removed_is_refused(place: Place) -> None:
    member = place.join(22, "member")
    assert member.ask(b"still here").state == "open"
    made = place.lab.made
    newer = made.next_list(revoked=(member.key.device,))
    assert newer.signed is not None
    text = encode(newer.signed).decode()

    async def put() -> None:
        async with place.lab.client(made.owner) as client:
            await client.start()
            chain = chain_to_texts(made.owner_chain)
            await client.enter_room(made.room, chain=chain, name="laptop", kind="client")
            await client.put_membership(made.room, text)

    asyncio.run(put())
    with pytest.raises(NotTrusted):
        member.ask(b"and now")


def test_a_device_that_is_known_but_never_was_in_the_room(
    new_place: Callable[..., Place],
) -> None:
    place = new_place()
    other = Device(place.lab, place.lab.made.key(9), place.lab.room)

    async def register() -> None:
        from sleap_rtc.server.app import new_code  # noqa: PLC0415 - only here
        from sleap_rtc.testing.server import server_settings  # noqa: PLC0415

        code = new_code(server_settings(place.info.data_dir))
        async with place.lab.client(other.key, setup_code=code) as client:
            await client.start()

    asyncio.run(register())
    with pytest.raises(NotTrusted, match="has not been in room"):
        other.ask(b"x")


# ── settings and bounds ──────────────────────────────────────────────────────


def test_storage_can_be_switched_off(new_place: Callable[..., Place]) -> None:
    place = new_place(server_storage="off")
    with pytest.raises(StorageOff, match="switched off") as caught:
        place.owner.ask(b"x")
    assert "between devices" in caught.value.hint_text
    assert send(place.address, "PUT", "/storage/x.y", b"z").status == 405
    assert send(place.address, "GET", "/storage/x.y").status == 404
    assert not (place.info.data_dir / "storage").exists()


def test_quotas_are_a_setting(new_place: Callable[..., Place]) -> None:
    place = new_place(server_storage_quota="1KB")
    place.owner.upload(b"x" * 1_000)
    with pytest.raises(QuotaExceeded, match="may keep"):
        place.owner.ask(b"y")


def test_how_many_files_is_a_setting(new_place: Callable[..., Place]) -> None:
    place = new_place(server_storage_files=1)
    place.owner.upload(b"x")
    with pytest.raises(QuotaExceeded, match="1 files"):
        place.owner.ask(b"y")


def test_nobody_waits_while_a_content_is_compared(
    new_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for each device that doubts what is there, beside everything else."""
    begun, go_on = threading.Event(), threading.Event()
    go_on.set()

    def slow(folder: FolderStore, key: str) -> str:
        begun.set()
        assert go_on.wait(60)
        return blake3(folder.read(key, limit=100) or b"").hexdigest()

    monkeypatch.setattr("sleap_rtc.server.storing.digest_in_folder", slow)
    place = new_place()
    place.owner.upload(b"x" * 10)
    go_on.clear()
    begun.clear()
    with ThreadPoolExecutor(1) as pool:
        doubting = pool.submit(place.owner.ask, b"x" * 10, again=True)
        assert begun.wait(60)
        assert place.owner.ask(b"y").state == "open"
        with pytest.raises(TooManyRequests) as caught:
            place.owner.ask(b"x" * 10, size=9)
        assert "compared" in caught.value.hint_text
        go_on.set()
        assert doubting.result().state == "there"
    assert place.owner.ask(b"x" * 10, size=9).state == "there"


def test_what_takes_long_waits_for_its_like_alone(
    new_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two devices that doubt huge contents keep nobody from storing, large or small."""
    begun, go_on = threading.Event(), threading.Event()
    held: set[str] = set()

    def slow(folder: FolderStore, key: str) -> str:
        found = blake3(folder.read(key, limit=100) or b"").hexdigest()
        if found in held:
            begun.set()
            assert go_on.wait(60)
        return found

    monkeypatch.setattr("sleap_rtc.server.storing.digest_in_folder", slow)
    monkeypatch.setattr("sleap_rtc.server.api.LONG", 50)
    place = new_place()
    huge = [b"1" * 90, b"2" * 90]
    for content in (*huge, b"small"):
        place.owner.upload(content)
    held |= {blake3(content).hexdigest() for content in huge}
    others = [place.join(number, "member") for number in (12, 13)]
    with ThreadPoolExecutor(2) as pool:
        doubting = [
            pool.submit(device.ask, content, again=True)
            for device, content in zip(others, huge, strict=True)
        ]
        assert begun.wait(60)
        assert place.owner.ask(b"small", again=True).state == "there"
        assert place.owner.upload(b"another").size == 7
        assert place.owner.upload(b"3" * 90).size == 90
        assert not any(each.done() for each in doubting)
        go_on.set()
        assert [each.result().state for each in doubting] == ["there"] * 2
    for device in others:
        device.client.close()


def test_whoever_asks_too_often_is_told_so(
    new_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sleap_rtc.server.api.API_BURST", 3.0)
    monkeypatch.setattr("sleap_rtc.server.api.SIGN_IN_BURST", 5.0)
    monkeypatch.setattr("sleap_rtc.server.api.API_RATE", 0.001)
    monkeypatch.setattr("sleap_rtc.server.api.SIGN_IN_RATE", 0.001)
    place = new_place()
    auth = {"Authorization": f"Bearer {token_of(place)}"}
    body = encode(AbortUpload(upload_id="0" * 32))
    statuses = [post(place, "/api/abort-upload", body, **auth).status for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    found = [post(place, CHALLENGE_PATH, b"") for _ in range(4)]
    assert [reply.status for reply in found] == [200, 200, 200, 429]
    assert found[-1].error["code"] == "too_many_requests"
    assert int(found[-1].headers["retry-after"]) > 0


def test_a_failure_of_the_server_is_one_sentence(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret details")

    monkeypatch.setattr("sleap_rtc.server.storage_desk.StorageDesk.abort_upload", fail)
    auth = {"Authorization": f"Bearer {token_of(place)}"}
    reply = post(place, "/api/abort-upload", encode(AbortUpload(upload_id="0" * 32)), **auth)
    assert reply.status == 500
    assert "secret" not in reply.error["message"]


def test_requests_are_counted(place: Place) -> None:
    token_of(place)
    post(place, "/api/abort-upload")
    text = send(place.address, "GET", "/metrics").body.decode()
    assert 'sleap_rtc_requests_total{kind="http_sign_in",outcome="ok"}' in text
    assert 'sleap_rtc_requests_total{kind="http_abort_upload",outcome="not_signed_in"}' in text
