"""Setting up buckets on a real store, and what the documents say."""

from __future__ import annotations

import http.client
from typing import Any
from urllib.parse import urlsplit

import pytest

from sleap_rtc.errors import InvalidConfig, StorageRefused
from sleap_rtc.storage.bucket import Bucket
from sleap_rtc.storage.setup import (
    Wishes,
    _documents,
    _make,
    check_production,
    init_bucket,
    policies,
)
from sleap_rtc.testing.seaweed import READER, SeaweedServer

ORIGIN = "https://lab.example.org"


@pytest.mark.slow
def test_buckets_are_set_up_and_again_with_the_same_end(seaweed: SeaweedServer) -> None:
    wishes = Wishes(origins=(ORIGIN,))
    for made in ("bucket", "bucket (was there)"):
        steps = init_bucket(seaweed.store("lab-rooms"), "rooms", wishes)
        assert steps[0].what == made
        done = {step.what for step in steps if step.done}
        lacking = {step.what: step.why for step in steps if not step.done}
        # What this store doesn't know is told with its reason, and the rest is done.
        assert {"old versions kept", f"CORS for {ORIGIN}"} <= done, lacking
        assert all(lacking.values())
    store = seaweed.store("lab-rooms")
    answer = store.requests.ask("GET", "", query={"versioning": ""}, what="look")
    assert b"<Status>Enabled</Status>" in answer.body
    answer = store.requests.ask("GET", "", query={"lifecycle": ""}, what="look")
    assert b"sleap-rtc-old-versions" in answer.body or b"NoncurrentDays>30" in answer.body
    uploads = init_bucket(seaweed.store("lab-uploads"), "uploads")
    assert "everything gone after 1 day" in {step.what for step in uploads if step.done}


@pytest.mark.slow
def test_a_browser_on_a_named_page_may_upload(seaweed: SeaweedServer) -> None:
    init_bucket(seaweed.store("lab-cors"), "uploads", Wishes(origins=(ORIGIN,)))
    store = seaweed.store("lab-cors")
    url = urlsplit(store.download_request("a").url)

    def asked(origin: str) -> str | None:
        connection = http.client.HTTPConnection(url.netloc)
        headers = {
            "origin": origin,
            "access-control-request-method": "PUT",
            "access-control-request-headers": "x-amz-checksum-sha256",
        }
        connection.request("OPTIONS", url.path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.getheader("access-control-allow-origin")

    assert asked(ORIGIN) == ORIGIN
    assert asked("https://evil.example.org") is None


@pytest.mark.slow
def test_who_may_not_make_buckets_is_told(seaweed: SeaweedServer) -> None:
    with pytest.raises(StorageRefused, match="make the bucket lab-other"):
        init_bucket(seaweed.store("lab-other", READER), "rooms")


def actions(document: dict[str, Any], resource: str) -> set[str]:
    """What a document allows on a resource."""
    return {
        action
        for statement in document["Statement"]
        for action in statement["Action"]
        if statement["Effect"] == "Allow" and resource in statement["Resource"]
    }


def test_each_has_the_least_that_it_needs() -> None:
    made = policies("up", "rooms")
    assert set(made) == {"server", "setup", "tls"}
    assert "s3:PutObject" in actions(made["server"], "arn:aws:s3:::up/*")
    assert "s3:CreateBucket" not in actions(made["server"], "arn:aws:s3:::up")
    assert "s3:GetObject" not in actions(made["setup"], "arn:aws:s3:::up/*")


def test_nobody_gets_rights_on_everything() -> None:
    for name, document in policies("up", "rooms").items():
        for statement in document["Statement"]:
            if statement["Effect"] == "Allow":
                assert "*" not in statement["Resource"], name
                assert not any("*" in action for action in statement["Action"]), name
    assert "client" not in policies("up", "rooms")


def test_documents_escape_what_people_type() -> None:
    wishes = Wishes(origins=("<a>&",), kms_key="<k>", log_bucket="<l>")
    text = b"".join(document for _, _, document in _documents("rooms", wishes)).decode()
    assert "<a>" not in text
    assert "<k>" not in text
    assert "<l>" not in text
    assert "&lt;a&gt;&amp;" in text
    assert "aws:kms" in text


def test_amazon_is_told_the_region() -> None:
    class Asked:
        bucket = Bucket(name="b", region="eu-west-1")
        data = b""

        def ask(self, *_: object, data: bytes, **__: object) -> None:
            self.data = data

    store = Asked()
    _make(store)  # type: ignore[arg-type]
    assert b"<LocationConstraint>eu-west-1</LocationConstraint>" in store.data
    store.bucket = Bucket(name="b")
    _make(store)  # type: ignore[arg-type]
    assert store.data == b""


def test_production_wants_encryption_on_the_way() -> None:
    check_production(None, local=False)
    check_production("https://s3.lab", local=False)
    check_production("http://127.0.0.1:9000", local=True)
    with pytest.raises(InvalidConfig, match="development"):
        check_production("http://s3.lab", local=False)
