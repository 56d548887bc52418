"""A bucket's lists: of objects, page by page, and what they say of many keys at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Final

from sleap_rtc.errors import DataError
from sleap_rtc.storage import xml
from sleap_rtc.storage.bucket import BucketRequests
from sleap_rtc.storage.objects import StoredObject, check_key, etag_of

_ASKED_AT_ONCE: Final = 16
"""Objects that are looked for at once."""
_LISTED_FROM: Final = 32
"""Objects from which on a list is asked for."""
_PAGE: Final = 1_000
"""Objects on a page of a list, as S3 has it."""
_KEYS_PER_PAGE: Final = 25
"""Objects whose looking for costs about as much as a page of a list."""
_LONG_S: Final = 600.0
"""Seconds in which a list that was too long isn't asked for again."""


class BucketLists:
    """Reads a bucket's lists of objects. For many threads.

    Args:
        requests: Asks the bucket.
    """

    def __init__(self, requests: BucketRequests) -> None:
        self._requests = requests
        self._long: dict[str, float] = {}

    def heads(
        self, keys: Sequence[str], head: Callable[[str], StoredObject | None]
    ) -> list[StoredObject | None]:
        """What is there under each of many keys.

        Of many with a common beginning a list is asked for, which costs a hundredth; where it is
        long, because much else begins so, the rest is looked for one by one.

        Args:
            keys: The keys.
            head: Looks for one.
        """
        found: dict[str, StoredObject | None] = {}
        if len(keys) >= _LISTED_FROM:
            found = self._listed(keys)
        rest = [check_key(key) for key in keys if key not in found]
        if rest:
            with ThreadPoolExecutor(min(_ASKED_AT_ONCE, len(rest)), "heads") as pool:
                found |= zip(rest, pool.map(head, rest), strict=True)
        return [found[key] for key in keys]

    def objects(
        self, prefix: str, *, after: str = "", first: int = _PAGE
    ) -> Iterator[StoredObject]:
        """Every object whose key begins with ``prefix``.

        Args:
            prefix: The beginning.
            after: Those that come later alone.
            first: How many are asked for at first.
        """
        query = {"list-type": "2", "prefix": prefix}
        if after:
            query["start-after"] = after
        if first < _PAGE:
            query["max-keys"] = str(first)
        asked: set[str] = set()
        while True:
            answer = self._requests.ask("GET", "", query=query, what="list objects")
            root = xml.parse(answer.body, self._requests.name)
            for node in xml.nodes(root, "Contents"):
                yield StoredObject(
                    key=xml.text(node, "Key"),
                    size=number(xml.text(node, "Size"), self._requests.name),
                    etag=etag_of(xml.text(node, "ETag", default="")),
                    modified=_time(xml.text(node, "LastModified", default="")),
                )
            if xml.text(root, "IsTruncated", default="false") != "true":
                return
            further = xml.text(root, "NextContinuationToken")
            if further in asked:
                raise DataError(what=self._requests.name, why="its list of objects has no end")
            asked.add(further)
            query = {"list-type": "2", "prefix": prefix, "continuation-token": further}

    def _listed(self, keys: Sequence[str]) -> dict[str, StoredObject | None]:
        """What a list says of keys; all of them, or those that it came to in a few pages."""
        prefix = os.path.commonprefix(keys)  # noqa: RUF071 - they are names, and no paths
        now = time.monotonic()
        if self._long.get(prefix, now) > now:
            return {}
        wanted, found = set(keys), dict[str, StoredObject | None]()
        first, last = min(wanted), max(wanted)
        enough = _PAGE * (1 + len(keys) // _KEYS_PER_PAGE)
        # It begins right before the first: what is asked about together is often a stretch of it.
        listed = self.objects(prefix, after=first[:-1], first=len(wanted))
        for number, there in enumerate(listed, 1):
            if there.key in wanted:
                found[there.key] = there
                if len(found) == len(wanted):
                    return found
            elif there.key > last:
                # It is sorted as a rule; where it isn't, the rest is found one by one all the same.
                return found
            if number == enough:
                # Never changed, but replaced: other threads may be reading it.
                known = {p: end for p, end in self._long.items() if end > now}
                self._long = known | {prefix: now + _LONG_S}
                return found
        return dict.fromkeys(wanted) | found


def number(text: str, store: str) -> int:
    """A number that a store tells.

    Raises:
        DataError: It is none.
    """
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        raise DataError(what=store, why=f"{text[:40]!r} is no number")
    return int(text)


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
