"""A client's link to a worker on real connections, and a package to move over it."""

from __future__ import annotations

import asyncio
import random

import pytest
from blake3 import blake3

from sleap_rtc.domain.packages import BLOCK, FileEntry, listing_of, package, ref
from sleap_rtc.domain.places import WorkerInfo
from sleap_rtc.errors import (
    NotFound,
    SourceChanged,
    UnknownModel,
)
from sleap_rtc.protocol.link import (
    Accepted,
    Describe,
    Description,
    FindModel,
    ListJobs,
)
from sleap_rtc.transports.link import Link

ANY_PAIR = pytest.mark.parametrize(
    "shells",
    [("fast", "fast"), ("fast", "portable"), ("portable", "fast"), ("portable", "portable")],
    ids="-".join,
    indirect=True,
)
"""The libraries of both sides. What connections do is in test_peer.py for all of them; links are
tested over the fast one, and once more over the others where timing or much content counts."""
PORTABLE = pytest.mark.parametrize(
    "shells", [("fast", "portable"), ("portable", "fast")], ids="-".join, indirect=True
)


class MadeFile:
    """A package of one file whose content is computed."""

    def __init__(self, size: int) -> None:
        self.content = random.Random(7).randbytes(size)
        hashes = b"".join(
            blake3(self.content[at : at + BLOCK]).digest() for at in range(0, size, BLOCK)
        )
        self.package = package([FileEntry(path="data.bin", size=size, hashes=hashes)])
        self.ref = ref(self.package)
        self.broken: set[int] = set()

    @property
    def listing(self) -> bytes:
        return listing_of(self.package.files)

    def read(self, file: int, block: int) -> bytes:
        if file or block >= self.package.files[0].block_count:
            raise NotFound(message="There is no such block.")
        if block in self.broken:
            raise SourceChanged(path="data.bin")
        return self.content[block * BLOCK : (block + 1) * BLOCK]


async def answers(_channel, body, _request):
    if isinstance(body, Describe):
        return Description(worker=WorkerInfo(version="1", models=3))
    if isinstance(body, ListJobs):
        await asyncio.Event().wait()
    if isinstance(body, FindModel):
        raise UnknownModel(name=body.name)
    return Accepted()


class Pair:
    """A client's link to a worker, both ready."""

    def __init__(self, rig):
        self.client = rig.add("client")
        self.worker = rig.add("worker", accepts=True)
        self.worker.handler = answers
        self.rig = rig
        self.states = []
        self.sources = asyncio.Queue()

    def link(self, **options):
        return Link(
            self.client.switchboard,
            room=self.rig.room,
            locate=lambda: self.worker.presence,
            name="worker",
            on_state=self.states.append,
            on_blocks=lambda source, up: self.sources.put_nowait(source) if up else None,
            **options,
        )

    async def serve(self, made):
        self.worker.shelf = {made.ref.id: made}.get


async def fetch(source, made, *, at_once=8):
    """Fetch every block, as a transfer would, and compare."""
    assert await source.listing(made.ref) == made.listing
    entry = made.package.files[0]
    window = asyncio.Semaphore(at_once)

    async def one(index):
        async with window:
            return await source.block(made.ref.id, 0, index, entry.block_size(index))

    blocks = await asyncio.gather(*(one(i) for i in range(entry.block_count)))
    assert b"".join(blocks) == made.content
