from __future__ import annotations

import asyncio
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from sleap_rtc.domain import packages
from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.packages import BLOCK, PackageRef
from sleap_rtc.errors import (
    Busy,
    Damaged,
    DataError,
    DeadlineExceeded,
    LinkLost,
    NotFound,
    NotPermitted,
    OutOfSpace,
    SourceChanged,
)
from sleap_rtc.files import buffers
from sleap_rtc.files.buffers import Content
from sleap_rtc.files.packing import Packed
from sleap_rtc.files.partial import PartialStore
from sleap_rtc.files.staged import Staged
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.fetch import fetch
from sleap_rtc.transports.local import LocalSource
from sleap_rtc.transports.throttle import Throttle

from .places import MakePlace, Meddled, Place


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield path
    subprocess.run(["umount", str(path)], check=True)


NAMES = {
    "best.ckpt": 3 * BLOCK + 17,
    "empty": 0,
    "sub dir/Größe 鼠 \U0001f42d.yaml": 100,
    "deep/" * 100 + "x": 5,
    "n" * 255: 1,
    "exactly": 2 * BLOCK,
}


async def test_a_package_comes_whole(make_place: MakePlace) -> None:
    place = make_place(NAMES)
    source = Meddled(place.packed)
    place.check(await place.fetch(source))
    assert set(source.asked.values()) == {1}
    assert len(source.asked) == place.packed.package.block_count
    assert place.told[-1].phase == "done"
    assert place.told[-1].percent == 100.0
    assert {told.total for told in place.told} == {sum(NAMES.values())}
    source.close()


@pytest.mark.parametrize("sizes", [{"empty": 0}, {"a/empty": 0, "b": 0}])
async def test_empty_files_need_no_source_but_for_the_listing(
    make_place: MakePlace, sizes: dict[str, int]
) -> None:
    place = make_place(sizes)
    source = Meddled(place.packed)
    place.check(await place.fetch(source))
    assert not source.asked
    source.close()


async def test_what_is_on_this_machine_is_not_asked_for(
    make_place: MakePlace, tmp_path: Path
) -> None:
    held = tmp_path / "held"
    held.mkdir()
    place = make_place({"labels.slp": 3 * BLOCK + 5, "config.yaml": 70, "new.yaml": 80})
    (held / "other name").write_bytes((tmp_path / "source" / "labels.slp").read_bytes())
    (held / "damaged").write_bytes(bytes(70))
    source = Meddled(place.packed)
    place.check(await place.fetch(source, held=[held]))
    names = [entry.path for entry in place.packed.package.files]
    assert source.asked == {(names.index("config.yaml"), 0): 1, (names.index("new.yaml"), 0): 1}
    source.close()


async def test_what_another_fetch_has_so_far_is_not_asked_for(
    make_place: MakePlace, tmp_path: Path
) -> None:
    first = make_place({"labels.slp": 6 * BLOCK, "one.yaml": 70})

    async def stop(file: int, block: int) -> None:
        if source.asked.total() > 3:
            raise NotPermitted(message="No more.")

    source = Meddled(first.packed, stop)
    with pytest.raises(NotPermitted):
        await first.fetch(source, window=BLOCK)
    here = first.here
    assert here >= 2
    second = make_place({"labels.slp": 6 * BLOCK, "two.yaml": 71})
    other = Meddled(second.packed)
    staged = await second.fetch(other)
    assert other.asked.total() == 7 - here
    for name in ("labels.slp", "two.yaml"):
        assert (staged.path / name).read_bytes() == (tmp_path / "source" / name).read_bytes()
    staged.release()
    source.close()
    other.close()


