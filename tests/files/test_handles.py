from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from sleap_rtc.files.handles import Handles


class Opener:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opened: list[int] = []

    def __call__(self, index: int) -> int:
        self.opened.append(index)
        return os.open(self.folder / str(index), os.O_RDWR | os.O_CREAT)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_a_file_stays_open_between_uses(tmp_path: Path) -> None:
    opener = Opener(tmp_path)
    handles = Handles(opener)
    with handles.use(1) as first, handles.use(1) as second:
        assert first == second
    with handles.use(1):
        pass
    assert opener.opened == [1]
    handles.close()
    assert not is_open(first)


def test_the_file_used_longest_ago_is_closed(tmp_path: Path) -> None:
    opener = Opener(tmp_path)
    handles = Handles(opener, limit=2)
    for index in (1, 2, 1, 3, 1, 2):
        with handles.use(index):
            pass
    assert opener.opened == [1, 2, 3, 2]
    handles.close()


def test_a_file_in_use_is_never_closed(tmp_path: Path) -> None:
    handles = Handles(Opener(tmp_path), limit=0)
    with handles.use(1) as outer:
        with handles.use(2) as inner:
            handles.close()
            assert is_open(outer)
            assert is_open(inner)
        assert not is_open(inner)
        assert is_open(outer)


def test_a_file_that_cant_be_opened_leaves_nothing(tmp_path: Path) -> None:
    handles = Handles(Opener(tmp_path / "missing"))
    for _ in range(2):
        with pytest.raises(FileNotFoundError), handles.use(1):
            pass
    handles.close()


def test_threads_share(tmp_path: Path) -> None:
    handles = Handles(Opener(tmp_path), limit=3)
    wrong: list[int] = []

    def work(seed: int) -> None:
        for step in range(300):
            index = (step * seed) % 7
            with handles.use(index) as fd:
                if os.fstat(fd).st_ino != (tmp_path / str(index)).stat().st_ino:
                    wrong.append(index)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2, 3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handles.close()
    assert wrong == []


def test_what_was_in_use_when_all_was_closed_is_closed_by_its_last_user(tmp_path: Path) -> None:
    handles = Handles(Opener(tmp_path))
    with handles.use(1) as outer:
        with handles.use(1):
            handles.close()
        assert is_open(outer)
    assert not is_open(outer)
