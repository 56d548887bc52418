"""Libraries in bad places: full and read-only disks, homes that are links, clocks that jump."""

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sleap_rtc.domain.models import Metrics, ModelFile, ModelRecord
from sleap_rtc.errors import OutOfSpace, PathNotPermitted, UnknownModel, UnsafePath
from sleap_rtc.library.entries import Query
from sleap_rtc.library.finder import Unreadable
from sleap_rtc.library.registry import Registry

RecordOf = Callable[..., ModelRecord]

NAMES = (
    "with space",
    "quote\"s and 'these'",
    "emoji 🪰🧠",
    "two\nlines\r\n",
    "-rf",
    "../../up",
    "x" * 300,
    "tab\tand \x1b[31mcolour",
    "\u202eright to left",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_may_have_any_name(
    registry: Registry, open_registry: Callable[[], Registry], record_of: RecordOf, name: str
) -> None:
    entry = registry.register(record_of(name))
    assert entry.directory.parent == registry.models_dir
    assert open_registry().get(entry.id).record.name == name
    (listed,) = open_registry().list(Query(sort="name")).entries
    assert listed.record.name == name


@pytest.mark.parametrize("name", ["with space", 'quo"te', "emoji-🪰.ckpt", "x" * 200 + ".ckpt"])
def test_a_file_may_have_any_safe_name(
    registry: Registry, record_of: RecordOf, files_in: Any, name: str
) -> None:
    folder = registry.claims.new_folder()
    files = files_in(folder)
    (folder / "best.ckpt").rename(folder / name)
    listed = (replace(files[0], path=name),)
    try:
        entry = registry.place(folder, record_of(files=listed, checkpoint=name))
    except UnsafePath:
        assert any(c in name for c in '"')  # refused whole, with its name
        return
    assert registry.checkpoint_path(entry.id).name == name


def test_a_link_to_itself_is_no_file(
    registry: Registry, record_of: RecordOf, tmp_path: Path
) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    folder = registry.claims.new_folder()
    (folder / "best.ckpt").symlink_to(loop)
    files = (ModelFile(path="best.ckpt", size=1, blake3="0" * 64, link=str(loop)),)
    with pytest.raises((UnsafePath, OSError)):
        registry.place(folder, record_of(files=files), links=True)
    assert list(registry.walk()) == []


def test_a_home_that_is_a_link(tmp_path: Path, record_of: RecordOf, clock: Any) -> None:
    real = tmp_path / "real"
    real.mkdir()
    home = tmp_path / "home"
    home.symlink_to(real)
    with Registry(home / "models", clock=clock, index_dir=tmp_path / "index") as registry:
        entry = registry.register(record_of())
        registry.set_alias("fly", entry.id)
    with Registry(real / "models", clock=clock, index_dir=tmp_path / "index") as registry:
        assert registry.get("fly").id == entry.id
        assert registry.resolve(str(home / "models" / entry.directory.name)) == registry.get("fly")
        assert [e.id for e in registry.list().entries] == [entry.id]


def test_a_clock_that_jumps(
    registry: Registry, open_registry: Callable[[], Registry], record_of: RecordOf, clock: Any
) -> None:
    clock.now = datetime(2099, 1, 1, tzinfo=UTC)
    late = registry.register(record_of("late"))
    registry.set_alias("fly", late.id)
    registry.delete(registry.register(record_of("gone")).id)
    clock.now = datetime(1971, 1, 1, tzinfo=UTC)
    early = registry.register(record_of("early"))
    registry.set_alias("fly", early.id, force=True)
    registry.mark_interrupted(late.id, None, 3)
    done = registry.mark_training(late.id)
    assert registry.sweep() == 0
    again = open_registry()
    assert again.get("fly").id == early.id
    assert again.get(late.id) == done
    assert [e.id for e in again.list().entries] == [late.id, early.id]


def test_files_with_times_of_tomorrow_are_noticed(
    registry: Registry, open_registry: Callable[..., Registry], record_of: RecordOf
) -> None:
    entry = registry.register(record_of())
    assert len(registry.list().entries) == 1
    far = 4_000_000_000
    for path in (registry.models_dir, registry.models_dir / ".changes", entry.directory):
        os.utime(path, (far, far))
    other = open_registry("other-index")
    other.update(entry.id, lambda old: replace(old, notes="x"))
    other.register(record_of("b"))
    assert {e.record.notes for e in registry.list().entries} == {"x", ""}


# File systems that lack something


def test_without_links_and_locks_it_works_on_one_host(
    registry: Registry,
    open_registry: Callable[[], Registry],
    record_of: RecordOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no links")

    def flock(fd: int, operation: int, *, real: Callable[..., Any] = fcntl.flock) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").startswith(str(registry.models_dir)):  # noqa: PTH115
            raise OSError(errno.ENOLCK, "no locks")
        real(fd, operation)

    monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(fcntl, "flock", flock)
    model = registry.register(record_of()).id
    for n in range(12):
        registry.update(model, lambda old, n=n: replace(old, notes=str(n)))  # type: ignore[misc]
        registry.set_alias(f"name-{n}", model)
    registry.mark_completed(model, Metrics(epochs=1))
    found = open_registry().get("name-11")
    assert (found.record.notes, found.record.status) == ("11", "completed")
    registry.delete(model)
    with pytest.raises(UnknownModel):
        open_registry().get(model)


@contextlib.contextmanager
def mounted(path: Path, options: str) -> Iterator[Path]:
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.mark.slow
def test_a_read_only_library_is_read(
    tmp_path: Path, record_of: RecordOf, files_in: Any, clock: Any
) -> None:
    index = tmp_path / "index"
    with mounted(tmp_path / "disk", "size=4m") as disk:
        with Registry(disk / "models", clock=clock, index_dir=index) as registry:
            folder = registry.claims.new_folder()
            files = files_in(folder)
            record = record_of(status="completed", files=files, checkpoint="best.ckpt")
            model = registry.place(folder, record).id
            registry.set_alias("fly", model)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for fresh in (False, True):
            if fresh:
                shutil.rmtree(index)
            with Registry(disk / "models", clock=clock, index_dir=index) as registry:
                assert registry.get("fly").record == record
                assert registry.checkpoint_path("fly").read_text() == "weights"
                assert [entry.alias for entry in registry.list().entries] == ["fly"]
                for change in (
                    lambda: registry.update("fly", lambda old: replace(old, notes="x")),
                    lambda: registry.set_alias("bee", model),
                    lambda: registry.remove_alias("fly"),
                    lambda: registry.delete("fly"),
                    lambda: registry.register(record_of("other")),
                    registry.write_manifest,
                ):
                    with pytest.raises(PathNotPermitted, match="read-only") as caught:
                        change()
                    assert str(disk) in caught.value.message
                assert registry.get("fly").record == record


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_page_leaves_the_old_state_or_the_new(
    tmp_path: Path, record_of: RecordOf, clock: Any
) -> None:
    named = record_of("named").id
    operations: list[Callable[[Registry, int], object]] = [
        lambda registry, n: registry.update("fly", lambda old: replace(old, notes=f"{n}" * 200)),
        lambda registry, n: registry.register(record_of(f"new {n}")),
        lambda registry, n: registry.set_alias(f"name-{n}", named),
        lambda registry, n: registry.mark_interrupted(named, None, n),
        lambda registry, _: registry.write_manifest(),
    ]
    refused = done = 0
    with (
        mounted(tmp_path / "disk", "size=600k") as disk,
        Registry(disk / "models", clock=clock, index_dir=tmp_path / "index") as registry,
    ):
        registry.set_alias("fly", registry.register(record_of("fly")).id)
        registry.register(record_of("named"))
        filler = disk / "filler"
        for n in range(60):
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * 4_096)
            free = (n % 4) * 4_096
            os.truncate(filler, max(0, filler.stat().st_size - free))
            before = seen(registry)
            names = {alias.name for alias in registry.list_aliases()}
            try:
                operations[n % 5](registry, n)
                done += 1
            except OutOfSpace:
                refused += 1
                after = seen(registry)
                assert after == before, n
                assert {alias.name for alias in registry.list_aliases()} == names
            assert not list((disk / "models").rglob(".record/.tmp-*"))
            filler.unlink()
            if n % 5 == 1:
                for entry in registry.list().entries:
                    if entry.record.name.startswith("new"):
                        registry.delete(entry.id)
    assert refused > 10
    assert done > 10


def seen(registry: Registry) -> dict[str, tuple[ModelRecord, str | None]]:
    found = list(registry.walk())
    assert not [entry for entry in found if isinstance(entry, Unreadable)]
    return {entry.id: (entry.record, entry.alias) for entry in found}  # type: ignore[union-attr]