class Sparse:
    """A source of one file that has content only at its beginning, in its middle and at its end."""

    name = "peer"

    def __init__(self, count: int) -> None:
        self.content = {n: random.Random(n).randbytes(BLOCK) for n in (0, count // 2, count - 1)}
        hashes = bytearray(blake3(bytes(BLOCK)).digest() * count)
        for number, data in self.content.items():
            hashes[number * 32 : number * 32 + 32] = blake3(data).digest()
        entry = packages.FileEntry(path="video.raw", size=count * BLOCK, hashes=bytes(hashes))
        self.package = packages.package([entry])
        self.asked: list[int] = []

    async def listing(self, ref: PackageRef) -> bytes:
        return packages.listing_of(self.package.files)

    async def block(self, package: PackageId, file: int, block: int, size: int) -> bytes:
        self.asked.append(block)
        return self.content.get(block, bytes(BLOCK))

    async def fetch(self, incoming: Path) -> Staged:
        ref = packages.ref(self.package)
        return await fetch(ref, sources=Sources(self), destination="there", incoming=incoming)


async def test_of_a_sparse_file_of_50_gib_only_content_travels_and_holes_stay(
    tmp_path: Path,
) -> None:
    source = Sparse(50 * 1024)
    with await source.fetch(tmp_path / "incoming") as staged:
        found = (staged.path / "video.raw").stat()
        assert (found.st_size, found.st_blocks * 512 < 8 * BLOCK) == (50 * 2**30, True)
        with (staged.path / "video.raw").open("rb") as file:
            for number, data in source.content.items():
                file.seek(number * BLOCK)
                assert file.read(BLOCK) == data
    assert sorted(source.asked) == sorted(source.content)


async def test_what_isnt_a_hole_any_more_is_noticed(tmp_path: Path) -> None:
    source = Sparse(20)
    with await source.fetch(tmp_path / "incoming") as staged:
        path = staged.path / "video.raw"
    with path.open("r+b") as file:
        file.seek(7 * BLOCK)
        file.write(b"not nothing")
    source.asked.clear()
    with await source.fetch(tmp_path / "incoming") as staged:
        assert path.read_bytes()[7 * BLOCK : 8 * BLOCK] == bytes(BLOCK)
    assert source.asked == [7]


async def test_copying_is_told_and_can_be_cancelled(
    make_place: MakePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place({"a": 20 * BLOCK})
    copy = PartialStore.copy
    here = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slowly(store: PartialStore, file: int, run: range, source: int) -> bool:
        if run.start == 2:
            loop.call_soon_threadsafe(here.set)
            time.sleep(0.3)
        return copy(store, file, run, source)

    monkeypatch.setattr(PartialStore, "copy", slowly)
    source = Meddled(place.packed)
    fetching = asyncio.create_task(place.fetch(source, held=[tmp_path / "source"]))
    await here.wait()
    await place.until("copying")
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert 1 <= place.here < 20
    assert not source.asked
    place.check(await place.fetch(source, held=[tmp_path / "source"]))
    assert not source.asked
    source.close()


async def test_several_sources_share(make_place: MakePlace) -> None:
    place = make_place({"a": 30 * BLOCK})
    sources = [Meddled(place.packed, name=str(n)) for n in range(3)]
    place.check(await place.fetch(*sources, window=2 * BLOCK))
    asked = sum((source.asked for source in sources), Counter())
    assert set(asked) == {(0, block) for block in range(30)}
    assert asked.total() <= 30 + 2 * len(sources)  # at the end some are asked of two
    assert all(len(source.asked) >= 2 for source in sources)
    for source in sources:
        source.close()


async def test_a_slow_source_doesnt_hold_up_the_end(make_place: MakePlace) -> None:
    place = make_place({"a": 12 * BLOCK})
    never, enough = asyncio.Event(), asyncio.Event()
    given_up: list[int] = []

    async def get_stuck(file: int, block: int) -> None:
        if slow.asked.total() > 2:
            if slow.asked.total() == 5:
                enough.set()
            try:
                await never.wait()
            except asyncio.CancelledError:
                given_up.append(block)
                raise

    async def begin_later(file: int, block: int) -> None:
        await enough.wait()

    slow = Meddled(place.packed, get_stuck, name="slow")
    quick = Meddled(place.packed, begin_later)
    place.check(await place.fetch(slow, quick, window=4 * BLOCK))
    # What the slow one owes is taken from it as soon as it came from the other one.
    assert sorted(given_up) == sorted(block for _, block in slow.asked)[-len(given_up) :]
    assert len(given_up) >= 3
    assert max(quick.asked.values()) == 1
    slow.close()
    quick.close()


async def test_a_changed_file_comes_from_who_has_the_right_one(
    make_place: MakePlace, tmp_path: Path
) -> None:
    place = make_place({"labels.slp": 6 * BLOCK})

    async def change(file: int, block: int) -> None:
        raise SourceChanged(path="labels.slp")

    changed, right = Meddled(place.packed, change), Meddled(place.packed)
    place.check(await place.fetch(changed, right, window=2 * BLOCK))
    assert {block for _, block in right.asked} == set(range(6))
    changed.close()
    right.close()


async def test_a_corrupt_block_comes_from_another_source(make_place: MakePlace) -> None:
    place = make_place({"a": 8 * BLOCK})

    async def lie(file: int, block: int) -> bytes:
        return b"\x00" * BLOCK

    liar, honest = Meddled(place.packed, lie), Meddled(place.packed)
    place.check(await place.fetch(liar, honest, window=3 * BLOCK))
    assert set(liar.asked.values()) == {1}
    assert set(honest.asked) == {(0, block) for block in range(8)}
    assert set(honest.asked.values()) == {1}
    liar.close()
    honest.close()


async def test_a_block_corrupted_once_is_fetched_again_alone(make_place: MakePlace) -> None:
    place = make_place({"a": 5 * BLOCK})

    async def flip(file: int, block: int) -> bytes | None:
        return b"short" if block == 2 and source.asked[file, block] < 3 else None

    source = Meddled(place.packed, flip)
    place.check(await place.fetch(source))
    assert source.asked == {(0, block): 3 if block == 2 else 1 for block in range(5)}
    source.close()


async def test_a_block_that_stays_corrupt_is_named(make_place: MakePlace) -> None:
    place = make_place({"a": BLOCK, "models/best.ckpt": 4 * BLOCK})

    async def lie(file: int, block: int) -> bytes | None:
        return b"\x00" * BLOCK if (file, block) == (1, 2) else None

    source = Meddled(place.packed, lie)
    with pytest.raises(Damaged, match=r"models/best\.ckpt is damaged: block 3 of 4 .* 3 times"):
        await place.fetch(source)
    assert source.asked[1, 2] == 3
    again = Meddled(place.packed)
    place.check(await place.fetch(again))
    assert again.listings == 0
    assert (1, 2) in again.asked
    assert (0, 0) not in again.asked or source.asked[0, 0] == 0
    source.close()
    again.close()


async def test_a_file_that_changes_meanwhile_ends_it(make_place: MakePlace, tmp_path: Path) -> None:
    place = make_place({"labels.slp": 6 * BLOCK})

    async def meddle(file: int, block: int) -> None:
        if block == 4:
            with (tmp_path / "source" / "labels.slp").open("r+b") as changed:
                changed.write(b"a new beginning")

    source = Meddled(place.packed, meddle)
    with pytest.raises(SourceChanged, match=r"labels\.slp changed"):
        await place.fetch(source, window=BLOCK)
    assert place.here == 4
    source.close()


async def test_a_lost_source_is_replaced(make_place: MakePlace) -> None:
    place = make_place({"a": 10 * BLOCK})
    lost = asyncio.Event()

    async def lose(file: int, block: int) -> None:
        if block >= 4:
            lost.set()
            raise LinkLost(peer="worker", why="the cable is out")

    first, second = Meddled(place.packed, lose), Meddled(place.packed)
    sources = Sources(first)
    fetching = asyncio.create_task(place.fetch(live=sources, window=3 * BLOCK))
    await lost.wait()
    await place.until("waiting")
    assert not fetching.done()
    asked = first.asked.total()
    sources.add(second)
    place.check(await fetching)
    assert first.asked.total() == asked
    assert {block for _, block in second.asked} >= set(range(4, 10))
    assert set(second.asked.values()) == {1}
    first.close()
    second.close()


async def test_a_removed_source_is_asked_no_more(make_place: MakePlace) -> None:
    place = make_place({"a": 10 * BLOCK})
    stuck = asyncio.Event()
    cancelled: list[int] = []

    async def hang(file: int, block: int) -> None:
        stuck.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(block)
            raise

    silent, other = Meddled(place.packed, hang), Meddled(place.packed)
    sources = Sources(silent)
    fetching = asyncio.create_task(place.fetch(live=sources, window=3 * BLOCK))
    await stuck.wait()
    sources.add(other)
    sources.remove(silent)
    place.check(await fetching)
    assert sorted(cancelled) == [0, 1, 2]
    silent.close()
    other.close()


async def test_a_source_that_comes_back_is_used_again(make_place: MakePlace) -> None:
    place = make_place({"a": 4 * BLOCK})
    lost = asyncio.Event()

    async def lose(file: int, block: int) -> None:
        if not lost.is_set():
            lost.set()
            raise DeadlineExceeded(what="A block", seconds=30)

    source = Meddled(place.packed, lose)
    sources = Sources(source)
    fetching = asyncio.create_task(place.fetch(live=sources, window=BLOCK))
    await lost.wait()
    sources.remove(source)
    sources.add(source)
    place.check(await fetching)
    source.close()


async def test_patience_ends(make_place: MakePlace) -> None:
    place = make_place({"a": 2 * BLOCK})
    with pytest.raises(LinkLost, match=r"none for 0\.01 s"):
        await place.fetch(patience=0.01)

    async def lose(file: int, block: int) -> None:
        raise LinkLost(peer="worker", why="gone")

    source = Meddled(place.packed, lose)
    with pytest.raises(LinkLost, match=r"none for 0\.01 s"):
        await place.fetch(source, patience=0.01)
    source.close()


async def test_what_the_last_source_says_is_raised(make_place: MakePlace) -> None:
    place = make_place({"a": 2 * BLOCK})

    async def refuse(file: int, block: int) -> None:
        raise NotPermitted(message="This package is not for you.")

    first, second = Meddled(place.packed, refuse), Meddled(place.packed, refuse)
    with pytest.raises(NotPermitted, match="not for you"):
        await place.fetch(first, second)
    third = Meddled(place.packed)
    place.check(await place.fetch(first, third))
    for source in (first, second, third):
        source.close()


async def test_a_fault_in_a_source_is_not_swallowed(make_place: MakePlace) -> None:
    place = make_place({"a": 2 * BLOCK})

    async def fail(file: int, block: int) -> None:
        raise ZeroDivisionError

    source = Meddled(place.packed, fail)
    with pytest.raises(ZeroDivisionError):
        await place.fetch(source)
    source.close()


class Lister(Meddled):
    """A source with a listing of its own making."""

    def __init__(self, packed: Packed, listing: bytes | Exception) -> None:
        super().__init__(packed)
        self._listing = listing
        self.heard = asyncio.Event()

    async def listing(self, ref: PackageRef) -> bytes:
        self.heard.set()
        if isinstance(self._listing, Exception):
            raise self._listing
        return self._listing


async def test_a_listing_is_taken_from_whoever_has_the_right_one(make_place: MakePlace) -> None:
    place = make_place({"a": BLOCK})
    wrong = [
        Lister(place.packed, b"SRPK nonsense"),
        Lister(place.packed, bytes(place.ref.listing)),
        Lister(place.packed, LinkLost(peer="worker", why="gone")),
        Lister(place.packed, NotFound(message="not here")),
    ]
    for source in wrong[:2]:
        with pytest.raises(DataError, match="package listing"):
            await place.fetch(source)
    with pytest.raises(NotFound, match="not here"):
        await place.fetch(*wrong[2:])
    wrong.append(Lister(place.packed, LinkLost(peer="worker", why="gone")))
    sources = Sources(wrong[-1])
    fetching = asyncio.create_task(place.fetch(live=sources))
    await wrong[-1].heard.wait()
    right = Meddled(place.packed)
    sources.add(right)
    place.check(await fetching)
    assert right.listings == 1
    for source in [*wrong, right]:
        source.close()


async def test_a_package_must_be_as_large_as_was_said(make_place: MakePlace) -> None:
    place = make_place({"a": BLOCK})
    place.ref = PackageRef(
        id=place.ref.id, size=place.ref.size + 1, files=1, listing=place.ref.listing
    )
    source = Meddled(place.packed)
    with pytest.raises(DataError, match="not as large as was said"):
        await place.fetch(source)
    source.close()


async def test_cancelled_at_any_step_it_can_be_taken_up(make_place: MakePlace) -> None:
    place = make_place({"a": 6 * BLOCK, "b": 3})
    steps = 0
    for delay in range(100):
        source = Meddled(place.packed)
        fetching = asyncio.create_task(place.fetch(source, window=2 * BLOCK))
        for _ in range(delay * 2):
            await asyncio.sleep(0.0005)
            if fetching.done():
                break
        fetching.cancel()
        try:
            staged = await fetching
        except asyncio.CancelledError:
            steps += 1
            source.close()
            continue
        source.close()
        place.check(staged)
        break
    else:
        pytest.fail("it was always cancelled before it ended")
    assert steps > 1


async def test_two_for_the_same_place_exclude_each_other(make_place: MakePlace) -> None:
    place = make_place({"a": BLOCK})
    source = LocalSource(place.packed)
    staged = await place.fetch(source)
    with pytest.raises(Busy, match=str(os.getpid())):
        await place.fetch(source)
    place.check(staged)
    source.close()


def a_moment_later(path: Path) -> None:
    """Have a file changed later than at the last write: some systems' clocks have long steps."""
    later = time.time_ns() + 10**9
    os.utime(path, ns=(later, later))


async def test_what_the_disk_took_wrongly_is_fetched_again(
    make_place: MakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place({"a": 4 * BLOCK})
    write_at = buffers.write_at
    spoilt = False

    def spoil(fd: int, data: Content, offset: int) -> None:
        nonlocal spoilt
        wrong = offset == BLOCK and not spoilt
        spoilt |= wrong
        write_at(fd, bytes(BLOCK - 1) + b"x" if wrong else data, offset)

    monkeypatch.setattr(buffers, "write_at", spoil)
    source = Meddled(place.packed)
    place.check(await place.fetch(source))
    assert source.asked == {(0, block): 2 if block == 1 else 1 for block in range(4)}
    source.close()


def once_before_the_check(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], object]) -> None:
    """Spoil the file ``a`` behind the transfer's back, when all of it has come."""
    spoilt = False
    verify = PartialStore.verify

    def spoilt_first(store: PartialStore, **options: object) -> list[int]:
        nonlocal spoilt
        if not spoilt:
            spoilt = True
            spoil(store._path / "a")
            a_moment_later(store._path / "a")
        return verify(store, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(PartialStore, "verify", spoilt_first)


async def test_rot_on_the_disk_is_fetched_again(
    make_place: MakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rot(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(2 * BLOCK)
            file.write(b"rot")

    place = make_place({"a": 4 * BLOCK})
    once_before_the_check(monkeypatch, rot)
    source = Meddled(place.packed)
    place.check(await place.fetch(source))
    assert source.asked == {(0, block): 2 if block == 2 else 1 for block in range(4)}
    source.close()


async def test_what_moves_to_another_connection_at_once_is_asked_for_once(
    make_place: MakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place({"a": 6 * BLOCK})
    once_before_the_check(monkeypatch, lambda path: path.write_bytes(bytes(6 * BLOCK)))
    # Both have nothing to do, and one of them could be asked for everything.
    first, second = Meddled(place.packed), Meddled(place.packed)
    place.check(await place.fetch(first, second))
    assert second.asked
    assert first.asked + second.asked == {(0, block): 2 for block in range(6)}
    first.close()
    second.close()


async def test_no_room(make_place: Callable[..., Place], small_disk: Path) -> None:
    place = make_place({"a": 9 * BLOCK}, root=small_disk)
    source = Meddled(place.packed)
    with pytest.raises(OutOfSpace, match=r"9\.4 MB are needed"):
        await place.fetch(source)
    assert not source.asked
    source.close()


async def test_room_that_runs_out_in_the_middle(
    make_place: Callable[..., Place], small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sparse(fd: int, size: int) -> None:  # as on a file system that can't reserve
        os.ftruncate(fd, size)

    monkeypatch.setattr("sleap_rtc.files.reservation.reserve", sparse)
    place = make_place({"a": 6 * BLOCK}, root=small_disk)
    filler = small_disk / "filler"

    async def take_room(file: int, block: int) -> None:
        if not filler.exists():
            filler.write_bytes(bytes(4 * BLOCK))

    source = Meddled(place.packed, take_room)
    with pytest.raises(OutOfSpace):
        await place.fetch(source, window=BLOCK)
    here = place.here
    assert 2 <= here < 6
    filler.unlink()
    again = Meddled(place.packed)
    staged = await place.fetch(again)
    assert again.asked.total() == 6 - here
    assert (staged.path / "a").read_bytes() == (place.root.parent / "source" / "a").read_bytes()
    staged.release()
    source.close()
    again.close()


async def test_the_rate_is_shared(make_place: MakePlace) -> None:
    place = make_place({"a": 4 * BLOCK})
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now = max(now, now + seconds)
        await asyncio.sleep(0)

    throttle = Throttle(BLOCK, clock=lambda: now, sleep=sleep)
    sources = [Meddled(place.packed, name=str(n)) for n in range(2)]
    place.check(await place.fetch(*sources, window=BLOCK, throttle=throttle))
    assert now >= 3.7
    for source in sources:
        source.close()
