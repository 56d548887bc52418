from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.files import holdings
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.holdings import candidates
from sleap_rtc.files.packing import Packed, pack

from .conftest import MakePacked

SIZES = {"big": 2 * BLOCK + 3, "other": 2 * BLOCK + 3, "small": 9, "empty": 0}


def copy(packed: Packed, name: str, to: Path) -> Path:
    assert packed.root is not None
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes((packed.root / name).read_bytes())
    return to


def found(packed: Packed, folders: list[Path], **more: object) -> list[tuple[str, str]]:
    """Name of the wanted file, and of the candidate."""
    files = packed.package.files
    lacking = set(range(len(files)))
    names = {path.stat().st_ino: path.name for top in folders for path in top.rglob("*")}
    return sorted(
        (files[file].path, names[os.fstat(fd).st_ino])
        for file, fd in candidates(packed.package, lacking, folders, **more)  # type: ignore[arg-type]
    )


def test_content_is_found_under_another_name_at_any_depth(
    make_packed: MakePacked, tmp_path: Path
) -> None:
    packed = make_packed(SIZES)
    there = tmp_path / "there"
    copy(packed, "big", there / "a/b/c/renamed.bin")
    copy(packed, "small", there / "s")
    (there / "empty").write_bytes(b"")
    (there / "same-size").write_bytes(random.Random(1).randbytes(SIZES["big"]))
    assert found(packed, [tmp_path / "none", there]) == [("big", "renamed.bin"), ("small", "s")]


def test_two_files_of_one_content_have_the_same_candidate(tmp_path: Path) -> None:
    for name in ("one", "two", "held"):
        (tmp_path / name).write_bytes(b"the same")
    packed = pack({"one": tmp_path / "one", "two": tmp_path / "two"})
    (tmp_path / "there").mkdir()
    (tmp_path / "held").rename(tmp_path / "there/held")
    assert found(packed, [tmp_path / "there"]) == [("one", "held"), ("two", "held")]


def linked(packed: Packed, tmp_path: Path) -> tuple[Path, Path]:
    """A folder with links to a file and a folder that are elsewhere; and that place."""
    there, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
    there.mkdir()
    (there / "link").symlink_to(copy(packed, "big", elsewhere / "big"))
    (there / "folder").symlink_to(elsewhere)
    return there, elsewhere


def test_links_and_what_cant_be_read_are_passed_over(
    make_packed: MakePacked, tmp_path: Path
) -> None:
    packed = make_packed(SIZES)
    there, _ = linked(packed, tmp_path)
    os.mkfifo(there / "pipe")
    assert found(packed, [there]) == []


def test_links_to_files_are_followed_where_that_is_asked_for(
    make_packed: MakePacked, tmp_path: Path
) -> None:
    packed = make_packed(SIZES)
    there, elsewhere = linked(packed, tmp_path)
    os.mkfifo(elsewhere / "pipe")
    (there / "pipe").symlink_to(elsewhere / "pipe")
    assert found(packed, [there], follow=True) == [("big", "link")]


def test_what_the_caller_got_is_looked_for_no_more(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed(SIZES)
    there = tmp_path / "there"
    for number in range(5):
        copy(packed, "big", there / str(number))
    names = [entry.path for entry in packed.package.files]
    lacking = {names.index("big"), names.index("small")}
    seen = 0
    for file, _ in candidates(packed.package, lacking, [there]):
        seen += 1
        lacking.discard(file)
    assert seen == 1
    lacking.clear()
    assert list(candidates(packed.package, lacking, [there])) == []


def test_remembered_hashes_spare_reading(
    make_packed: MakePacked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = make_packed({"big": 9 * BLOCK})
    held = copy(packed, "big", tmp_path / "there/held")
    cache = HashCache(tmp_path / "hashes", now_ns=lambda: time.time_ns() + 10**10)
    pack({"held": held}, cache=cache)

    def unread(*_: object) -> bytes:
        pytest.fail("it was read")

    monkeypatch.setattr(holdings.os, "pread", unread)
    assert found(packed, [tmp_path / "there"], cache=cache) == [("big", "held")]


def test_a_search_ends(
    make_packed: MakePacked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdings, "MAX_LOOKED_AT", 3)
    packed = make_packed(SIZES)
    for number in range(10):
        copy(packed, "small", tmp_path / "there" / str(number))
    assert len(found(packed, [tmp_path / "there"])) == 3


@pytest.mark.parametrize("listing", [b"", b"no listing", None])
def test_partial_data_without_a_listing_says_nothing(
    make_packed: MakePacked, tmp_path: Path, listing: bytes | None
) -> None:
    packed = make_packed(SIZES)
    other = tmp_path / "incoming/other"
    copy(packed, "big", other / "files/big")
    if listing is not None:
        (other / "listing").write_bytes(listing)
    assert found(packed, [], partial=[other]) == []
