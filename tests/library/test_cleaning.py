"""What isn't needed is found and removed, and nothing else is touched."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sleap_rtc.domain.models import Location
from sleap_rtc.files.claim import Claim
from sleap_rtc.library import cleaning, layout
from sleap_rtc.library.cleaning import ABANDONED_S, Found, Removed, look, measure, remove
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.registry import Registry

PARTIAL = f"{'a' * 64}-{'b' * 16}"


class Lab:
    """A library, and another folder of transfers; the clock of files is the test's."""

    def __init__(
        self, registry: Registry, record_of: Any, files_in: Any, clock: Any, root: Path
    ) -> None:
        self.registry, self.record_of, self.files_in, self.clock = (
            *(registry, record_of, files_in, clock),
        )
        self.transfers = root / "transfers"
        self.theirs = root / "theirs"

    def model(self, name: str = "run", *, link: bool = False, **changes: Any) -> Entry:
        folder = self.registry.incoming / name
        if not link:
            files = self.files_in(folder, best_ckpt=name)
        else:
            (file,) = self.files_in(self.theirs, best_ckpt=name)
            real = os.path.realpath(self.theirs / file.path)
            folder.mkdir()
            (folder / file.path).symlink_to(real)
            files = (replace(file, link=real),)
        record = self.record_of(name, **{"status": "completed", "files": files} | changes)
        return self.registry.place(folder, record, links=link)

    def folder(self, path: Path, *, age_s: float = 2 * ABANDONED_S) -> Path:
        """A folder with 4 KiB in it, last changed so long ago."""
        path.mkdir(parents=True)
        (path / "data").write_bytes(b"x" * 4096)
        self.age(path, age_s)
        return path

    def age(self, path: Path, age_s: float = 2 * ABANDONED_S) -> None:
        then = self.clock().timestamp() - age_s
        for each in (*path.rglob("*"), path):
            os.utime(each, (then, then), follow_symlinks=False)

    def partial(self, parent: Path, *, age_s: float = 2 * ABANDONED_S) -> Path:
        path = self.folder(parent / PARTIAL)
        (path / "lock").touch()
        self.age(path, age_s)
        return path

    def look(self) -> list[Found]:
        return look(self.registry, (self.transfers,), now=self.clock())

    def kinds(self) -> list[str]:
        return [found.kind for found in self.look()]

    def remove(self) -> list[Removed]:
        return remove(self.registry, self.look(), now=self.clock())


@pytest.fixture
def lab(registry, record_of, files_in, clock, tmp_path) -> Lab:
    return Lab(registry, record_of, files_in, clock, tmp_path)


