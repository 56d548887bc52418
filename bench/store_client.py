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
hashes, sizes  by key, for our download: hex of the blocks' BLAKE3, and bytes
state          ours: the folder where unfinished uploads are noted
=============  ========================================================================
"""

# ruff: noqa: PLC0415 - see above
from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.wire import Usage

SIDE_BY_SIDE = 10
"""Files of a folder that are moved at once."""
LOGIN = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
"""Variables that everybody understands."""

Move = Callable[[Path, str], None]
"""Moves one file; given its path and its key."""


def ours(options: dict[str, Any]) -> Move:
    """The product's uploader and downloader: checked on both ways, and synced on the way down."""
    from sleap_rtc.domain.packages import FileEntry
    from sleap_rtc.storage.download import download_file
    from sleap_rtc.storage.s3 import Bucket, S3Store
    from sleap_rtc.storage.signing import Credentials
    from sleap_rtc.storage.upload import upload_file
    from sleap_rtc.storage.wire import Connections

    access, secret, region = (os.environ[name] for name in LOGIN)
    bucket = Bucket(name=options["bucket"], region=region, endpoint=options["endpoint"])
    store = S3Store(bucket, lambda: Credentials(access_key=access, secret_key=secret))
    shared = Connections() if options["names"] else None

    def send(path: Path, key: str) -> None:
        upload_file(store, path, key, state=Path(options["state"]), connections=shared)

    def fetch(path: Path, key: str) -> None:
        hashes = bytes.fromhex(options["hashes"][key])
        entry = FileEntry(path=path.name, size=options["sizes"][key], hashes=hashes)
        download_file(
            lambda: store.download_request(key),
            path,
            partial=path.with_name(f"{path.name}.partial"),
            size=entry.size,
            name=key,
            entry=entry,
            connections=shared,
        )

    return send if options["way"] == "up" else fetch


def boto3(options: dict[str, Any]) -> Move:
    """Amazon's library, as it comes."""
    import boto3  # type: ignore[import-not-found]

    client = boto3.client("s3", endpoint_url=options["endpoint"])
    bucket = options["bucket"]
    if options["way"] == "up":
        return lambda path, key: client.upload_file(str(path), bucket, key)
    return lambda path, key: client.download_file(bucket, key, str(path))


def obstore(options: dict[str, Any]) -> Move:
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
        return lambda path, key: obstore.put(store, key, path)
    return fetch


LIBRARIES = {"ours": ours, "boto3": boto3, "obstore": obstore}


def run(options: dict[str, Any]) -> dict[str, float]:
    """Move a file, or the files of a folder several at once; what it took, without importing."""
    move = LIBRARIES[options["library"]](options)
    place, key = Path(options["path"]), options["key"]
    usage = Usage()
    if options["names"]:
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            moves = (functools.partial(move, place / n, f"{key}/{n}") for n in options["names"])
            for task in [pool.submit(each) for each in moves]:
                task.result()
    else:
        move(place, key)
    return usage.stop()


if __name__ == "__main__":
    print(json.dumps(run(json.loads(Path(sys.argv[1]).read_text("utf-8")))))
