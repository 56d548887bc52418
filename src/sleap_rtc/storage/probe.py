"""Asking a store, before anything depends on it, whether it keeps what a room needs.

A room's manifest rests on *create if absent* alone: of several writers exactly one
may make an object. Some stores answer yes to all of them (they ignore the
condition) or to several (they look, then write). That shows in a race, and such a
store is refused; whatever else it can't do is told, and does no harm, as contents
are checked by whoever reads them.
"""

from __future__ import annotations

import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from sleap_rtc.errors import SleapRtcError, UnsafeStorage
from sleap_rtc.storage.checksums import checksum_of
from sleap_rtc.storage.objects import MIN_PART, ObjectStore, Part
from sleap_rtc.storage.pinning import PREFIX
from sleap_rtc.storage.wire import Connections

RACERS: Final = 16
ROUNDS: Final = 2


class Findings(msgspec.Struct, frozen=True):
    """What a store that isn't refused does and doesn't.

    Attributes:
        pins_content: A link for a part is refused for bytes with another checksum. Otherwise a
            member could store other bytes than announced; readers would find them damaged.
        pins_ranges: A range is refused when the object was replaced. Otherwise a download of a
            replaced object would be found damaged at its end.
    """

    pins_content: bool
    pins_ranges: bool


def probe(store: ObjectStore, *, racers: int = RACERS, rounds: int = ROUNDS) -> Findings:
    """Try what a room needs of a store.

    Args:
        store: Its links must be reachable from here.
        racers: That create the same object at once.
        rounds: Of such races.

    Raises:
        UnsafeStorage: Concurrent changes could be lost in it.
        StorageUnreachable: It doesn't answer.
        StorageRefused: It says no.
    """
    mark = f"{PREFIX}{secrets.token_hex(8)}"
    connections = Connections()
    try:
        for number in range(rounds):
            _race(store, f"{mark}/{number}", racers)
        return Findings(
            pins_content=_pins_content(store, f"{mark}/part", connections),
            pins_ranges=_pins_ranges(store, f"{mark}/range", connections),
        )
    finally:
        connections.close()
        for found in list(store.keys(f"{mark}/")):
            store.delete(found.key)


def _race(store: ObjectStore, key: str, racers: int) -> None:
    start = threading.Barrier(racers)

    def run(number: int) -> bool:
        start.wait()
        return store.create(key, str(number).encode())

    with ThreadPoolExecutor(racers, thread_name_prefix="probe") as pool:
        won = [number for number, first in enumerate(pool.map(run, range(racers))) if first]
    kept = store.read(key, limit=100)
    why = ""
    if len(won) > 1:
        why = f"{len(won)} of {racers} writers were told that they made the same object"
    elif not won:
        why = f"none of {racers} writers was told that it made an object"
    elif kept != str(won[0]).encode():
        why = "what one writer made was overwritten by another"
    elif store.create(key, b"late") or store.read(key, limit=100) != kept:
        why = "it overwrites an object that is there, although it is told not to"
    if why:
        raise UnsafeStorage(store=store.name, why=why)


def _pins_content(store: ObjectStore, key: str, connections: Connections) -> bool:
    upload = store.begin(key, size=1, part_size=MIN_PART)
    try:
        part = Part.of(upload, 1, checksum_of(upload.checksum, b"a"))
        (request,) = store.part_requests(upload, [part])
        return not connections.send(request, b"b").ok
    finally:
        store.abort(upload)


def _pins_ranges(store: ObjectStore, key: str, connections: Connections) -> bool:
    store.create(key, b"0123456789")
    headers = {"range": "bytes=2-4", "if-match": '"another"'}
    try:
        answer = connections.send(store.download_request(key), headers=headers)
    except SleapRtcError:
        return False
    return answer.status == 412
