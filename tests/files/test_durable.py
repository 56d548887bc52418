import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sleap_rtc.errors import AlreadyExists, OutOfSpace, PathNotPermitted
from sleap_rtc.files import durable


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture(autouse=True)
def nothing_left_over(tmp_path: Path) -> Iterator[None]:
    yield
    assert not list(tmp_path.rglob(f"{durable.TEMPORARY}*"))


def test_a_new_file_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "f"
    assert durable.write_new(path, b"first") is True
    assert durable.write_new(path, b"second") is False
    assert path.read_bytes() == b"first"
    assert path.stat().st_nlink == 1


def test_a_new_file_never_replaces_a_dangling_link_or_a_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    assert durable.write_new(tmp_path / "link", b"x") is False
    assert durable.write_new(tmp_path / "folder", b"x") is False
    assert names(tmp_path) == ["folder", "link"]


def test_of_many_writers_one_makes_the_file(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for turn in range(20):
            path = tmp_path / str(turn)
            made = list(pool.map(lambda n, p=path: durable.write_new(p, b"%d" % n), range(8)))
            assert made.count(True) == 1
            assert path.read_bytes() == b"%d" % made.index(True)


@pytest.mark.parametrize("number", [errno.EEXIST, errno.EIO])
def test_a_link_whose_answer_was_lost_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    link = os.link

    def lose_the_answer(source: Path, target: Path) -> None:
        link(source, target)
        raise OSError(number, "as NFS would say")

    monkeypatch.setattr(os, "link", lose_the_answer)
    assert durable.write_new(tmp_path / "f", b"x") is True
    assert (tmp_path / "f").read_bytes() == b"x"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_without_hard_links_one_host_still_makes_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "link", failing(number))
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda n: durable.write_new(tmp_path / "f", b"%d" % n), range(8)))
    assert made.count(True) == 1
    assert (tmp_path / "f").read_bytes() == b"%d" % made.index(True)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EBADF])
def test_without_hard_links_and_locks_one_host_still_makes_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    held: list[str] = []

    def flock(fd: int, operation: int, *, real: Callable[..., Any] = fcntl.flock) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(number, os.strerror(number))
        held.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        real(fd, operation)

    library, temporary = tmp_path / "library", tmp_path / "temporary"
    library.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda n: durable.write_new(library / "f", b"%d" % n), range(8)))
    assert made.count(True) == 1
    assert (library / "f").read_bytes() == b"%d" % made.index(True)
    assert len(set(held)) == 1
    assert held[0].startswith(str(temporary))


def test_a_lock_that_fails_otherwise_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    monkeypatch.setattr(fcntl, "flock", failing(errno.EIO))
    with pytest.raises(OSError, match=r"\[Errno 5\]"):
        durable.write_new(tmp_path / "f", b"x")


def test_a_directory_is_made_with_those_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(durable, "sync_directory", synced.append)
    durable.make_directory(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    durable.make_directory(tmp_path / "a" / "b")
    assert len(synced) == 3
    (tmp_path / "f").touch()
    with pytest.raises(FileExistsError):
        durable.make_directory(tmp_path / "f")


def test_any_other_failure_of_the_link_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", failing(errno.EIO))
    with pytest.raises(OSError, match=r"\[Errno 5\]"):
        durable.write_new(tmp_path / "f", b"x")
    assert names(tmp_path) == []


def test_replacing(tmp_path: Path) -> None:
    path = tmp_path / "f"
    durable.write_replacing(path, b"old")
    with path.open("rb") as reader:
        durable.write_replacing(path, b"new" * 1_000_000)
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new" * 1_000_000


@pytest.mark.parametrize("write", [durable.write_new, durable.write_replacing])
def test_secrets_are_never_readable_by_others(tmp_path: Path, write: Callable[..., Any]) -> None:
    write(tmp_path / "key", b"secret", mode=0o600)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


@pytest.mark.parametrize("write", [durable.write_new, durable.write_replacing])
def test_content_is_synced_before_it_has_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., Any]
) -> None:
    path, seen = tmp_path / "f", []
    fsync = os.fsync

    def watch(fd: int) -> None:
        seen.append(("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file", path.exists()))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watch)
    write(path, b"x")
    assert seen == [("file", False), ("folder", True)]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, (OutOfSpace, "free, and 3 B are needed")),
        (errno.EDQUOT, (OutOfSpace, "none of this user's quota free")),
        (errno.EROFS, (PathNotPermitted, "read-only")),
        (errno.EACCES, (PathNotPermitted, "may not write")),
    ],
)
@pytest.mark.parametrize("write", [durable.write_new, durable.write_replacing])
def test_a_disk_that_refuses_is_named_and_the_old_file_stands(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[..., Any],
    number: int,
    expected: tuple[type[Exception], str],
) -> None:
    (tmp_path / "f").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", failing(number))
    with pytest.raises(expected[0], match=expected[1]) as caught:
        write(tmp_path / "f", b"new")
    assert str(tmp_path) in str(caught.value)
    assert caught.value.hint_text  # type: ignore[attr-defined]
    assert (tmp_path / "f").read_bytes() == b"old"


