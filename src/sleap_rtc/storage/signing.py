"""Presigned requests for S3 (AWS Signature Version 4): a pure function.

What is signed: the method, the path, the query, and every header that is named
here, with its value. So a request that pins ``content-length`` and
``x-amz-checksum-sha256`` is good for one content alone, and the store refuses
any other. The body itself isn't in the signature (``UNSIGNED-PAYLOAD``): the
pinned checksum stands for it, and the store compares.

::

    string to sign = "AWS4-HMAC-SHA256" / time / scope / SHA-256 of the
                     canonical request: method, path, sorted query,
                     sorted headers, their names, "UNSIGNED-PAYLOAD"
    key            = HMAC chain over secret, day, region, "s3"
    signature      = HMAC(key, string to sign), last in the query

No SDK: this is a page of code, and signs some ten thousand requests a second.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec

from sleap_rtc.storage.objects import MAX_SECONDS, SignedRequest

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_BODY: Final = "UNSIGNED-PAYLOAD"
_FEW: Final = 64


class Credentials(msgspec.Struct, frozen=True):
    """What signs. The secrets are in no ``repr``.

    Attributes:
        access_key: Its public name.
        secret_key: Never leaves this process.
        token: Of temporary credentials; goes with every request.
        expires: When temporary credentials end.
    """

    access_key: str
    secret_key: str
    token: str = ""
    expires: datetime | None = None

    def __repr__(self) -> str:
        return f"Credentials({self.access_key!r}, expires={self.expires})"


def presign(
    credentials: Credentials,
    *,
    method: str,
    url: str,
    region: str,
    now: datetime,
    seconds: int,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    service: str = "s3",
) -> SignedRequest:
    """Sign a request.

    Args:
        credentials: Whose right it is.
        method: ``GET``, ``PUT``, ….
        url: Scheme, host and path, whose characters are as they are, not escaped.
        region: That the store is in, for example ``us-east-1``.
        now: The time, in UTC; the store compares it with its own.
        seconds: How long it is good for, 1 to `MAX_SECONDS`.
        query: Names and values, as they are.
        headers: Must be sent with these values; the host is always signed.
        service: What the scope names.

    Returns:
        The request with its signature in the URL's query.

    Raises:
        ValueError: A time that no store takes, or a header that would be two.
    """
    if not 1 <= seconds <= MAX_SECONDS:
        raise ValueError(f"a request is good for 1 to {MAX_SECONDS} seconds, not {seconds}")
    parts = urlsplit(url)
    path = _escaped(parts.path or "/", safe="/")
    pinned = {name.lower(): value for name, value in (headers or {}).items()}
    if any("\n" in value or "\r" in value for value in pinned.values()):
        raise ValueError("a header's value is one line")
    signed = {"host": parts.netloc, **{name: " ".join(v.split()) for name, v in pinned.items()}}
    names = ";".join(sorted(signed))
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    asked = {
        **(query or {}),
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{credentials.access_key}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(seconds),
        "X-Amz-SignedHeaders": names,
    }
    if credentials.token:
        asked["X-Amz-Security-Token"] = credentials.token
    # Sorted by the escaped names, as the store does it; "=" would count in whole pairs.
    pairs = sorted((_escaped(name), _escaped(value)) for name, value in asked.items())
    line = "&".join(f"{name}={value}" for name, value in pairs)
    lines = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
    canonical = f"{method}\n{path}\n{line}\n{lines}\n{names}\n{_BODY}"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = _signing_key(credentials.secret_key, stamp[:8], region, service)
    text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{digest}"
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return SignedRequest(
        method=method,
        url=f"{parts.scheme}://{parts.netloc}{path}?{line}&X-Amz-Signature={signature}",
        headers=pinned,
        expires=now + timedelta(seconds=seconds),
    )


@functools.lru_cache(_FEW)
def _escaped(text: str, *, safe: str = "") -> str:
    """Text with all but letters, digits and ``-_.~`` escaped; most of it is in every request."""
    return quote(text, safe=safe + "~")


@functools.lru_cache(_FEW)
def _signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for word in (day, region, service, "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")
    return key
