"""One library that talks to a store, in a process of its own.

``python -m bench.store_client OPTIONS.json`` prints what it used as one JSON document. Ours runs
in this Python, the others in environments of theirs: so nothing is imported here before it is
known which one it is.

=============  ========================================================================
library        ours, boto3, obstore
way            ``up`` or ``down``
endpoint       of the store, with ``bucket``, ``key`` and the names in `LOGIN`
path           the file or folder to send, or the place where the file or folder is to be
names          of a folder's files
hashes, sizes  by name, for our download: hex of the blocks' BLAKE3, and bytes
state          ours: the folder where unfinished uploads are noted
=============  ========================================================================
"""

# ruff: noqa: PLC0415 - see above
from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from bench.wire import Usage

SIDE_BY_SIDE = 10
"""Files of a folder that are moved at once."""
LOGIN = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
"""Variables that everybody understands."""

Move = Callable[[Path, str], None]
"""Moves one file; given its path and its key."""


Pairs = Sequence[tuple[Path, str]]


class Moves(NamedTuple):
    """How a library moves files.

    Attributes:
        one: Moves one file; given its path and its key.
        many: Moves the files of a folder; None where people have several threads call `one`.
    """

    one: Move
    many: Callable[[Pairs], None] | None = None


def ours(options: dict[str, Any]) -> Moves:
    """The product's uploader, and what a worker fetches with: see :mod:`bench.fetched`."""
    from bench.fetched import bring
    from sleap_rtc.domain.packages import FileEntry
    from sleap_rtc.storage.bucket import Bucket
    from sleap_rtc.storage.s3 import S3Store
    from sleap_rtc.storage.signing import Credentials
    from sleap_rtc.storage.upload import upload_file
    from sleap_rtc.storage.upload_many import SmallFile, upload_contents

    access, secret, region = (os.environ[name] for name in LOGIN)
    bucket = Bucket(name=options["bucket"], region=region, endpoint=options["endpoint"])
    store = S3Store(bucket, lambda: Credentials(access_key=access, secret_key=secret))

    def send(path: Path, key: str) -> None:
        upload_file(store, path, key, state=Path(options["state"]))

    def send_all(pairs: Pairs) -> None:
        upload_contents(store, [SmallFile(path=path, key=key) for path, key in pairs])

    def entry(path: Path) -> FileEntry:
        hashes, sizes = options["hashes"], options["sizes"]
        known = bytes.fromhex(hashes[path.name])
        return FileEntry(path=path.name, size=sizes[path.name], hashes=known)

    def bring_all(pairs: Pairs) -> None:
        bring(store, {key: entry(path) for path, key in pairs}, Path(options["path"]))

    if options["way"] == "up":
        return Moves(send, send_all)
    return Moves(lambda path, key: bring_all([(path, key)]), bring_all)


def boto3(options: dict[str, Any]) -> Moves:
    """Amazon's library, as it comes."""
    import boto3  # type: ignore[import-not-found]

    client = boto3.client("s3", endpoint_url=options["endpoint"])
    bucket = options["bucket"]
    if options["way"] == "up":
        return Moves(lambda path, key: client.upload_file(str(path), bucket, key))
    return Moves(lambda path, key: client.download_file(bucket, key, str(path)))


def obstore(options: dict[str, Any]) -> Moves:
    """Rust's object_store, as it comes."""
    import obstore  # type: ignore[import-not-found]
    from obstore.store import S3Store  # type: ignore[import-not-found]

    access, secret, region = (os.environ[name] for name in LOGIN)
    store = S3Store(
        options["bucket"],
        endpoint=options["endpoint"],
        region=region,
        access_key_id=access,
        secret_access_key=secret,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )

    def fetch(path: Path, key: str) -> None:
        with path.open("wb", buffering=0) as file:
            for chunk in obstore.get(store, key).stream():
                file.write(chunk)

    if options["way"] == "up":
        return Moves(lambda path, key: obstore.put(store, key, path))
    return Moves(fetch)


LIBRARIES = {"ours": ours, "boto3": boto3, "obstore": obstore}


def run(options: dict[str, Any]) -> dict[str, float]:
    """Move a file, or the files of a folder several at once; what it took, without importing."""
    moves = LIBRARIES[options["library"]](options)
    place, key = Path(options["path"]), options["key"]
    pairs = [(place / name, f"{key}/{name}") for name in options["names"]]
    usage = Usage()
    if not pairs:
        moves.one(place, key)
    elif moves.many is not None:
        moves.many(pairs)
    else:
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            for task in [pool.submit(moves.one, *pair) for pair in pairs]:
                task.result()
    return usage.stop()


if __name__ == "__main__":
    print(json.dumps(run(json.loads(Path(sys.argv[1]).read_text("utf-8")))))
