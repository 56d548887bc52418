"""What a disk refuses, as devices hear of it: in words that help, without a path."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from sleap_rtc.errors import (
    Damaged,
    OutOfSpace,
    PathNotPermitted,
    SleapRtcError,
    StorageRefused,
    StorageUnreachable,
    UnknownUpload,
)
from sleap_rtc.files.durable import disk_errors
from sleap_rtc.files.space import check_space
from sleap_rtc.storage.folder_refusals import refusals

PATH = Path("/srv/secret/objects/k")


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="ERROR", format="{message}")
    yield lines
    logger.remove(sink)


@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [
        (errno.ENOSPC, OutOfSpace, "The server's storage has no"),
        (errno.EDQUOT, OutOfSpace, "The server's storage has no"),
        (errno.EROFS, StorageRefused, "refused to take k: its disk is read-only."),
        (errno.EACCES, StorageRefused, "refused to take k: it has no right to its own files."),
        (errno.EPERM, StorageRefused, "refused to take k: it has no right to its own files."),
        (errno.EIO, StorageUnreachable, "its disk fails to take k (input/output error)"),
        (errno.ESTALE, StorageUnreachable, "its disk fails to take k (stale file handle)"),
        (errno.EMFILE, StorageUnreachable, "its disk fails to take k (too many open files)"),
    ],
)
@pytest.mark.parametrize("in_words", [False, True])
def test_what_a_disk_refuses(
    number: int, kind: type[SleapRtcError], says: str, *, in_words: bool, log: list[str]
) -> None:
    words = disk_errors(PATH) if in_words else contextlib.nullcontext()
    with pytest.raises(kind) as caught, refusals("take k"), words:
        raise OSError(number, os.strerror(number), str(PATH))
    assert type(caught.value) is kind
    assert says in caught.value.message
    assert "secret" not in caught.value.message + caught.value.hint_text
    assert caught.value.hint_text
    (line,) = log
    assert "the disk refuses to take k" in line
    assert "secret" in line


def test_how_much_room_there_is_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutOfSpace) as caught, refusals("begin an upload to k"):
        check_space(tmp_path, 1 << 60)
    assert caught.value.message.endswith("and 1.2 EB are needed.")
    assert str(tmp_path) not in caught.value.message


def test_what_can_t_be_read_is_damaged() -> None:
    with pytest.raises(Damaged, match="k is damaged"), refusals("read k", reads="k"):
        raise OSError(errno.EIO, "Input/output error")
    # No right to it says nothing of what it is.
    with pytest.raises(StorageRefused), refusals("read k", reads="k"):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_a_refusal_that_nothing_of_the_system_is_behind() -> None:
    with pytest.raises(StorageRefused), refusals("take k"):
        raise PathNotPermitted(path=str(PATH), why="it belongs to another user")


@pytest.mark.parametrize("error", [FileNotFoundError(2, "none"), UnknownUpload(key="k")])
def test_everything_else_is_passed_on(error: Exception, log: list[str]) -> None:
    with pytest.raises(type(error)) as caught, refusals("take k"):
        raise error
    assert caught.value is error
    assert log == []
