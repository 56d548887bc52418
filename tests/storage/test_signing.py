"""The presigner against a published example, and as a store reads what arrives."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.storage.signing import Credentials, presign

# The example in Amazon's documentation of Signature Version 4 for query parameters.
EXAMPLE = Credentials(
    access_key="AKIAIOSFODNN7EXAMPLE", secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)
THEN = datetime(2013, 5, 24, tzinfo=UTC)

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=20)
# No "?" and "#", which end a path, and nothing that urlsplit removes.
paths = st.text(st.sampled_from("abzAZ09-_.~ /+=&%!*'()éß:@,$;"), max_size=20)
header_names = st.from_regex(r"\Ax-amz-[a-z0-9-]{1,10}\Z")
header_values = st.text(st.sampled_from("abc XYZ 019=/+"), min_size=1, max_size=20)


def test_the_published_example() -> None:
    request = presign(
        EXAMPLE,
        method="GET",
        url="https://examplebucket.s3.amazonaws.com/test.txt",
        region="us-east-1",
        now=THEN,
        seconds=86_400,
    )
    assert request.url.endswith(
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )
    assert request.expires == THEN + timedelta(days=1)
    assert request.headers == {}


@given(
    path=paths,
    query=st.dictionaries(texts, texts, max_size=4),
    headers=st.dictionaries(header_names, header_values, max_size=3),
    token=texts,
)
def test_a_store_that_reads_the_request_finds_the_same_signature(
    path: str, query: dict[str, str], headers: dict[str, str], token: str
) -> None:
    credentials = Credentials(access_key="me", secret_key="s", token=token)
    request = presign(
        credentials,
        method="PUT",
        url=f"http://127.0.0.1:9000/{path}",
        region="r",
        now=THEN,
        seconds=60,
        query=query,
        headers=headers,
    )
    parts = urlsplit(request.url)
    asked = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True)
    given_signature = dict(asked)["X-Amz-Signature"]
    # As a store does it: from what arrives, whoever made it.
    pairs = sorted(
        (quote(k, safe="-_.~"), quote(v, safe="-_.~")) for k, v in asked if k != "X-Amz-Signature"
    )
    names = dict(asked)["X-Amz-SignedHeaders"].split(";")
    assert names == sorted({"host", *headers})
    arrived = {"host": parts.netloc, **request.headers}
    canonical = "\n".join(
        [
            "PUT",
            quote(unquote(parts.path), safe="/-_.~"),
            "&".join(f"{k}={v}" for k, v in pairs),
            *(f"{name}:{' '.join(arrived[name].split())}" for name in names),
            "",
            ";".join(names),
            "UNSIGNED-PAYLOAD",
        ]
    )
    scope = "20130524/r/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = b"AWS4s"
    for word in scope.split("/"):
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    text = f"AWS4-HMAC-SHA256\n20130524T000000Z\n{scope}\n{digest}"
    assert given_signature == hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    assert {name: value for name, value in asked if name in query} == query
    assert dict(asked).get("X-Amz-Security-Token", "") == token


@pytest.mark.parametrize("seconds", [0, -1, 604_801])
def test_times_that_no_store_takes_are_refused(seconds: int) -> None:
    with pytest.raises(ValueError, match="seconds"):
        presign(EXAMPLE, method="GET", url="http://a/b", region="r", now=THEN, seconds=seconds)


def test_a_header_can_t_become_two() -> None:
    with pytest.raises(ValueError, match="one line"):
        presign(
            EXAMPLE,
            method="GET",
            url="http://a/b",
            region="r",
            now=THEN,
            seconds=1,
            headers={"x-amz-meta": "a\r\nx-amz-acl: public-read"},
        )


def test_secrets_are_in_no_repr() -> None:
    credentials = Credentials(access_key="me", secret_key="hidden", token="also-hidden")
    assert "hidden" not in repr(credentials)
    assert "me" in repr(credentials)
