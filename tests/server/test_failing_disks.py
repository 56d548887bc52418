"""A disk below the server's folder that is full, read-only or broken: what devices hear of it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import http.client
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from loguru import logger

from sleap_rtc.errors import Damaged, OutOfSpace, QuotaExceeded, SleapRtcError, StorageRefused
from sleap_rtc.server.comparing import digest_in_folder
from sleap_rtc.storage.objects import SignedRequest
from sleap_rtc.storage.service import (
    ContentsOffered,
    DownloadTold,
    NamedContent,
    OfferContents,
    RequestDownload,
)

from .conftest import Device, Place, use
from .test_damaged_objects import Case

MIB = 1 << 20
DATA = os.urandom(8 * MIB)
_FIBMAP, _BLOCK = 1, 4096


@contextlib.contextmanager
def mounted(path: Path, *arguments: str) -> Iterator[None]:
    """Something mounted on a folder; skips where that can't be done."""
    path.mkdir()
    done = subprocess.run(["mount", *arguments, str(path)], capture_output=True, check=False)
    if os.geteuid() != 0 or done.returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


def download(device: Device, digest: str) -> SignedRequest:
    request = RequestDownload(room=device.room, area="rooms", blake3=digest)
    return device.api.ask("/api/request-download", DownloadTold, request).request


def link(device: Device, data: bytes) -> SignedRequest:
    """A link that sends a content in one piece."""
    content = NamedContent(
        blake3=blake3(data).hexdigest(), size=len(data), sha256=hashlib.sha256(data).digest()
    )
    request = OfferContents(room=device.room, area="rooms", contents=(content,))
    (found,) = device.api.ask("/api/offer-contents", ContentsOffered, request).requests
    assert found is not None
    return found


def says(error: SleapRtcError, log: list[str], *, where: Path) -> str:
    """What an error says; the folder is in the log, and not in what is told."""
    told = f"{error.message} {error.hint_text}"
    assert str(where) not in told
    assert error.hint_text
    assert any(str(where) in line for line in log)
    return told


# ── full, or not to be written ───────────────────────────────────────────────


def test_a_disk_that_is_full(
    new_place: Callable[..., Place], tmp_path: Path, log: list[str]
) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "-t", "tmpfs", "-o", "size=66m", "tmpfs"):
        device = new_place(server_storage_dir=str(disk)).owner
        with pytest.raises(OutOfSpace) as caught:
            device.ask(DATA)
        told = says(caught.value, log, where=disk)
        assert told.startswith("The server's storage has 69 MB free, and 75 MB are needed.")
        assert not isinstance(caught.value, QuotaExceeded)
        # What fills while it comes, by a link that was given before.
        request = link(device, DATA[:MIB])
        (disk / "other").write_bytes(b"x" * 64 * MIB)
        reply = use(request, DATA[:MIB])
        assert (reply.status, reply.error["code"]) == (507, "out_of_space")
        assert str(disk) not in reply.body.decode()


def test_a_disk_that_became_read_only(
    new_place: Callable[..., Place], tmp_path: Path, log: list[str]
) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "-t", "tmpfs", "tmpfs"):
        device = new_place(server_storage_dir=str(disk)).owner
        small, large = b"a content", b"in parts"
        request = link(device, small)
        told = device.ask(large)
        (part,) = device.tickets(told, large)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(StorageRefused) as caught:
            device.ask(b"another one")
        key = f"rooms/{device.room}/files/{blake3(b'another one').hexdigest()}"
        assert says(caught.value, log, where=disk).startswith(
            f"The storage of the server refused to begin an upload to {key}: its disk is read-only."
        )
        for each, data, what in ((request, small, "rooms/"), (part, large, "part 1 of rooms/")):
            reply = use(each, data)
            assert (reply.status, reply.error["code"]) == (403, "storage_refused")
            assert f"refused to take {what}" in reply.error["message"]
            assert str(disk) not in reply.body.decode()
        with pytest.raises(StorageRefused, match="its disk is read-only"):
            device.complete(told, large)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_a_folder_that_can_t_be_used(
    place: Place, monkeypatch: pytest.MonkeyPatch, log: list[str], number: int
) -> None:
    """Whatever the system says, as for a user who may write everywhere it can't be had."""
    folder = place.info.data_dir / "storage"
    request = link(place.owner, b"never kept %d" % number)
    real = os.open

    def failing(path: Any, *arguments: Any, **more: Any) -> int:
        if str(path).startswith(str(folder)):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *arguments, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", failing)
        reply = use(request, b"never kept %d" % number)
        with pytest.raises(SleapRtcError) as caught:
            place.owner.ask(b"begun %d" % number)
    expected = (403, "storage_refused") if number == errno.EACCES else (502, "storage_unreachable")
    assert (reply.status, reply.error["code"]) == expected
    assert str(folder) not in reply.body.decode()
    assert caught.value.code == expected[1]
    says(caught.value, log, where=folder)


