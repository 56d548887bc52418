"""Mending models: by content, and nothing of anybody's is lost by it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sleap_rtc.domain import values
from sleap_rtc.errors import (
    AmbiguousName,
    Damaged,
    FilesMissing,
    NewerFormat,
    UnknownModel,
    UnsafePath,
)
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.library import repair
from sleap_rtc.library.chain import file_name, top
from sleap_rtc.library.checking import state_of
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.registry import Registry


class Lab:
    def __init__(self, registry: Registry, record_of: Any, files_in: Any, root: Path) -> None:
        self.registry, self.record_of, self.files_in = registry, record_of, files_in
        self.theirs = root / "lab" / "drive" / "theirs"
        self.cache = HashCache(root / "hashes")

    def copied(self, name: str = "run", **contents: str) -> Entry:
        folder = self.registry.incoming / name
        files = self.files_in(folder, **contents)
        return self.registry.place(folder, self.record_of(name, status="completed", files=files))

    def linked(self, **contents: str) -> Entry:
        listed = self.files_in(self.theirs, **contents)
        folder = self.registry.incoming / "linked"
        folder.mkdir()
        files = []
        for file in listed:
            real = os.path.realpath(self.theirs / file.path)
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            (folder / file.path).symlink_to(real)
            files.append(replace(file, link=real))
        record = self.record_of(
            "linked", status="imported", source="local-import", files=tuple(files)
        )
        return self.registry.place(folder, record, links=True)

    def faults(self, entry: Entry) -> tuple[repair.Fault, ...]:
        return repair.examine(self.registry.get(entry.id), self.cache)

    def states(self, entry: Entry) -> list[str]:
        return [fault.state for fault in self.faults(entry)]

    def nearby(self, entry: Entry, near: Path | None = None) -> dict[str, Path]:
        entry = self.registry.get(entry.id)
        return repair.find_nearby(entry, self.faults(entry), self.cache, near=near)

    def whole(self, entry: Entry) -> bool:
        now = self.registry.get(entry.id)
        return all(state_of(now.directory, file, self.cache) == "ok" for file in now.record.files)


@pytest.fixture
def lab(registry, record_of, files_in, tmp_path) -> Lab:
    return Lab(registry, record_of, files_in, tmp_path)


# ── records ──────────────────────────────────────────────────────────────────


def changed(lab: Lab, entry: Entry, times: int = 3) -> Path:
    for number in range(times):
        lab.registry.update(entry.id, lambda old, n=number: replace(old, notes=f"note {n}"))
    return entry.directory / ".record"


def test_the_last_good_revision_becomes_the_newest(lab) -> None:
    entry = lab.copied()
    folder = changed(lab, entry)
    assert repair.mend_record(lab.registry, entry.directory) is None
    for number in (4, 3):
        (folder / file_name(number)).write_bytes(b"\0" * 100)
    mended = repair.mend_record(lab.registry, entry.directory)
    assert mended is not None
    assert mended.source == 2
    assert lab.registry.get(entry.id).record.notes == "note 0"
    assert len(mended.aside) == 2
    assert all((folder / name).read_bytes() == b"\0" * 100 for name in mended.aside)
    assert (folder / file_name(5)).exists()
    assert repair.mend_record(lab.registry, entry.directory) is None
    changed(lab, entry, times=7)  # it goes on as ever, and what was moved aside stays
    assert all((folder / name).exists() for name in mended.aside)


def test_where_no_revision_is_good_the_copy_for_people_is(lab) -> None:
    entry = lab.copied()
    folder = changed(lab, entry, times=1)
    for path in folder.glob("*.json"):
        path.write_bytes(b"{")
    with pytest.raises(Damaged):
        lab.registry.get(entry.id)
    assert repair.directories_of(lab.registry, entry.id) == (entry.directory,)
    mended = repair.mend_record(lab.registry, entry.directory)
    assert mended is not None
    assert mended.source == 0
    assert lab.registry.get(entry.id).record.notes == "note 0"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path, _: path.unlink(),
        lambda path, _: path.write_text("{"),
        lambda path, record: path.write_bytes(
            values.encode(replace(record, id="0badcafe", notes="another's"))
        ),
        lambda path, record: path.write_bytes(
            values.encode(record).replace(b'"best.ckpt"', b'"../../.profile"')
        ),
        lambda path, _: (path.unlink(), path.symlink_to("/etc/hostname")),
    ],
    ids=["gone", "cut", "another's", "leads out", "link"],
)
def test_a_copy_that_is_no_better_is_not_believed(lab, spoil: Callable[..., Any]) -> None:
    entry = lab.copied()
    (entry.directory / ".record" / file_name(1)).write_bytes(b"{")
    spoil(entry.directory / "model.json", entry.record)
    with pytest.raises(Damaged, match="nor its copy"):
        repair.mend_record(lab.registry, entry.directory)
    assert top(entry.directory / ".record") == 1


def test_what_a_later_version_wrote_is_left_alone(lab) -> None:
    entry = lab.copied()
    later = values.encode(replace(entry.record, format="2.0"))
    (entry.directory / ".record" / file_name(2)).write_bytes(later)
    with pytest.raises(NewerFormat):
        repair.mend_record(lab.registry, entry.directory)
    assert top(entry.directory / ".record") == 2


def test_a_model_is_found_by_any_of_its_names(lab, tmp_path) -> None:
    entry, other = lab.copied(), lab.copied("other")
    lab.registry.set_alias("fly", entry.id)
    for name in (entry.id, entry.id[:6], "fly"):
        assert repair.directories_of(lab.registry, name) == (entry.directory,)
    (entry.directory / ".record" / file_name(1)).write_bytes(b"{")
    for name in (entry.id, entry.id[:6], "fly"):
        assert repair.directories_of(lab.registry, name) == (entry.directory,)
    with pytest.raises(Damaged) as caught:
        lab.registry.get(entry.id)
    assert f"sleap-rtc repair-model {entry.id} " in caught.value.hint_text
    for name in ("nobody", "0badcafe", str(tmp_path)):
        with pytest.raises(UnknownModel):
            repair.directories_of(lab.registry, name)
    with pytest.raises((UnknownModel, AmbiguousName)):
        repair.directories_of(lab.registry, "")
    with pytest.raises(UnknownModel):
        repair.mend_record(lab.registry, other.directory.with_name("centroid_0badcafe"))


def test_of_two_aliases_of_its_own_the_later_stays(lab) -> None:
    entry, other = lab.copied(), lab.copied("other")
    lab.registry.set_alias("first", entry.id)
    # As two processes may leave it behind: the alias is made, and the former one isn't removed.
    aliases = lab.registry._finder.aliases
    aliases._set("second", (entry.id,), [entry.directory], force=False)
    lab.registry.set_alias("theirs", other.id)
    assert repair.mend_aliases(lab.registry, entry.id) == ("first",)
    assert [alias.name for alias in lab.registry.list_aliases()] == ["second", "theirs"]
    assert repair.mend_aliases(lab.registry, entry.id) == ()


# ── links ────────────────────────────────────────────────────────────────────


def test_a_folder_that_was_moved_is_found_by_its_content(lab) -> None:
    entry = lab.linked(best_ckpt="weights", logs__log="epoch")
    new = lab.theirs.with_name("archive") / "2026"
    new.parent.mkdir()
    lab.theirs.rename(new)
    assert lab.states(entry) == ["broken-link", "broken-link"]
    found = lab.nearby(entry)
    assert found == {"best.ckpt": new / "best.ckpt", "logs/log": new / "logs" / "log"}
    repair.relink(lab.registry, lab.registry.get(entry.id), found)
    assert lab.whole(entry)
    record = lab.registry.get(entry.id).record
    assert {file.link for file in record.files} == set(map(str, found.values()))
    assert (entry.directory / "best.ckpt").is_symlink()


def test_a_file_of_the_same_name_and_size_is_not_taken_for_it(lab) -> None:
    entry = lab.linked(best_ckpt="weights")
    (lab.theirs / "best.ckpt").write_text("WEIGHTS")
    assert lab.states(entry) == ["changed"]
    assert lab.nearby(entry) == {}
    (lab.theirs / "renamed").write_text("weights")
    assert lab.nearby(entry) == {"best.ckpt": lab.theirs / "renamed"}


def test_the_place_that_is_named_is_searched_alone(lab, tmp_path) -> None:
    entry = lab.linked(best_ckpt="weights")
    far = tmp_path / "far away" / "deep"
    far.mkdir(parents=True)
    (lab.theirs / "best.ckpt").rename(far / "any name")
    assert lab.nearby(entry, far.parent) == {"best.ckpt": far / "any name"}
    assert lab.nearby(entry, far / "any name") == {"best.ckpt": far / "any name"}
    shortcut = tmp_path / "shortcut"
    shortcut.symlink_to(far / "any name")
    assert lab.nearby(entry, shortcut) == {"best.ckpt": far / "any name"}
    assert lab.nearby(entry, tmp_path / "nowhere") == {}
    (far / "loop").symlink_to(far)
    (far / "self").symlink_to(far / "self")
    assert lab.nearby(entry, far) == {"best.ckpt": far / "any name"}


def test_a_link_that_a_person_mended_is_taken_over(lab) -> None:
    entry = lab.linked(best_ckpt="weights")
    place, moved = entry.directory / "best.ckpt", lab.theirs / "moved.ckpt"
    (lab.theirs / "best.ckpt").rename(moved)
    place.unlink()
    place.symlink_to(moved)
    assert lab.states(entry) == ["changed"]  # the record doesn't name this target
    repair.relink(lab.registry, lab.registry.get(entry.id), lab.nearby(entry))
    assert lab.whole(entry)
    assert place.readlink() == moved


def test_what_may_not_be_read_is_not_called_another(lab) -> None:
    entry = lab.linked()
    user = os.geteuid()
    lab.theirs.chmod(0o700 if user == 0 else 0)
    try:
        if user == 0:  # who may read everything; others may not enter a test's folder
            os.seteuid(65534)
        with pytest.raises(PermissionError, match=r"best\.ckpt"):
            repair.examine(entry, lab.cache)
    finally:
        os.seteuid(user)
        lab.theirs.chmod(0o700)
    assert lab.faults(entry) == ()


def test_what_is_not_our_link_is_not_replaced(lab) -> None:
    entry = lab.linked(best_ckpt="weights")
    new = lab.theirs / "new"
    (lab.theirs / "best.ckpt").rename(new)
    place = entry.directory / "best.ckpt"
    place.unlink()
    for put in (lambda: place.write_text("mine"), lambda: place.symlink_to("/etc/hostname")):
        put()
        with pytest.raises(UnsafePath):
            repair.relink(lab.registry, lab.registry.get(entry.id), {"best.ckpt": new})
        assert os.path.lexists(place)
        place.unlink()
    repair.relink(lab.registry, lab.registry.get(entry.id), {"best.ckpt": new})
    assert lab.whole(entry)


def test_a_search_has_an_end(lab, monkeypatch) -> None:
    entry = lab.linked(best_ckpt="weights")
    for number in range(20):
        (lab.theirs / f"a{number:02d}").write_text("other")
    (lab.theirs / "best.ckpt").rename(lab.theirs / "z")
    assert lab.nearby(entry) != {}
    monkeypatch.setattr(repair, "MAX_LOOKED", 10)
    assert lab.nearby(entry) == {}


# ── files ────────────────────────────────────────────────────────────────────


def test_a_copy_comes_back_and_what_was_in_the_way_goes_to_the_trash(lab, tmp_path) -> None:
    entry = lab.copied(best_ckpt="weights", logs__log="epoch", c_yaml="c: 1")
    (entry.directory / "best.ckpt").write_text("WEIGHTS")
    (entry.directory / "logs" / "log").unlink()
    (entry.directory / "logs").rmdir()
    (entry.directory / "logs").write_text("a file where a folder was")
    assert sorted(lab.states(entry)) == ["changed", "missing"]
    backup = tmp_path / "backup"
    lab.files_in(backup, best_ckpt="weights", logs__log="epoch")
    found = lab.nearby(entry, backup)
    assert set(found) == {"best.ckpt", "logs/log"}
    repair.copy_in(lab.registry, lab.registry.get(entry.id), found)
    assert lab.whole(entry)
    (trash,) = (lab.registry.models_dir / ".trash").iterdir()
    assert (trash / "best.ckpt").read_text() == "WEIGHTS"
    assert (trash / "logs").read_text() == "a file where a folder was"
    assert (backup / "best.ckpt").exists()
    assert list(lab.registry.incoming.iterdir()) == []


def test_what_comes_back_is_looked_into_whatever_the_record_says(lab, tmp_path) -> None:
    copied, linked = lab.copied(), lab.linked()
    for entry in (copied, linked):
        lab.registry.update(
            entry.id,
            lambda old: replace(old, files=tuple(replace(f, safety="safe") for f in old.files)),
        )
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a").write_text("weights")
    (copied.directory / "best.ckpt").unlink()
    (lab.theirs / "best.ckpt").unlink()
    for model, mend in ((copied.id, repair.copy_in), (linked.id, repair.relink)):
        entry = lab.registry.get(model)
        (file,) = mend(lab.registry, entry, lab.nearby(entry, tmp_path / "elsewhere")).record.files
        assert file.safety == "unknown"
        assert file.found


def test_in_place_of_a_link_to_another_file_comes_a_copy(lab, tmp_path) -> None:
    entry = lab.linked(best_ckpt="weights")
    (lab.theirs / "best.ckpt").write_text("retrained by its owner")
    backup = tmp_path / "backup"
    lab.files_in(backup, best_ckpt="weights")
    repair.copy_in(lab.registry, lab.registry.get(entry.id), lab.nearby(entry, backup))
    assert lab.whole(entry)
    assert not (entry.directory / "best.ckpt").is_symlink()
    assert lab.registry.get(entry.id).record.files[0].link is None
    assert (lab.theirs / "best.ckpt").read_text() == "retrained by its owner"


def test_other_content_is_never_put_back(lab) -> None:
    entry = lab.copied()
    (entry.directory / "best.ckpt").write_text("WEIGHTS")
    ready = lab.registry.incoming / "ready"
    ready.mkdir()
    (ready / "best.ckpt").write_text("wEIGHTS")
    with pytest.raises(Damaged):
        repair.put_back(lab.registry, entry, ready)
    (ready / "best.ckpt").unlink()
    (ready / "best.ckpt").symlink_to(lab.theirs)
    with pytest.raises(Damaged):
        repair.put_back(lab.registry, entry, ready)
    (ready / "best.ckpt").unlink()
    with pytest.raises(FilesMissing):
        repair.put_back(lab.registry, entry, ready)
    assert (entry.directory / "best.ckpt").read_text() == "WEIGHTS"


def test_a_model_that_was_missing_is_so_no_longer(lab) -> None:
    for entry, came in ((lab.linked(), "imported"), (lab.copied(), "completed")):
        lab.registry.update(entry.id, lambda old: replace(old, status="missing"))
        assert repair.found_again(lab.registry, entry).record.status == came
    assert repair.found_again(lab.registry, entry).record.status == "completed"
