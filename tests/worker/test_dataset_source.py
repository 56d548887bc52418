"""A job's files as one source: small ones together, wherever each of them is, and peers that go."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.packages import BLOCK, PackageRef, listing_of, ref
from sleap_rtc.errors import LinkLost, NotFound, StorageUnreachable
from sleap_rtc.files.buffers import Content
from sleap_rtc.files.packing import Packed, pack
from sleap_rtc.jobs.datasets import Dataset, NamedFile, linked, shared, stored
from sleap_rtc.storage.cache import FileCache
from sleap_rtc.storage.objects import SignedRequest
from sleap_rtc.testing.store_endpoint import StoreEndpoint
from sleap_rtc.transfer.choice import Kind
from sleap_rtc.transports.base import Manner, Sources
from sleap_rtc.transports.fetch import fetch
from sleap_rtc.transports.local import LocalSource
from sleap_rtc.transports.stored import AT_ONCE, manner
from sleap_rtc.worker.dataset_source import DatasetSource, Places
from sleap_rtc.worker.shared import SharedFolders

COUNT = 3 * AT_ONCE


class Peer(LocalSource):
    """One that offers the package, and goes when it is told to."""

    at_once = AT_ONCE

    def __init__(self, packed: Packed, *, name: str = "laptop") -> None:
        super().__init__(packed, name=name)
        self.questions: list[int] = []
        self.goes_after = COUNT

    async def listing(self, ref: PackageRef) -> bytes:
        self._go_on()
        return await super().listing(ref)

    async def block(self, package: PackageId, file: int, block: int, size: int) -> bytes:
        self._go_on()
        self.questions.append(1)
        return await super().block(package, file, block, size)

    async def several(
        self, package: PackageId, blocks: Sequence[tuple[int, int]], sizes: Sequence[int]
    ) -> tuple[bytes, Kind]:
        self._go_on()
        self.questions.append(len(blocks))
        found = [
            await LocalSource.block(self, package, file, block, size)
            for (file, block), size in zip(blocks, sizes, strict=True)
        ]
        return b"".join(found), "webrtc"

    def _go_on(self) -> None:
        if len(self.questions) >= self.goes_after:
            raise LinkLost(peer=self.name, why="it closed its lid")


class Old(LocalSource):
    """One that knows no questions for several."""


class Lab:
    """Files in storage and on this machine, many small ones as a rule, and who offers them."""

    can = True

    def __init__(
        self, root: Path, endpoint: StoreEndpoint, contents: dict[str, bytes] | None = None
    ) -> None:
        self.root, self.endpoint = root, endpoint
        small = {f"{n:03}": f"file {n} ".encode() * (n % 7 + 1) for n in range(COUNT)}
        self.contents = contents or small
        (root / "shared").mkdir()
        for name, data in self.contents.items():
            (root / "shared" / name).write_bytes(data)
        self.packed = pack({name: root / "shared" / name for name in self.contents})
        self.ref = ref(self.packed.package)
        self.peers = Sources()
        self.cache = FileCache(root / "cache", limit=10**9)

    def put(self, *, without: int = -1) -> None:
        for number, (name, data) in enumerate(self.contents.items()):
            if number != without:
                self.endpoint.store.create(self.key(self.packed.file_hashes[name]), data)
        self.endpoint.store.create(self.key(self.ref.id), listing_of(self.packed.package.files))

    def datasets(self, *ways: Kind) -> list[Dataset]:
        """The files, one after the other by each of these ways."""
        made = {"s3": lambda f: stored(f, self.key(f.checksum)), "local": shared, "webrtc": linked}
        files = (
            NamedFile(
                name=entry.path,
                size=entry.size,
                checksum=self.packed.file_hashes[entry.path],
                place=str(self.root / "shared" / entry.path),
            )
            for entry in self.packed.package.files
        )
        return [made[ways[n % len(ways)]](file) for n, file in enumerate(files)]

    def source(self, *ways: Kind) -> DatasetSource:
        places = Places(
            storage=self,  # type: ignore[arg-type]
            folders=SharedFolders([self.root / "shared"]),
            cache=self.cache,
            cache_size=10**9,
        )
        return DatasetSource(self.ref, self.datasets(*ways), places=places, peers=self.peers)

    async def bring(self, *ways: Kind) -> None:
        source = self.source(*ways)
        sources = Sources()
        sources.add(source, manner(self.ref.size) if source.stores else Manner())
        try:
            staged = await fetch(
                self.ref,
                sources=sources,
                destination="there",
                incoming=self.root / "incoming",
                patience=0.01,
            )
        except LinkLost as error:
            raise (source.failure or error) from None
        finally:
            await source.close()
        with staged:
            found = {path.name: path.read_bytes() for path in staged.path.iterdir()}
            assert found == self.contents
            staged.discard()

    # ── the room's storage ──

    def open(self) -> Lab:
        return self

    def close(self) -> None:
        """There is nothing to close."""

    def key(self, blake3: str) -> str:
        return f"uploads/r/{blake3}"

    def download_requests(self, keys: Sequence[str]) -> list[SignedRequest]:
        return self.endpoint.store.download_requests(keys)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with StoreEndpoint(tmp_path / "store") as endpoint:
        yield Lab(tmp_path, endpoint)


async def test_small_files_of_storage_are_asked_for_together(lab: Lab) -> None:
    lab.put()
    await lab.bring("s3")
    assert len(lab.endpoint.requests) == COUNT + 1


async def test_small_files_of_everywhere(lab: Lab) -> None:
    lab.put()
    peer = Peer(lab.packed)
    lab.peers.add(peer)
    await lab.bring("s3", "local", "webrtc")
    assert sum(peer.questions) == COUNT // 3
    peer.close()


async def test_large_files_are_poured_from_storage_and_from_what_is_kept(tmp_path: Path) -> None:
    contents = {"a": os.urandom(5 * BLOCK), "b": os.urandom(3 * BLOCK + 7), "c": b"small"}
    with StoreEndpoint(tmp_path / "store") as endpoint:
        lab = Lab(tmp_path, endpoint, contents)
        lab.put()
        await lab.bring("s3")
        assert len(endpoint.requests) == 4  # with the listing
        digest = lab.packed.file_hashes["a"]
        with lab.cache.use(digest, 5 * BLOCK, lambda to, _: to.write_bytes(contents["a"]) and None):
            await lab.bring("s3")
        assert len(endpoint.requests) == 7
        with contextlib.closing(Peer(lab.packed)) as peer:
            lab.peers.add(peer)
            await lab.bring("s3", "webrtc", "local")
            assert sum(peer.questions) == 4
        assert len(endpoint.requests) == 8


async def test_a_disk_that_goes_while_it_is_poured_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(3 * BLOCK)
    with StoreEndpoint(tmp_path / "store") as endpoint:
        lab = Lab(tmp_path, endpoint, {"a": data})
        digest = lab.packed.file_hashes["a"]
        with lab.cache.use(digest, len(data), lambda to, _: to.write_bytes(data) and None):
            source = lab.source("s3")
            kept: list[int] = []

            def keep(number: int, _content: Content) -> bool:
                kept.append(number)
                return number < 1

            await source.pour(lab.ref.id, 0, 0, [BLOCK] * 3, keep)
            assert kept == [0, 1]

            def gone(*_: object) -> bytes:
                raise OSError(116, "Stale file handle")

            monkeypatch.setattr("sleap_rtc.worker.dataset_source.os.pread", gone)
            with pytest.raises(StorageUnreachable, match="Stale file handle"):
                await source.pour(lab.ref.id, 0, 0, [BLOCK] * 3, keep)
            assert isinstance(source.failure, StorageUnreachable)
            await source.close()


async def test_a_peers_blocks_are_asked_for_together_if_it_knows_that(lab: Lab) -> None:
    with contextlib.closing(Peer(lab.packed)) as peer:
        lab.peers.add(peer)
        await lab.bring("webrtc")
        assert sum(peer.questions) == COUNT
        assert max(peer.questions) > AT_ONCE // 2
        lab.peers.remove(peer)
    with contextlib.closing(Old(lab.packed)) as old:
        lab.peers.add(old)
        await lab.bring("webrtc")
        lab.peers.remove(old)


async def test_a_connection_that_goes_is_replaced_by_another_without_a_word(lab: Lab) -> None:
    first, second = Peer(lab.packed), Peer(lab.packed)
    first.goes_after = 1
    for peer in (first, second):
        lab.peers.add(peer)
    source = lab.source("webrtc")
    asked = [((file, 0) for file in range(at, at + 4)) for at in range(0, 40, 4)]
    for places in asked:
        blocks = [*places]
        sizes = [lab.packed.package.files[file].size for file, _ in blocks]
        found, way = await source.several(lab.ref.id, blocks, sizes)
        names = [lab.packed.package.files[file].path for file, _ in blocks]
        assert (bytes(found), way) == (b"".join(lab.contents[n] for n in names), "webrtc")
    assert source.failure is None
    assert len(first.questions) == 1
    assert await source.listing(lab.ref) == listing_of(lab.packed.package.files)
    await source.close()
    for peer in (first, second):
        peer.close()


async def test_with_none_left_it_says_why(lab: Lab) -> None:
    with contextlib.closing(Peer(lab.packed)) as peer:
        peer.goes_after = 2
        lab.peers.add(peer)
        with pytest.raises(LinkLost, match=r"whoever submitted the job.*it closed its lid"):
            await lab.bring("webrtc")
        lab.peers.remove(peer)
    with pytest.raises(LinkLost, match=r"whoever submitted the job.*it is away"):
        await lab.bring("webrtc")


async def test_one_of_many_that_isnt_in_storage(lab: Lab) -> None:
    lab.put(without=7)
    with pytest.raises(NotFound, match="There is no content"):
        await lab.bring("s3")


async def test_a_disk_that_goes_while_small_files_are_read(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = lab.source("local")
    assert await source.block(lab.ref.id, 0, 0, 7) == lab.contents["000"][:7]

    def gone(*_: object) -> bytes:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr("sleap_rtc.worker.dataset_source.os.pread", gone)
    with pytest.raises(StorageUnreachable, match="Stale file handle"):
        await source.several(lab.ref.id, [(0, 0), (1, 0)], [7, 14])
    assert isinstance(source.failure, StorageUnreachable)
    await source.close()
