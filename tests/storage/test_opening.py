"""Opening storage by settings: two buckets that are one store, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sleap_rtc.config import StorageSettings, load
from sleap_rtc.errors import InvalidConfig
from sleap_rtc.storage.folder import FolderStore
from sleap_rtc.storage.objects import ObjectStore
from sleap_rtc.storage.opening import TwoBuckets, open_buckets, open_cache
from sleap_rtc.testing.seaweed import ADMIN, SeaweedServer
from sleap_rtc.testing.store_conformance import CHECKS, upload_whole
from sleap_rtc.testing.store_endpoint import StoreEndpoint

KEYS = {"AWS_ACCESS_KEY_ID": ADMIN.access_key, "AWS_SECRET_ACCESS_KEY": ADMIN.secret_key}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_two_are_one_store(
    check: Callable[[ObjectStore], None], endpoint: StoreEndpoint, tmp_path: Path
) -> None:
    other = FolderStore(tmp_path / "other", base_url="http://127.0.0.1:1")
    check(TwoBuckets(other, endpoint.store))


def test_each_key_has_its_bucket(tmp_path: Path) -> None:
    uploads, rooms = (FolderStore(tmp_path / name, base_url="") for name in ("uploads", "rooms"))
    both = TwoBuckets(uploads, rooms)
    for key in ("uploads/r/1", "rooms/r/2", "uploadsx"):
        assert both.create(key, b"1")
    assert [found.key for found in uploads.keys("")] == ["uploads/r/1"]
    assert {found.key for found in both.keys("")} == {"uploads/r/1", "rooms/r/2", "uploadsx"}
    assert {found.key for found in both.keys("uploads")} == {"uploads/r/1", "uploadsx"}
    assert [found.key for found in both.keys("uploads/")] == ["uploads/r/1"]
    assert [found.key for found in both.keys("rooms/")] == ["rooms/r/2"]
    assert "uploads" in both.name


@pytest.mark.slow
def test_buckets_of_the_settings(seaweed: SeaweedServer, tmp_path: Path) -> None:
    seaweed.make_bucket("lab-up")
    seaweed.make_bucket("lab-rooms")
    settings = StorageSettings(
        endpoint=seaweed.endpoint, uploads_bucket="lab-up", rooms_bucket="lab-rooms"
    )
    uploads, rooms = open_buckets(settings, KEYS, home=tmp_path)
    both = TwoBuckets(uploads, rooms)
    upload_whole(both, "uploads/r/a", b"hello")
    assert [found.key for found in uploads.keys("")] == ["uploads/r/a"]
    assert list(rooms.keys("")) == []
    uploads.close()


def test_links_lead_to_the_address_that_devices_reach(tmp_path: Path) -> None:
    settings = StorageSettings(endpoint="https://in.lab", public_endpoint="https://out.lab")
    uploads, _ = open_buckets(settings, KEYS, home=tmp_path)
    request = uploads.download_request("uploads/a")
    assert request.url.startswith("https://out.lab/sleap-rtc-uploads/uploads/a?")
    assert ADMIN.secret_key not in request.url


@pytest.mark.parametrize("name", ["endpoint", "public_endpoint"])
def test_production_wants_tls(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidConfig, match="not encrypted"):
        open_buckets(StorageSettings(**{name: "http://s3.lab"}), KEYS, home=tmp_path)
    development = StorageSettings(**{name: "http://s3.lab", "profile": "development"})
    assert open_buckets(development, KEYS, home=tmp_path)
    for here in ("http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"):
        assert open_buckets(StorageSettings(**{name: here}), KEYS, home=tmp_path)


def test_the_cache_of_the_settings(tmp_path: Path) -> None:
    cache = open_cache(load({"home": tmp_path, "cache_size": "1GB"}))
    assert cache.size() == 0
    assert (tmp_path / "cache" / "files").is_dir()


@pytest.mark.parametrize(
    "flags",
    [
        {"storage_endpoint": "s3.lab"},
        {"storage_endpoint": "https://key:secret@s3.lab"},
        {"storage_uploads_bucket": "No_Bucket"},
        {"max_concurrent_parts": 0},
        {"multipart_chunk_size": "1MB"},
        {"storage_profile": "test"},
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, flags: dict[str, object]) -> None:
    with pytest.raises(InvalidConfig):
        load({"home": tmp_path, **flags})
