"""What the storage API is asked and answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.domain.values import decode, encode
from sleap_rtc.errors import DataError
from sleap_rtc.storage.objects import Part, SignedRequest, StoredPart, check_key
from sleap_rtc.storage.service import (
    CompleteUpload,
    DownloadTold,
    RenewUpload,
    RequestUpload,
    UploadStatus,
    UploadTold,
    content_key,
)

ROOM, HASH, ID = "a" * 32, "0" * 64, "f" * 32
NOW = datetime(2026, 3, 1, tzinfo=UTC)
PART = Part(number=1, size=5, sha256=bytes(range(32)))
QUICK = Part(number=1, size=5, crc32c=bytes(4), etag="0" * 32)
REQUEST = SignedRequest(method="PUT", url="https://x/?secret", headers={"a": "b"}, expires=NOW)


@pytest.mark.parametrize(
    "value",
    [
        RequestUpload(room=ROOM, area="uploads", blake3=HASH, size=5, parts=(PART,), crc32c=True),
        UploadTold(state="open", key="a", size=5, upload_id=ID, requests=(REQUEST,), expires=NOW),
        RenewUpload(upload_id=ID, parts=(PART,)),
        CompleteUpload(upload_id=ID, parts=(PART, QUICK)),
        UploadStatus(
            upload_id=ID,
            state="open",
            key="a",
            size=5,
            part_size=5,
            part_count=1,
            parts=(StoredPart(number=1, size=5, etag="e"),),
            expires=NOW,
        ),
        DownloadTold(key="a", size=5, etag="e", request=REQUEST, expires_in=1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_sent_arrives(value: Any) -> None:
    assert decode(type(value), encode(value), what="it") == value
    assert "secret" not in repr(value)


def test_keys_are_ones_that_every_store_takes() -> None:
    assert content_key("uploads", ROOM, HASH) == f"uploads/{ROOM}/{HASH}"
    assert content_key("rooms", ROOM, HASH) == f"rooms/{ROOM}/files/{HASH}"
    check_key(content_key("rooms", ROOM, HASH))


@given(st.sampled_from(["room", "area", "blake3", "size", "part_size", "parts"]), st.data())
def test_what_is_not_of_its_shape_is_refused(field: str, data: st.DataObject) -> None:
    good: dict[str, Any] = {"room": ROOM, "area": "rooms", "blake3": HASH, "size": 1}
    hostile = st.sampled_from(
        ["../../etc", "a/b", "", "A" * 32, -1, 2**63, 1e300, True, [], {}, "\x00", [{"number": 0}]]
    )

    body = msgspec.json.encode(good | {field: data.draw(hostile)})
    if field == "parts" and b"[]" in body:
        return
    with pytest.raises(DataError):
        decode(RequestUpload, body, what="it")
