"""Answers that are kept on disk: fresh for a day, better than nothing for a month.

::

    <folder>/ab/abcd….json     one answer: a line of JSON about it, then its body

An entry's name is the hash of what was asked, the asker's credentials among it,
so nobody is told what another account was. Entries that were used least lately
go when there are too many bytes. Several processes may share the folder: an
entry appears by a rename, and one that is damaged counts as none.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import msgspec
from blake3 import blake3
from msgspec import Meta

FRESH: Final = timedelta(hours=24)
"""An answer is used for so long at most without asking again."""
STALE: Final = timedelta(days=30)
"""And for so long where nobody can be asked."""
MAX_BYTES: Final = 64 * 1024 * 1024
"""Bytes of all entries together."""
MAX_HEAD: Final = 16 * 1024
_PRUNE_EVERY: Final = 32
"""Entries that are written before the folder is looked through."""

_MAX_AGE: Final = re.compile(r"(?:^|,)\s*max-age\s*=\s*\"?([0-9]{1,9})\b")
_NEVER: Final = re.compile(r"(?:^|,)\s*no-store\b")
_ASK_ALWAYS: Final = re.compile(r"(?:^|,)\s*(no-cache|must-revalidate)\b")


class Kept(msgspec.Struct, frozen=True):
    """An answer that is kept.

    Attributes:
        url: What was asked, without a query.
        status: 200.
        headers: Those of the answer, names in lower case.
        body: Its content.
        stored: When it came, or was confirmed (UTC).
        fresh_until: When it is to be asked for again.
    """

    url: str
    status: int
    headers: dict[str, str]
    body: bytes
    stored: datetime
    fresh_until: datetime

    def is_fresh(self, now: datetime) -> bool:
        """Whether it can be used without asking; a clock that went back makes it old."""
        return self.stored <= now < self.fresh_until

    def is_usable(self, now: datetime) -> bool:
        """Whether it is better than no answer."""
        return now - self.stored < STALE

    @property
    def conditions(self) -> dict[str, str]:
        """Headers that ask whether it is still true."""
        found = {
            "if-none-match": self.headers.get("etag", ""),
            "if-modified-since": self.headers.get("last-modified", ""),
        }
        return {name: value for name, value in found.items() if value}


class _Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: str
    status: Annotated[int, Meta(ge=200, le=299)]
    headers: dict[str, str]
    stored: datetime
    fresh_until: datetime
    blake3: str


def freshness(headers: Mapping[str, str], now: datetime) -> datetime | None:
    """Until when an answer is fresh; None where it is not to be kept at all.

    Args:
        headers: The answer's, names in lower case.
        now: UTC.
    """
    control = headers.get("cache-control", "").lower()
    if _NEVER.search(control):
        return None
    if _ASK_ALWAYS.search(control):
        return now
    told = _MAX_AGE.search(control)
    return now + (min(timedelta(seconds=int(told[1])), FRESH) if told else FRESH)


class HttpCache:
    """A folder of answers. Threads and processes may share it.

    A disk that is full or can't be written makes a cache of nothing, and no error.

    Args:
        folder: Where; made when something is kept, for this user alone.
        max_bytes: Bytes of all entries together.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._written = 0

    def get(self, url: str, *, secret: str = "") -> Kept | None:
        """What is kept of an answer, fresh or not.

        Args:
            url: The whole URL.
            secret: The credentials that it was asked with.
        """
        path = self._path(url, secret)
        try:
            data = path.read_bytes()
            head, line, body = data.partition(b"\n")
            found = msgspec.json.decode(head, type=_Head)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None
        if not line or found.blake3 != blake3(body).hexdigest():
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return Kept(
            url=found.url,
            status=found.status,
            headers=found.headers,
            body=body,
            stored=found.stored.astimezone(UTC),
            fresh_until=found.fresh_until.astimezone(UTC),
        )

    def put(self, url: str, kept: Kept, *, secret: str = "") -> None:
        """Keep an answer in the place of an earlier one."""
        head = msgspec.json.encode(
            _Head(
                url=kept.url,
                status=kept.status,
                headers=kept.headers,
                stored=kept.stored,
                fresh_until=kept.fresh_until,
                blake3=blake3(kept.body).hexdigest(),
            )
        )
        if len(head) > MAX_HEAD or len(kept.body) > self._max_bytes // 4:
            return
        path = self._path(url, secret)
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _replace(path, head + b"\n" + kept.body)
        self._written += 1
        if self._written % _PRUNE_EVERY == 1:
            self.prune()

    def forget(self, url: str, *, secret: str = "") -> None:
        """Keep an answer no longer."""
        with contextlib.suppress(OSError):
            self._path(url, secret).unlink()

    def prune(self) -> None:
        """Remove what was used least lately, until the rest fits."""
        found: list[tuple[float, int, Path]] = []
        with contextlib.suppress(OSError):
            for path in self._folder.glob("??/*"):
                with contextlib.suppress(OSError):
                    told = path.stat()
                    found.append((told.st_mtime, told.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._max_bytes:
                break
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size

    def _path(self, url: str, secret: str) -> Path:
        key = blake3(f"{len(secret)}:{secret}{url}".encode("utf-8", "replace")).hexdigest()
        return self._folder / key[:2] / f"{key}.json"


def _replace(path: Path, data: bytes) -> None:
    number, name = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(number, "wb") as stream:
            stream.write(data)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
