import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from msgspec.structs import replace

from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.errors import Damaged, FilesMissing, SourceChanged
from sleap_rtc.library.registry import Registry
from sleap_rtc.library.sums import with_sha256

Arrive = Callable[..., Any]


def test_it_is_computed_once_and_kept(registry: Registry, arrive: Arrive) -> None:
    entry = arrive()
    read: list[tuple[str, int]] = []
    summed = with_sha256(registry, entry, progress=lambda *more: read.append(more))
    assert {file.path: file.sha256 for file in summed.record.files} == {
        "best.ckpt": hashlib.sha256(b"weights").hexdigest(),
        "sub/config": hashlib.sha256(b"c").hexdigest(),
    }
    assert read == [("best.ckpt", 7), ("sub/config", 1)]
    assert registry.get(entry.id) == summed
    assert with_sha256(registry, summed, progress=lambda *more: read.append(more)) == summed
    assert len(read) == 2


def test_a_linked_file_is_read_where_it_is(
    registry: Registry, record_of: Callable[..., ModelRecord], tmp_path: Path
) -> None:
    theirs = tmp_path / "best.ckpt"
    theirs.write_bytes(b"weights")
    folder = registry.claims.new_folder()
    (folder / "best.ckpt").symlink_to(theirs)
    digest = blake3(b"weights").hexdigest()
    file = ModelFile(path="best.ckpt", size=7, blake3=digest, link=str(theirs.resolve()))
    entry = registry.place(folder, record_of(files=(file,)), links=True)
    (summed,) = with_sha256(registry, entry).record.files
    assert summed == replace(file, sha256=hashlib.sha256(b"weights").hexdigest())


def test_of_another_file_nothing_is_recorded(registry: Registry, arrive: Arrive) -> None:
    entry = arrive()
    (entry.directory / "best.ckpt").write_text("WEIGHTS")
    with pytest.raises(Damaged, match=r"best\.ckpt"):
        with_sha256(registry, entry)
    (entry.directory / "best.ckpt").unlink()
    with pytest.raises(FilesMissing, match=r"best\.ckpt"):
        with_sha256(registry, entry)
    assert registry.get(entry.id).record == entry.record


def test_what_changes_while_it_is_read_is_told(registry: Registry, arrive: Arrive) -> None:
    entry = arrive()

    def touch(path: str, _: int) -> None:
        os.utime(entry.directory / path, ns=(1, 1))

    with pytest.raises(SourceChanged):
        with_sha256(registry, entry, progress=touch)


def test_an_interrupted_call_goes_on(registry: Registry, arrive: Arrive) -> None:
    entry = arrive()

    def stop(path: str, _: int) -> None:
        if path == "sub/config":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        with_sha256(registry, entry, progress=stop)
    half = registry.get(entry.id)
    assert [file.sha256 is not None for file in half.record.files] == [True, False]
    read = []
    with_sha256(registry, half, progress=lambda path, _: read.append(path))
    assert read == ["sub/config"]


def test_a_file_that_was_replaced_meanwhile_gets_no_others_hash(
    registry: Registry, arrive: Arrive
) -> None:
    entry = arrive()
    other = blake3(b"other").hexdigest()

    def and_replaced(path: str, _: int) -> None:
        if path == "best.ckpt":
            registry.update(
                entry.id,
                lambda old: replace(
                    old, files=(replace(old.files[0], blake3=other), *old.files[1:])
                ),
            )

    with_sha256(registry, entry, progress=and_replaced)
    best, config = registry.get(entry.id).record.files
    assert (best.blake3, best.sha256) == (other, None)
    assert config.sha256 is not None
