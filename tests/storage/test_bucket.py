"""Where a bucket is, and how it is asked: again where that may help, and by the store's clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sleap_rtc.errors import OutOfSpace, StorageRefused, StorageUnreachable
from sleap_rtc.storage.bucket import ATTEMPTS, Bucket
from sleap_rtc.storage.objects import MIN_PART
from sleap_rtc.storage.s3 import S3Store
from sleap_rtc.testing.seaweed import ADMIN, SeaweedServer
from sleap_rtc.testing.store_conformance import part_of, sent

from .scripted import Script, failing


def test_where_a_bucket_is() -> None:
    assert Bucket(name="b", region="eu-west-1").url("k") == "https://b.s3.eu-west-1.amazonaws.com/k"
    assert Bucket(name="b.c").url("k") == "https://s3.us-east-1.amazonaws.com/b.c/k"
    own = Bucket(name="b", endpoint="http://in:1/", public_endpoint="https://out")
    assert own.url("k") == "http://in:1/b/k"
    assert own.url("k", public=True) == "https://out/b/k"
    assert own.url() == "http://in:1/b"


def test_what_passes_is_tried_again_after_growing_waits(script: Script) -> None:
    script.answers = [(503, failing("SlowDown")), (0, b""), (500, b""), (200, b"x")]
    assert script.store().read("k", limit=5) == b"x"
    assert script.waits == [0.05, 0.1, 0.2]


def test_what_doesn_t_pass_ends_with_its_reason(script: Script) -> None:
    script.answers = [(503, failing("SlowDown"))] * ATTEMPTS
    with pytest.raises(StorageUnreachable, match="SlowDown"):
        script.store().read("k", limit=5)
    script.answers = [(0, b"")] * ATTEMPTS
    with pytest.raises(StorageUnreachable):
        script.store().create("k", b"")
    script.answers = [(507, b"")]
    with pytest.raises(OutOfSpace):
        script.store().create("k", b"")
    script.answers = [(301, failing("PermanentRedirect"))] * 2  # what pins parts was asked first
    with pytest.raises(StorageRefused, match="PermanentRedirect"):
        script.store().begin("k", size=1, part_size=MIN_PART)
    assert script.answers == []


@pytest.mark.slow
@pytest.mark.parametrize("hours", [-3, 3])
def test_a_clock_that_is_wrong_is_put_right(
    seaweed: SeaweedServer, hours: int, request: pytest.FixtureRequest
) -> None:
    bucket, off = f"clocks{hours % 24}", timedelta(hours=hours)
    seaweed.make_bucket(bucket)
    store = S3Store(seaweed.bucket(bucket), lambda: ADMIN, clock=lambda: datetime.now(UTC) + off)
    request.addfinalizer(store.close)
    upload = store.begin("a", size=5, part_size=MIN_PART)
    part = sent(store, upload, *part_of(upload, 1, b"hello"))
    assert store.complete(upload, [part]).size == 5