def test_what_can_be_written_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    durable.check_writable(tmp_path)
    durable.check_writable(tmp_path / "new" / "one")
    assert names(tmp_path) == ["f", "new"]
    assert names(tmp_path / "new" / "one") == []


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, (OutOfSpace, "{} has .* free, and 4.1 KB are needed")),
        (errno.EROFS, (PathNotPermitted, "{}: the file system is read-only")),
        (errno.EACCES, (PathNotPermitted, "{}: this user may not write here")),
    ],
)
def test_a_directory_that_can_not_be_written_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    expected: tuple[type[Exception], str],
) -> None:
    monkeypatch.setattr(os, "fsync", failing(number))
    with pytest.raises(expected[0], match=expected[1].format(tmp_path)) as caught:
        durable.check_writable(tmp_path)
    assert caught.value.hint_text  # type: ignore[attr-defined]
    assert names(tmp_path) == []


def test_other_errors_are_passed_on(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        durable.write_new(tmp_path / "no" / "f", b"x")


def test_free_space_that_cannot_be_told_is_no_second_error(tmp_path: Path) -> None:
    full = durable.disk_errors(tmp_path / "no" / "f")
    with pytest.raises(OutOfSpace, match="no space free, and more bytes"), full:
        raise OSError(errno.ENOSPC, "full")


def test_directories_without_sync_are_taken_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", failing(errno.EINVAL))
    durable.sync_directory(tmp_path)
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(OSError, match=r"\[Errno 5\]"):
        durable.sync_directory(tmp_path)


def filled(folder: Path, content: str = "x") -> Path:
    folder.mkdir()
    (folder / "f").write_text(content)
    return folder


def test_a_directory_is_placed_by_one_rename(tmp_path: Path) -> None:
    durable.place_directory(filled(tmp_path / "a"), tmp_path / "b")
    assert names(tmp_path) == ["b"]
    assert (tmp_path / "b" / "f").read_text() == "x"


def make_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [filled, Path.mkdir, Path.touch, make_link])
def test_a_directory_is_never_placed_on_something(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    source = filled(tmp_path / "a", "new")
    make(tmp_path / "b")
    with pytest.raises(AlreadyExists, match="b already exists"):
        durable.place_directory(source, tmp_path / "b")
    assert (source / "f").read_text() == "new"


def test_of_many_directories_one_is_placed(tmp_path: Path) -> None:
    def place(number: int) -> bool:
        source = filled(tmp_path / f"from-{number}", str(number))
        try:
            durable.place_directory(source, tmp_path / "to")
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        placed = list(pool.map(place, range(8)))
    assert placed.count(True) == 1
    assert (tmp_path / "to" / "f").read_text() == str(placed.index(True))


def test_the_rename_itself_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = filled(tmp_path / "a"), filled(tmp_path / "b", "theirs")
    monkeypatch.setattr(os.path, "lexists", lambda _: False)  # it came after we looked
    with pytest.raises(AlreadyExists):
        durable.place_directory(source, target)
    assert (target / "f").read_text() == "theirs"
    assert (source / "f").read_text() == "x"


def test_a_placement_whose_answer_was_lost_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def lose_the_answer(source: Path, target: Path) -> None:
        rename(source, target)
        raise OSError(errno.ENOENT, "as NFS would say")

    monkeypatch.setattr(Path, "rename", lose_the_answer)
    durable.place_directory(filled(tmp_path / "a"), tmp_path / "b")
    assert names(tmp_path) == ["b"]


def test_a_directory_that_cannot_be_placed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "rename", failing(errno.ENOSPC))
    with pytest.raises(OutOfSpace):
        durable.place_directory(filled(tmp_path / "a"), tmp_path / "b")
    assert names(tmp_path) == ["a"]


def test_an_empty_directory_is_not_placed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="is empty"):
        durable.place_directory(tmp_path / "a", tmp_path / "b")


def test_what_is_written_bit_by_bit_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with durable.written_whole(path) as file:
        for _ in range(3):
            file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"newnewnew"
    half = durable.written_whole(path)
    half.__enter__().write(b"half")
    interrupt = KeyboardInterrupt()
    assert not half.__exit__(KeyboardInterrupt, interrupt, None)
    assert path.read_bytes() == b"newnewnew"


def test_what_is_written_bit_by_bit_may_have_to_be_new(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with durable.written_whole(path, replacing=False) as file:
        file.write(b"first")
    with (
        pytest.raises(AlreadyExists, match="already exists"),
        durable.written_whole(path, replacing=False) as file,
    ):
        file.write(b"second")
    assert path.read_bytes() == b"first"


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
    with pytest.raises(OutOfSpace), durable.written_whole(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