def everything(root: Path) -> dict[str, bytes | str]:
    """Each file's content and each link's target, below a folder."""
    return {
        path.relative_to(root).as_posix(): (
            str(path.readlink()) if path.is_symlink() else path.read_bytes()
        )
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def test_a_library_that_is_not_there_needs_nothing(lab) -> None:
    assert lab.look() == []
    assert not lab.registry.models_dir.exists()


def test_a_library_in_use_has_nothing_to_clean(lab) -> None:
    lab.registry.delete(lab.model("deleted").id)
    lab.clock.go_on(days=29)
    lab.model("a")
    lab.model("linked", link=True)
    for status in ("training", "interrupted", "failed"):
        lab.registry.register(lab.record_of(status, status=status))
    there = Location(kind="worker", name="gpu-1", last_seen=lab.clock())
    lab.registry.register(lab.record_of("remote", status="completed", locations=(there,)))
    lab.folder(lab.registry.incoming / ".tmp-0123", age_s=ABANDONED_S / 2)
    lab.partial(lab.registry.incoming, age_s=ABANDONED_S / 2)
    assert lab.look() == []


def test_transfers_that_were_cut(lab) -> None:
    ours, theirs = lab.partial(lab.registry.incoming), lab.partial(lab.transfers)
    lab.folder(lab.transfers / "somebody's own folder")
    found = lab.look()
    assert [(one.kind, one.path) for one in found] == [("partial", ours), ("partial", theirs)]
    assert all(4096 <= one.size <= 16384 for one in found)
    assert lab.look() == found  # looking changes nothing
    assert [done.why for done in lab.remove()] == ["", ""]
    assert not ours.exists()
    assert not theirs.exists()
    assert (lab.transfers / "somebody's own folder" / "data").exists()


def test_a_transfer_that_somebody_works_on_is_not_looked_at(lab) -> None:
    path = lab.partial(lab.transfers)
    found = lab.look()
    with Claim(path, what="a transfer"):
        lab.age(path)
        assert lab.look() == []
        (done,) = remove(lab.registry, found, now=lab.clock())
        assert "in use" in done.why
    lab.age(path, 60)
    (done,) = remove(lab.registry, found, now=lab.clock())
    assert "works there again" in done.why
    assert (path / "data").exists()


def test_models_that_were_never_finished(lab) -> None:
    path = lab.folder(lab.registry.incoming / ".tmp-0123456789abcdef")
    lab.folder(lab.registry.incoming / "young", age_s=60)
    (found,) = lab.look()
    assert (found.kind, found.path) == ("abandoned", path)
    lab.remove()
    assert not path.exists()
    assert (lab.registry.incoming / "young").exists()


def test_trash_of_more_than_thirty_days(lab) -> None:
    entry = lab.model("old")
    trash = lab.registry.delete(entry.id)
    strange = lab.folder(lab.registry.models_dir / layout.TRASH / "a person's")
    lab.clock.go_on(days=31)
    assert lab.kinds() == ["trash", "trash"]
    assert [done.why for done in lab.remove()] == ["", ""]
    assert not trash.exists()
    assert not entry.directory.exists()
    assert strange.exists()


def test_a_deletion_that_was_taken_back_stays(lab) -> None:
    entry = lab.model("old")
    lab.registry.delete(entry.id)
    lab.clock.go_on(days=31)
    found = [one for one in lab.look() if one.path.name == layout.RECORD]
    lab.model("old")  # the same model came again
    (done,) = remove(lab.registry, found, now=lab.clock())
    assert done.why
    assert lab.registry.get(entry.id).record.status == "completed"


def test_records_without_files(lab) -> None:
    entry = lab.model("lost")
    (entry.directory / "best.ckpt").unlink()
    nowhere = lab.registry.register(lab.record_of("nowhere", status="missing"))
    lab.model("kept")
    found = lab.look()
    assert {one.model for one in found} == {entry.id, nowhere.id}
    assert {one.kind for one in found} == {"records"}
    (entry.directory / "best.ckpt").write_text("lost")  # it came back meanwhile
    done = {each.found.model: each for each in remove(lab.registry, found, now=lab.clock())}
    assert "there again" in done[entry.id].why
    assert done[nowhere.id].why == ""
    assert not lab.registry.exists(nowhere.id)
    assert lab.registry.exists(entry.id)


def test_links_that_lead_nowhere_are_a_kind_of_their_own(lab) -> None:
    entry = lab.model("linked", link=True)
    drive = lab.theirs.rename(lab.theirs.with_name("unplugged"))
    (found,) = lab.look()
    assert (found.kind, found.model) == ("broken-links", entry.id)
    assert found.kind in cleaning.BY_NAME
    lab.remove()
    assert not lab.registry.exists(entry.id)
    assert (drive / "best.ckpt").read_text() == "linked"


def test_files_without_a_record_go_to_the_trash(lab) -> None:
    models = lab.registry.models_dir
    path = lab.folder(models / "centroid_0badcafe")
    lab.folder(models / "somebody's own")
    lab.folder(models / "centroid_0badcaff", age_s=60)
    (models / "centroid_0badcafd").symlink_to(lab.theirs)
    (found,) = lab.look()
    assert (found.kind, found.path) == ("files", path)
    assert found.kind in cleaning.BY_NAME
    (done,) = lab.remove()
    assert (done.trash / "data").read_bytes() == b"x" * 4096
    assert (models / "somebody's own").exists()
    assert (models / "centroid_0badcafd").is_symlink()


def test_no_link_is_ever_followed(lab, tmp_path) -> None:
    mine = tmp_path / "mine"
    lab.files_in(mine, best_ckpt="thesis")
    lab.age(mine)
    incoming = lab.registry.incoming
    (incoming / PARTIAL).symlink_to(mine)
    (incoming / ".tmp-0123").symlink_to(mine)
    (incoming.parent / ".trash").symlink_to(mine)
    lab.transfers.symlink_to(mine)
    inside = lab.folder(incoming / ".tmp-4567")
    (inside / "link").symlink_to(mine)
    lab.age(inside)
    before = everything(mine)
    assert [found.path for found in lab.look()] == [inside]
    lab.remove()
    assert not inside.exists()
    assert everything(mine) == before


def test_what_is_gone_meanwhile_is_said(lab) -> None:
    path = lab.folder(lab.registry.incoming / ".tmp-0123")
    found = lab.look()
    path.rename(path.with_name("elsewhere"))
    (done,) = remove(lab.registry, found, now=lab.clock())
    assert "not there" in done.why
    path.symlink_to(lab.theirs)
    (done,) = remove(lab.registry, found, now=lab.clock())
    assert "not there" in done.why


def test_measuring_has_an_end(lab, monkeypatch, tmp_path) -> None:
    folder = lab.folder(tmp_path / "many")
    for number in range(10):
        lab.folder(folder / f"{number}" / "deep")
    assert measure(folder).size >= 11 * 4096
    monkeypatch.setattr(cleaning, "MAX_MEASURED", 3)
    assert measure(folder).size < 11 * 4096
    assert measure(tmp_path / "gone").newest == 0.0


def test_each_model_is_looked_at_once_and_it_is_told_how_far_it_is(lab, monkeypatch) -> None:
    for name in ("a", "b", "c"):
        lab.model(name)
    lab.folder(lab.registry.models_dir / "centroid_00000000")
    looked: list[str] = []
    read = cleaning.records.read
    monkeypatch.setattr(
        cleaning.records, "read", lambda path: (looked.append(path.name), read(path))[1]
    )
    told: list[tuple[int, int]] = []
    found = look(lab.registry, now=lab.clock(), told=lambda *far: told.append(far))
    assert [one.kind for one in found] == ["files"]
    assert len(looked) == len(set(looked)) == 3
    assert told == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
