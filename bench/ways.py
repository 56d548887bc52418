"""The rows of the transfer's table: each is one way to move a file, or a folder of files.

==============  =======================================================================
group           rows
==============  =======================================================================
``peer``        ours over WebRTC, over a direct connection and on one machine, and what
                each of them is measured by; magic-wormhole, aiortc
``copy``        cp, scp, rsync: for whoever can log in at the other side
``up``          to an S3 store: our uploader, s5cmd, rclone, aws, boto3, obstore
``down``        from it: our downloader and the same
==============  =======================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from bench import copying, stores
from bench.copying import Load
from bench.pairs import run_pair
from bench.processes import figures, used_of
from bench.stores import CLIENTS, Store

AIORTC_PART: Final = 32
"""aiortc sends this part of the file: it is that much slower, and its speed doesn't change."""

Run = Callable[[Load, Store | None], dict[str, float]]


class Row(msgspec.Struct, frozen=True):
    """One way.

    Attributes:
        name: As the table has it.
        group: See above.
        run: Moves something, and tells what it took.
        needs: The environment that it runs in; empty for this one.
        large: Whether the large file is moved so too.
        small: Whether a folder of small files can be.
    """

    name: str
    group: str
    run: Run
    needs: str = ""
    large: bool = False
    small: bool = True

    @property
    def stores(self) -> bool:
        """Whether it needs a store."""
        return self.group in ("up", "down")


def _pair(kind: str, part: int = 1, **more: Any) -> Run:
    def run(load: Load, _: Store | None) -> dict[str, float]:
        size = load.size // part
        options = {"size": size, "file": str(load.path), "into": str(load.into), **more}
        used = run_pair(kind, **options)
        return figures(
            size,
            used["receiver"]["wall_s"],
            sender=used_of(used["sender"]),
            receiver=used_of(used["receiver"]),
        )

    return run


def _copy(copy: Callable[[Load], dict[str, float]]) -> Run:
    return lambda load, _: copy(load)


def _stored(move: Callable[[Store, str, Load], dict[str, float]], client: str) -> Run:
    def run(load: Load, store: Store | None) -> dict[str, float]:
        if store is None:
            raise ValueError("it needs a store")
        return move(store, client, load)

    return run


WEBRTC: Final = "ours"
DIRECT: Final = "ours, direct"
LOCAL: Final = "ours, one machine"
BARE: Final = "bare, hashes and writes"
TLS: Final = "TLS, hashes and writes"
UP: Final = "upload, ours"
DOWN: Final = "download, ours"

ROWS: Final = (
    Row(WEBRTC, "peer", _pair("ours"), large=True),
    Row("bare", "peer", _pair("bare", files=False), small=False),
    Row(BARE, "peer", _pair("bare", files=True), small=False),
    Row("aiortc", "peer", _pair("aiortc", AIORTC_PART), small=False),
    Row(DIRECT, "peer", _pair("ours", transport="direct"), large=True),
    Row(TLS, "peer", _pair("tls"), small=False),
    Row("TCP", "peer", _pair("tcp"), small=False),
    Row("magic-wormhole", "peer", _copy(copying.wormhole), needs="wormhole"),
    Row(LOCAL, "peer", _pair("ours", transport="local"), large=True),
    Row("cp", "copy", _copy(copying.cp)),
    Row("scp", "copy", _copy(copying.scp)),
    Row("rsync over ssh", "copy", _copy(copying.rsync_ssh)),
    Row("rsync daemon", "copy", _copy(copying.rsync_daemon)),
    *(
        Row(
            f"upload, {client}",
            "up",
            _stored(stores.upload, client),
            needs="" if client == "ours" else client,
            large=client == "ours",
        )
        for client in CLIENTS
    ),
    *(
        Row(
            f"download, {client}",
            "down",
            _stored(stores.download, client),
            needs="" if client == "ours" else client,
            large=client == "ours",
        )
        for client in CLIENTS
    ),
)
GROUPS: Final = tuple(dict.fromkeys(row.group for row in ROWS))


def chosen(words: Iterable[str]) -> list[Row]:
    """The rows that are meant.

    Args:
        words: Groups, rows' names, or parts of these; none is all.

    Raises:
        ValueError: A word means nothing.
    """
    rows: list[Row] = []
    for word in words:
        found = [row for row in ROWS if word in (row.group, row.name)] or [
            row for row in ROWS if word.lower() in row.name.lower()
        ]
        if not found:
            raise ValueError(f"no row is called {word!r}, and no group: {', '.join(GROUPS)}")
        rows += found
    wanted = set(map(id, rows))
    if any(row.group == "down" for row in rows):  # what is fetched was sent by ours
        wanted |= {id(row) for row in ROWS if row.name == UP}
    return [row for row in ROWS if not words or id(row) in wanted]