def test_what_nobody_has_thought_of_has_the_same_shape(
    place: Place, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    place.owner.upload(b"to be read")
    request = download(place.owner, blake3(b"to be read").hexdigest())

    def broken(*_: object) -> None:
        raise RuntimeError("/srv/secret is broken")

    with monkeypatch.context() as patched:
        patched.setattr("sleap_rtc.storage.folder.FolderStore.open", broken)
        reply = use(request)
    assert (reply.status, reply.error["code"]) == (500, "error")
    assert "secret" not in reply.body.decode()
    assert any("failed at get_object" in line for line in log)


# ── bytes that can't be read ─────────────────────────────────────────────────


@pytest.fixture(scope="module")
def stored(place: Place) -> SignedRequest:
    place.owner.upload(DATA)
    return download(place.owner, blake3(DATA).hexdigest())


def unreadable(fd: int, size: int, offset: int, *, real: Any = os.pread) -> bytes:
    """Reads as a disk does on which all behind the third MiB is lost."""
    if offset + size > 3 * MIB:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return bytes(real(fd, size, offset))


def test_what_the_disk_can_t_read_is_said_before_an_answer_begins(
    place: Place, stored: SignedRequest, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", unreadable)
        reply = use(stored, range=f"bytes={4 * MIB}-")
        good = use(stored, range=f"bytes=0-{MIB - 1}")
    assert (reply.status, reply.error["code"]) == (422, "damaged")
    assert "can't read it any more" in reply.error["message"]
    assert "content-range" not in reply.headers
    assert good.body == DATA[:MIB]
    key = f"rooms/{place.owner.room}/files/{blake3(DATA).hexdigest()}"
    assert any(f"the disk refuses to read {key}" in line for line in log)


def test_after_it_has_begun_the_connection_is_cut(
    place: Place, stored: SignedRequest, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", unreadable)
        with pytest.raises(http.client.IncompleteRead) as caught:
            use(stored)
    assert caught.value.partial == DATA[: 3 * MIB]
    assert any(line.startswith("cut get_object: ") for line in log)
    assert use(stored).body == DATA


def test_what_can_t_be_read_to_be_compared_is_taken_anew(
    new_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = False

    def digest(*given: Any, **more: Any) -> str:
        if lost:
            raise Damaged(what="it", why="the server's disk can't read it any more")
        return digest_in_folder(*given, **more)

    monkeypatch.setattr("sleap_rtc.server.storing.digest_in_folder", digest)
    device = new_place().owner
    device.upload(b"data")
    lost = True
    told = device.ask(b"data", again=True)
    assert told.state == "open"
    device.put(told, b"data")
    with pytest.raises(Damaged):
        device.complete(told, b"data")
    lost = False
    device.upload(b"data")


@pytest.fixture
def breaking(tmp_path: Path) -> Iterator[tuple[Path, Callable[[Path, int], None]]]:
    """A disk, and what has it lose all blocks of a file from an offset on."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(256 * MIB)
    if subprocess.run(
        ["mkfs.ext4", "-q", "-b", str(_BLOCK), str(image)], capture_output=True, check=False
    ).returncode:
        pytest.skip("needs mkfs.ext4")

    def lose(path: Path, offset: int) -> None:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            asked = struct.pack("i", offset // _BLOCK)
            (block,) = struct.unpack("i", fcntl.ioctl(file.fileno(), _FIBMAP, asked))
            subprocess.run(["sync", "--file-system", str(disk)], check=True)
            os.truncate(image, block * _BLOCK)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    with mounted(disk, "-o", "loop", str(image)):
        yield disk, lose


def test_a_disk_that_lost_blocks(
    new_place: Callable[..., Place],
    breaking: tuple[Path, Callable[[Path, int], None]],
    tmp_path: Path,
    log: list[str],
) -> None:
    """A real one: what can be read is given, the rest is said to be damaged, and stored anew."""
    disk, lose = breaking
    device = new_place(server_storage_dir=str(disk / "storage")).owner
    (tmp_path / "files").mkdir()
    case = Case(tmp_path / "files", device)
    case.put()
    large = case.files[0]
    request = download(device, large.checksum)
    lose(disk / "storage" / "objects" / case.store.key(large.checksum), large.size // 2)
    assert use(request, range=f"bytes=0-{MIB - 1}").status == 206
    reply = use(request, range=f"bytes={large.size - MIB}-")
    assert (reply.status, reply.error["code"]) == (422, "damaged")
    assert any("Input/output error" in line for line in log)
    damaged = asyncio.run(case.fetch())
    assert [*damaged] == [large.checksum]
    assert case.store.report_damaged(large.checksum, damaged[large.checksum]) == "damaged"
    assert case.put() == large.size
    assert asyncio.run(case.fetch()) == {}
