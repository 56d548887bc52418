"""Setting up the buckets of a lab: once, again and again with the same end, and told step by step.

====================  ==========================  =================================
of                    uploads                     rooms
====================  ==========================  =================================
unfinished uploads    gone after a day            gone after seven days
objects               gone after a day            kept
old versions          (none)                      kept for thirty days
encryption            by the store's key, or a key of one's own, for both
public access         blocked, for both
CORS                  ``GET`` and ``PUT`` from the pages that are named, for both
access log            to a third bucket, where one is named, for both
====================  ==========================  =================================

A store that doesn't know one of these says so, and the rest is done all the same.
The documents of :func:`policies` give each part of the system the least that it
needs; clients are in none, as they have nothing but presigned requests.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any, Final, Literal
from xml.sax.saxutils import escape

import msgspec

from sleap_rtc.errors import InvalidConfig, StorageRefused, StorageUnreachable
from sleap_rtc.storage.bucket import BucketRequests
from sleap_rtc.storage.s3 import S3Store

UPLOAD_DAYS: Final = 1
UNFINISHED_DAYS: Final = 7
OLD_VERSION_DAYS: Final = 30

_NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
_THERE: Final = ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")
_OBJECTS: Final = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
_PARTS: Final = ["s3:ListMultipartUploadParts"]

Kind = Literal["uploads", "rooms"]


class Step(msgspec.Struct, frozen=True):
    """One thing that was to be set.

    Attributes:
        bucket: Its name.
        what: What was to be set, as people read it.
        done: Whether it is.
        why: Where it isn't: what the store said.
    """

    bucket: str
    what: str
    done: bool
    why: str = ""


class Wishes(msgspec.Struct, frozen=True):
    """What is to be set beside what always is.

    Attributes:
        origins: Pages from which browsers may upload and download: ``https://lab.example.org``.
        kms_key: Key to encrypt with; the store's own where none is named.
        log_bucket: Takes the access logs; must be there, and let the store write.
    """

    origins: tuple[str, ...] = ()
    kms_key: str = ""
    log_bucket: str = ""


def init_bucket(store: S3Store, kind: Kind, wishes: Wishes = Wishes()) -> list[Step]:  # noqa: B008 - it is frozen
    """Make a bucket, unless it is there, and set it up.

    Args:
        store: The bucket, with the credentials of somebody who may make it.
        kind: What it is for.
        wishes: What is to be set beside what always is.

    Returns:
        What was done, and what the store doesn't know.

    Raises:
        StorageRefused: The bucket can't be made, or belongs to somebody else.
        StorageUnreachable: The store doesn't answer.
    """
    steps = [_make(store.requests)]
    for what, name, document in _documents(kind, wishes):
        steps.append(_put(store.requests, what, name, document))
    return steps


def check_production(endpoint: str | None, *, local: bool) -> None:
    """Check what only a development set-up may do.

    Args:
        endpoint: Of the store; None is Amazon's.
        local: Whether that is this machine.

    Raises:
        InvalidConfig: Bytes and signatures would travel unencrypted.
    """
    if endpoint is not None and endpoint.startswith("http://") and not local:
        why = f"{endpoint} is not encrypted; give an https address, or profile development"
        raise InvalidConfig(where="storage_endpoint", why=why)


def policies(uploads: str, rooms: str, *, partition: str = "aws") -> dict[str, dict[str, Any]]:
    """Policy documents that give each part of the system the least that it needs.

    Args:
        uploads: Name of the bucket for what stays a day.
        rooms: Name of the bucket for what stays.
        partition: Amazon's, ``aws`` but for China and governments.

    Returns:
        By role: ``server`` signs for all others, who need none (docs/adr/0016); ``setup`` is for
        `init_bucket`, and needed once; ``tls`` is the buckets' own.
    """
    arns = [f"arn:{partition}:s3:::{name}" for name in (uploads, rooms)]
    both = [f"{arn}/*" for arn in arns]
    listing = _allow("List", ["s3:ListBucket"], arns)
    return {
        "server": _document(_allow("Objects", [*_OBJECTS, *_PARTS], both), listing),
        "setup": _document(
            _allow(
                "Buckets",
                [
                    "s3:CreateBucket",
                    "s3:PutBucketVersioning",
                    "s3:PutLifecycleConfiguration",
                    "s3:PutEncryptionConfiguration",
                    "s3:PutBucketCORS",
                    "s3:PutBucketLogging",
                    "s3:PutBucketPublicAccessBlock",
                ],
                arns,
            )
        ),
        "tls": _document(
            {
                "Sid": "EncryptedOnly",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [*arns, *both],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ),
    }


def _make(requests: BucketRequests) -> Step:
    bucket = requests.bucket
    body = b""
    # Amazon takes the region everywhere but in its first, where it must not be named.
    if bucket.region != "us-east-1" and bucket.endpoint is None:
        region = f"<LocationConstraint>{escape(bucket.region)}</LocationConstraint>"
        body = _xml("CreateBucketConfiguration", region)
    try:
        requests.ask("PUT", "", data=body, what=f"make the bucket {bucket.name}")
    except StorageRefused as error:
        if error.details.get("why") not in _THERE:
            raise
        # It may be somebody else's: only who may list it goes on.
        requests.ask("GET", "", query={"list-type": "2", "max-keys": "1"}, what="use the bucket")
        return Step(bucket=bucket.name, what="bucket (was there)", done=True)
    return Step(bucket=bucket.name, what="bucket", done=True)


def _put(requests: BucketRequests, what: str, name: str, document: bytes) -> Step:
    """Set one thing of a bucket."""
    digest = base64.b64encode(hashlib.sha256(document).digest()).decode()
    try:
        requests.ask(
            "PUT",
            "",
            query={name: ""},
            headers={
                "content-type": "application/xml",
                "x-amz-checksum-sha256": digest,
                "x-amz-sdk-checksum-algorithm": "SHA256",
            },
            data=document,
            what=f"set {what}",
        )
    except (StorageRefused, StorageUnreachable) as error:
        why = str(error.details.get("why", error))
        return Step(bucket=requests.bucket.name, what=what, done=False, why=why)
    return Step(bucket=requests.bucket.name, what=what, done=True)


def _documents(kind: Kind, wishes: Wishes) -> Sequence[tuple[str, str, bytes]]:
    """What is set: in words, the name of the setting, and its document."""
    made = [
        ("public access blocked", "publicAccessBlock", _public_access()),
        ("encryption", "encryption", _encryption(wishes.kms_key)),
        (_lifecycle_words(kind), "lifecycle", _lifecycle(kind)),
    ]
    if kind == "rooms":
        status = _xml("VersioningConfiguration", "<Status>Enabled</Status>")
        made.insert(0, ("old versions kept", "versioning", status))
    if wishes.origins:
        words = f"CORS for {', '.join(wishes.origins)}"
        made.append((words, "cors", _cors(wishes.origins)))
    if wishes.log_bucket:
        words = f"access log to {wishes.log_bucket}"
        made.append((words, "logging", _logging(wishes.log_bucket, kind)))
    return made


def _lifecycle_words(kind: Kind) -> str:
    if kind == "uploads":
        return f"everything gone after {UPLOAD_DAYS} day"
    return (
        f"old versions gone after {OLD_VERSION_DAYS} days, unfinished uploads after "
        f"{UNFINISHED_DAYS}"
    )


def _lifecycle(kind: Kind) -> bytes:
    days = UPLOAD_DAYS if kind == "uploads" else UNFINISHED_DAYS
    rules = _rule(
        "unfinished",
        f"<AbortIncompleteMultipartUpload><DaysAfterInitiation>{days}</DaysAfterInitiation>"
        "</AbortIncompleteMultipartUpload>",
    )
    if kind == "uploads":
        rules += _rule("temporary", f"<Expiration><Days>{UPLOAD_DAYS}</Days></Expiration>")
    else:
        rules += _rule(
            "old-versions",
            f"<NoncurrentVersionExpiration><NoncurrentDays>{OLD_VERSION_DAYS}</NoncurrentDays>"
            "</NoncurrentVersionExpiration>",
        )
    return _xml("LifecycleConfiguration", rules)


def _rule(name: str, what: str) -> str:
    filtered = "<Filter><Prefix></Prefix></Filter><Status>Enabled</Status>"
    return f"<Rule><ID>sleap-rtc-{name}</ID>{filtered}{what}</Rule>"


def _public_access() -> bytes:
    names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    return _xml(
        "PublicAccessBlockConfiguration", "".join(f"<{name}>true</{name}>" for name in names)
    )


def _encryption(key: str) -> bytes:
    how = "<SSEAlgorithm>AES256</SSEAlgorithm>"
    if key:
        how = f"<SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>{escape(key)}</KMSMasterKeyID>"
    default = f"<ApplyServerSideEncryptionByDefault>{how}</ApplyServerSideEncryptionByDefault>"
    keyed = "<BucketKeyEnabled>true</BucketKeyEnabled>" if key else ""
    return _xml("ServerSideEncryptionConfiguration", f"<Rule>{default}{keyed}</Rule>")


def _cors(origins: tuple[str, ...]) -> bytes:
    allowed = "".join(f"<AllowedOrigin>{escape(origin)}</AllowedOrigin>" for origin in origins)
    methods = "".join(f"<AllowedMethod>{name}</AllowedMethod>" for name in ("GET", "PUT", "HEAD"))
    headers = "<AllowedHeader>*</AllowedHeader>"
    shown = "".join(
        f"<ExposeHeader>{name}</ExposeHeader>"
        for name in ("ETag", "x-amz-checksum-sha256", "x-amz-checksum-crc32c")
    )
    age = "<MaxAgeSeconds>3600</MaxAgeSeconds>"
    return _xml(
        "CORSConfiguration", f"<CORSRule>{allowed}{methods}{headers}{age}{shown}</CORSRule>"
    )


def _logging(bucket: str, kind: Kind) -> bytes:
    target = f"<TargetBucket>{escape(bucket)}</TargetBucket>"
    prefix = f"<TargetPrefix>sleap-rtc-{kind}/</TargetPrefix>"
    return _xml("BucketLoggingStatus", f"<LoggingEnabled>{target}{prefix}</LoggingEnabled>")


def _xml(name: str, content: str) -> bytes:
    return f'<{name} xmlns="{_NAMESPACE}">{content}</{name}>'.encode()


def _allow(name: str, actions: list[str], resources: list[str]) -> dict[str, Any]:
    return {"Sid": name, "Effect": "Allow", "Action": actions, "Resource": resources}


def _document(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}
