"""Archives that were made to do harm do none."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sleap_rtc.errors import DataError, OutOfSpace, SleapRtcError, UnsafePath
from sleap_rtc.library.importing import archives


@pytest.fixture
def into(tmp_path: Path) -> Path:
    path = tmp_path / "into"
    path.mkdir()
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def zipped(*names: str, content: bytes = b"x", attributes: int = 0) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.external_attr = attributes << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return stream.getvalue()


def unpack(tmp_path: Path, into: Path, content: bytes) -> None:
    path = tmp_path / "archive"
    path.write_bytes(content)
    archives.unpack(path, into)


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


OUTSIDE = ["../x", "/etc/x", "a/../../x", "..", "a/..", "C:\\x", "..\\x", "./../x"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_nothing_is_written_outside(tmp_path, into, name, kind):
    content = zipped(name) if kind == "zip" else tar((member(name), b"x"))
    with pytest.raises(SleapRtcError):
        unpack(tmp_path, into, content)
    assert everything(tmp_path) <= {"archive", "into"}


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
)
def test_no_link_or_device_is_made(tmp_path, into, kind):
    evil = member("a/evil", kind, linkname="/etc/passwd")
    with pytest.raises(UnsafePath, match="link"):
        unpack(tmp_path, into, tar((member("a/ok"), b"x"), (evil, b"")))
    assert everything(into) <= {"a", "a/ok"}


def test_a_link_in_a_zip_is_refused(tmp_path, into):
    content = zipped("evil", content=b"/etc/passwd", attributes=stat.S_IFLNK | 0o777)
    with pytest.raises(UnsafePath, match="link"):
        unpack(tmp_path, into, content)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_name_twice_is_refused_whatever_its_case(tmp_path, into, kind):
    names = ("a/best.ckpt", "A/Best.ckpt")
    content = zipped(*names) if kind == "zip" else tar(*((member(n), b"x") for n in names))
    with pytest.raises(UnsafePath, match="twice"):
        unpack(tmp_path, into, content)


def bomb_zip() -> bytes:
    return zipped("a", "b", "c", content=bytes(40 << 20))


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("packer", ["zip", *PACKERS])
def test_a_bomb_is_stopped_while_it_goes_off(tmp_path, into, packer, monkeypatch):
    monkeypatch.setattr(archives, "FREE_RATIO", 4 << 20)
    large = bytes(40 << 20)
    plain = bomb_zip() if packer == "zip" else PACKERS[packer](tar((member("a"), large)))
    with pytest.raises(DataError, match="bomb"):
        unpack(tmp_path, into, plain)
    assert sum(path.stat().st_size for path in into.rglob("*")) <= 30 << 20


def test_a_bomb_that_is_only_skipped_is_stopped(tmp_path, into, monkeypatch):
    monkeypatch.setattr(archives, "FREE_RATIO", 4 << 20)
    content = gzip.compress(tar((member(".hidden"), bytes(60 << 20)), (member("a"), b"x")))
    with pytest.raises(DataError, match="bomb"):
        unpack(tmp_path, into, content)


def test_a_header_of_a_gigabyte_is_not_read(tmp_path, into):
    header = member("x", tarfile.XHDTYPE, size=1 << 30).tobuf(tarfile.USTAR_FORMAT)
    with pytest.raises(DataError):
        unpack(tmp_path, into, gzip.compress(header + bytes(5 << 20)))


def test_a_file_with_holes_is_refused(tmp_path, into):
    sparse = member("a", tarfile.GNUTYPE_SPARSE)
    with pytest.raises(SleapRtcError):
        unpack(tmp_path, into, tar((sparse, b"")))


def test_too_many_files_are_refused(tmp_path, into, monkeypatch):
    monkeypatch.setattr(archives, "MAX_FILES", 10)
    with pytest.raises(DataError, match="more than 10 files"):
        unpack(tmp_path, into, zipped(*(f"f{n}" for n in range(11))))


def test_no_more_is_written_than_there_is_room(tmp_path, into, monkeypatch):
    monkeypatch.setattr(archives, "free_space", lambda _: archives.KEPT_FREE + 10)
    with pytest.raises(OutOfSpace):
        unpack(tmp_path, into, zipped("a", content=b"x" * 100))


def test_what_file_managers_add_is_left_out(tmp_path, into):
    unpack(tmp_path, into, zipped("m/best.ckpt", "__MACOSX/m/._best.ckpt", "m/.DS_Store", "m/sub/"))
    assert everything(into) == {"m", "m/best.ckpt"}


def test_names_become_safe(tmp_path, into):
    unpack(tmp_path, into, tar((member("./m/a:b\n.txt"), b"x"), (member("m/CON"), b"x")))
    assert everything(into) == {"m", "m/a_b_.txt", "m/_CON"}


@pytest.mark.parametrize("form", ["zip", "tar", *PACKERS])
def test_a_cut_archive_is_told(tmp_path, into, form):
    content = bytes(range(256)) * 40
    plain = zipped("a", "b", content=content) if form == "zip" else tar((member("a"), content))
    whole = PACKERS[form](plain) if form in PACKERS else plain
    # A tar ends with empty blocks that nothing needs.
    end = len(whole) - 8 if form != "tar" else 512 + len(content)
    for length in range(1, end, max(end // 40, 1)):
        target = into / str(length)
        target.mkdir()
        with pytest.raises(SleapRtcError):
            unpack(tmp_path, target, whole[:length])


def test_an_encrypted_zip_is_told(tmp_path, into):
    content = bytearray(zipped("a"))
    content[6] |= 1
    at = content.find(b"PK\x01\x02")
    content[at + 8] |= 1
    with pytest.raises(DataError, match="encrypted"):
        unpack(tmp_path, into, bytes(content))


def test_a_file_without_a_name_is_refused(tmp_path, into):
    with pytest.raises(UnsafePath):
        unpack(tmp_path, into, zipped(""))


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_unpacked_inside_or_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any")
    (folder / "into").mkdir()
    base = data.draw(
        st.sampled_from(
            [
                zipped("a/b", "c"),
                tar((member("a/b"), b"xyz"), (member("c"), b"")),
                gzip.compress(tar((member("a/b"), b"xyz"))),
                b"",
            ]
        )
    )
    content = bytearray(base)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, max(len(content) - 1, 0)))
        content[at : at + 1] = data.draw(st.binary(max_size=5))
    with contextlib.suppress(SleapRtcError):
        unpack(folder, folder / "into", bytes(content))
    outside = {path for path in everything(folder) if not path.startswith("into")}
    assert outside == {"archive"}
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    assert archives.kind_of(folder / "archive") in (None, "zip", "tar")


def test_folders_without_end_are_refused(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 100)
    path = tmp_path / "folders.tar"
    path.write_bytes(tar(*((member(f"d{n}", tarfile.DIRTYPE), b"") for n in range(101))))
    with pytest.raises(DataError, match="more than 100 files and folders"):
        archives.unpack(path, into)
