import contextlib
import io
import os
import re
import shutil
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.errors import AlreadyExists, DataError, NewerFormat, OutOfSpace, UsageError
from sleap_rtc.library import backup, unpacking
from sleap_rtc.library.merging import Report
from sleap_rtc.library.registry import Registry

RecordOf = Callable[..., ModelRecord]


@pytest.fixture
def other(tmp_path: Path, clock: Any) -> Any:
    """A second library."""
    with Registry(tmp_path / "other", clock=clock, index_dir=tmp_path / "other-index") as registry:
        yield registry


@pytest.fixture
def filled(registry: Registry, arrive: Any, record_of: RecordOf) -> Registry:
    """Two models with files, a pair of names, one in training."""
    a = arrive("a", "weights a", tags=("flies",))
    b = arrive("b", "weights b", model_type="centered_instance")
    registry.set_alias("Fly", a.id)
    registry.set_alias("pair", a.id, b.id)
    registry.register(record_of("c"))
    return registry


@pytest.fixture
def linked(registry: Registry, record_of: RecordOf, files_in: Any, tmp_path: Path) -> Any:
    """A model that was imported by link."""
    files = files_in(tmp_path / "runs")
    folder = registry.claims.new_folder()
    listed = tuple(replace(file, link=str(tmp_path / "runs" / file.path)) for file in files)
    for file in listed:
        (folder / file.path).symlink_to(file.link)
    return registry.place(folder, record_of("l", status="imported", files=listed), links=True)


def fates(report: Report) -> dict[str, str]:
    return {each.name: each.fate for each in report.outcomes}


def content(registry: Registry) -> dict[str, Any]:
    """Everything that a person has in a library."""
    return {
        entry.id: (
            entry.record,
            entry.alias,
            {f.path: (entry.directory / f.path).read_bytes() for f in entry.record.files},
        )
        for entry in registry.walk()
    }


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tgz", "x.tar.zst"])
def test_what_was_saved_is_restored(
    filled: Registry, other: Registry, tmp_path: Path, clock: Any, name: str
) -> None:
    steps: list[tuple[int, int]] = []
    saved = backup.save(
        filled, tmp_path / name, now=clock(), moved=lambda done, of: steps.append((done, of))
    )
    assert (saved.models, saved.aliases, saved.size, saved.left_out) == (3, 2, 20, ())
    assert steps[-1] == (20, 20)
    steps.clear()
    report = unpacking.restore(
        other, tmp_path / name, moved=lambda done, of: steps.append((done, of))
    )
    assert set(fates(report).values()) == {"added"}
    assert steps[-1] == (20, 20)
    before, after = content(filled), content(other)
    missing = next(id_ for id_, (record, _, _) in before.items() if record.name == "c")
    record, alias, files = before[missing]
    assert after.pop(missing) == (replace(record, status="missing"), alias, files)
    before.pop(missing)
    assert after == before
    names = [{a.name: a.models for a in each.list_aliases()} for each in (filled, other)]
    assert names[0] == names[1]

    again = unpacking.restore(other, tmp_path / name)
    assert set(fates(again).values()) == {"known"}
    assert list(other.incoming.iterdir()) == []


def test_any_tar_opens_it(filled: Registry, tmp_path: Path, clock: Any) -> None:
    backup.save(filled, tmp_path / "x.tar", now=clock())
    with tarfile.open(tmp_path / "x.tar") as archive:
        names = archive.getnames()
        assert names[:2] == ["sleap-rtc/backup.json", "sleap-rtc/manifest.json"]
        assert len(names) == 6
        archive.extractall(tmp_path / "out", filter="data")
    assert len(list((tmp_path / "out").rglob("best.ckpt"))) == 2


def test_linked_files_are_saved_as_places_or_with_their_contents(
    registry: Registry, other: Registry, linked: Any, tmp_path: Path, clock: Any
) -> None:
    assert backup.save(registry, tmp_path / "places.tar", now=clock()).size == 0
    assert backup.save(registry, tmp_path / "x.tar", now=clock(), contents=True).size == 7
    assert fates(unpacking.restore(other, tmp_path / "places.tar")) == {linked.id: "added"}
    assert (other.get(linked.id).directory / "best.ckpt").is_symlink()
    assert other.get(linked.id).record == linked.record

    (tmp_path / "runs" / "best.ckpt").unlink()
    index = tmp_path / "third-index"
    with Registry(tmp_path / "third", clock=clock, index_dir=index) as third:
        assert fates(unpacking.restore(third, tmp_path / "places.tar")) == {linked.id: "added"}
        assert third.get(linked.id).record.status == "missing"
    with Registry(tmp_path / "fourth", clock=clock, index_dir=index) as fourth:
        unpacking.restore(fourth, tmp_path / "x.tar")
        path = fourth.get(linked.id).directory / "best.ckpt"
        assert (path.is_symlink(), path.read_text()) == (False, "weights")
        assert fourth.get(linked.id).record.files[0].link is None


def test_that_a_file_is_clean_is_not_believed(
    registry: Registry, other: Registry, linked: Any, tmp_path: Path, clock: Any
) -> None:
    def safe(old: ModelRecord) -> ModelRecord:
        return replace(old, files=tuple(replace(file, safety="safe") for file in old.files))

    registry.update(linked.id, safe)
    for name, contents in (("places.tar", False), ("contents.tar", True)):
        backup.save(registry, tmp_path / name, now=clock(), contents=contents)
        unpacking.restore(other, tmp_path / name)
        (came,) = other.get(linked.id).record.files
        assert (came.safety, came.link is None) == ("unknown", contents)
        assert came.found
        other.delete(linked.id)
        shutil.rmtree(other.models_dir)


def test_a_library_that_has_models_is_merged_with(
    filled: Registry, other: Registry, tmp_path: Path, clock: Any, record_of: RecordOf
) -> None:
    backup.save(filled, tmp_path / "x.tar", now=clock())
    theirs = filled.get("Fly")
    mine = other.register(record_of("mine", id=theirs.id))
    other.set_alias("Fly", mine.id)
    gone = filled.get("pair:centered_instance").id
    unpacking.restore(other, tmp_path / "x.tar")
    other.delete(gone)
    report = unpacking.restore(other, tmp_path / "x.tar")
    assert fates(report)[theirs.id] == "known"
    assert fates(report)[gone] == "deleted"
    assert other.get("Fly").id == mine.id
    assert (other.get(f"{theirs.id}-2").directory / "best.ckpt").read_text() == "weights a"
    assert len(list(other.walk())) == 3
    assert fates(unpacking.restore(other, tmp_path / "x.tar", revive=True))[gone] == "added"
    assert (other.get(gone).directory / "best.ckpt").read_text() == "weights b"


def test_what_can_not_be_saved_is_named(
    filled: Registry, other: Registry, tmp_path: Path, clock: Any
) -> None:
    a, b = filled.get("Fly"), filled.get("pair:centered_instance")
    (a.directory / "best.ckpt").write_text("WEIGHTS A")
    (b.directory / "best.ckpt").unlink()
    (filled.models_dir / "centroid_00000000" / ".record").mkdir(parents=True)
    (filled.models_dir / "centroid_00000000" / ".record" / "00000001.json").write_text("{")
    saved = backup.save(filled, tmp_path / "x.tar", now=clock())
    why = {each.directory: each.why for each in saved.left_out}
    assert set(why) == {a.directory.name, b.directory.name, "centroid_00000000"}
    assert "is not the file that its record lists" in why[a.directory.name]
    unpacking.restore(other, tmp_path / "x.tar")
    assert {entry.record.status for entry in other.walk()} == {"missing"}


def test_what_a_model_lacks_is_one_sentence(
    registry: Registry, arrive: Any, tmp_path: Path, clock: Any
) -> None:
    entry = arrive()
    for file in entry.record.files:
        (entry.directory / file.path).unlink()
    (lacking,) = backup.save(registry, tmp_path / "x.tar", now=clock()).left_out
    assert lacking.directory == entry.directory.name
    assert lacking.why.endswith("No such file or directory, and 1 more of its files likewise")


@pytest.mark.parametrize("cut", [0, 1, 511, 512, 2_000, 6_000, 9_000, -1_024, -5_000])
def test_a_cut_backup_restores_whole_models_or_none(
    filled: Registry, other: Registry, tmp_path: Path, clock: Any, cut: int
) -> None:
    backup.save(filled, tmp_path / "x.tar", now=clock())
    data = (tmp_path / "x.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[:cut])
    with contextlib.suppress(DataError):
        unpacking.restore(other, tmp_path / "cut.tar")
    for entry in other.walk():
        assert entry.record.status == "missing" or all(
            (entry.directory / file.path).stat().st_size == file.size for file in entry.record.files
        )
    assert list(other.incoming.iterdir()) == []
    assert set(fates(unpacking.restore(other, tmp_path / "x.tar")).values()) <= {"added", "known"}


@pytest.mark.parametrize("at", [0.05, 0.3, 0.6])
def test_a_damaged_compressed_backup(
    filled: Registry, other: Registry, tmp_path: Path, clock: Any, at: float
) -> None:
    backup.save(filled, tmp_path / "x.tar.gz", now=clock())
    data = bytearray((tmp_path / "x.tar.gz").read_bytes())
    place = int(len(data) * at)
    data[place : place + 8] = b"\xff" * 8
    (tmp_path / "x.tar.gz").write_bytes(data)
    with pytest.raises(DataError):
        unpacking.restore(other, tmp_path / "x.tar.gz")


def forged(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    """The archive, with more in it."""
    with tarfile.open(path, "a") as archive:
        for info, data in members:
            info.size = len(data) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(data))


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "info",
    [
        member("../../escaped"),
        member("/tmp/escaped"),
        member("sleap-rtc/models/../../escaped"),
        member("sleap-rtc/models/centroid_00000000/x"),
        member("sleap-rtc/models/MODEL/../x"),
        member("sleap-rtc/models/MODEL/more.ckpt"),
        member("sleap-rtc/models/MODEL/.record/00000009.json"),
        member("sleap-rtc/models/MODEL/best.ckpt"),
        member("sleap-rtc/models/MODEL/best.ckpt", tarfile.SYMTYPE, "/etc/passwd"),
        member("sleap-rtc/models/MODEL/best.ckpt", tarfile.LNKTYPE, "/etc/passwd"),
        member("sleap-rtc/models/MODEL/best.ckpt", tarfile.DIRTYPE),
        member("sleap-rtc/models/MODEL/best.ckpt", tarfile.FIFOTYPE),
    ],
)
def test_nothing_but_listed_files_comes_out(
    filled: Registry, other: Registry, tmp_path: Path, clock: Any, info: tarfile.TarInfo
) -> None:
    backup.save(filled, tmp_path / "x.tar", now=clock())
    named = in_model(info, filled.get("Fly").directory.name)
    forged(tmp_path / "x.tar", [(named, b"weights x")])
    before = {path for path in tmp_path.rglob("*") if "other" not in path.parts}
    with pytest.raises(DataError):
        unpacking.restore(other, tmp_path / "x.tar")
    after = {path for path in tmp_path.rglob("*") if "other" not in path.parts}
    assert {path for path in after - before if "other" not in str(path)} == set()
    assert not (tmp_path / "escaped").exists()
    assert list(other.incoming.iterdir()) == []
    for entry in other.walk():
        if entry.record.files and entry.record.status != "missing":
            assert (entry.directory / "best.ckpt").read_text().startswith("weights ")


def in_model(info: tarfile.TarInfo, model: str) -> tarfile.TarInfo:
    copy = member(info.name.replace("MODEL", model), info.type, info.linkname)
    copy.size = info.size
    return copy


def test_other_files_are_no_backups(other: Registry, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello" * 1_000)
    (tmp_path / "empty").touch()
    with tarfile.open(tmp_path / "other.tar", "w") as archive:
        archive.addfile(member("hello"))
    for name in ("text", "empty", "other.tar"):
        with pytest.raises(DataError, match="backup"):
            unpacking.restore(other, tmp_path / name)
    with pytest.raises(FileNotFoundError):
        unpacking.restore(other, tmp_path / "none")
    assert list(other.walk()) == []


def test_a_later_backup_is_refused(other: Registry, tmp_path: Path, clock: Any) -> None:
    head = backup.Head(made_at=clock(), models=0, size=0, links="places", format="2.0")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        data = msgspec.json.encode(msgspec.to_builtins(head))
        info = member("sleap-rtc/backup.json")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    with pytest.raises(NewerFormat):
        unpacking.restore(other, tmp_path / "x.tar")


def test_a_file_that_is_there_stays(filled: Registry, tmp_path: Path, clock: Any) -> None:
    path = tmp_path / "x.tar"
    path.write_text("mine")
    with pytest.raises(AlreadyExists):
        backup.save(filled, path, now=clock())
    assert path.read_text() == "mine"
    backup.save(filled, path, now=clock(), replacing=True)
    assert tarfile.is_tarfile(path)
    with pytest.raises(UsageError, match=r"\.tar"):
        backup.save(filled, tmp_path / "x.zip", now=clock())


def test_an_interrupted_backup_leaves_nothing(filled: Registry, tmp_path: Path, clock: Any) -> None:
    folder = tmp_path / "out"
    folder.mkdir()

    def interrupt(_done: int, _of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backup.save(filled, folder / "x.tar", now=clock(), moved=interrupt)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("after", [0, 9, 10, 19])
def test_an_interrupted_restore_leaves_whole_models(
    filled: Registry, other: Registry, tmp_path: Path, clock: Any, after: int
) -> None:
    backup.save(filled, tmp_path / "x.tar", now=clock())

    def interrupt(done: int, _of: int) -> None:
        if done > after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpacking.restore(other, tmp_path / "x.tar", moved=interrupt)
    assert list(other.incoming.iterdir()) == []
    for entry in other.walk():
        assert len(list(entry.directory.rglob("*ckpt"))) == 1
    assert len(fates(unpacking.restore(other, tmp_path / "x.tar"))) == 5
    assert len(list(other.walk())) == 3


def test_too_little_room_is_said_before_anything_is_written(
    filled: Registry, other: Registry, tmp_path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup.save(filled, tmp_path / "x.tar", now=clock())
    free = iter([1_000_000, 5])
    monkeypatch.setattr("sleap_rtc.files.space.free_space", lambda _: next(free))
    with pytest.raises(OutOfSpace, match="20 B are needed"):
        unpacking.restore(other, tmp_path / "x.tar")
    assert list(other.walk()) == []


def test_of_a_model_that_lacks_its_files_no_room_is_asked_for(
    registry: Registry, other: Registry, record_of: RecordOf, tmp_path: Path, clock: Any
) -> None:
    huge = ModelFile(path="best.ckpt", size=2**49, blake3="0" * 64)
    registry.take_in(record_of("gone", status="missing", files=(huge,)))
    saved = backup.save(registry, tmp_path / "x.tar", now=clock())
    assert (saved.size, len(saved.left_out)) == (0, 1)
    report = unpacking.restore(other, tmp_path / "x.tar")
    assert report.count("model", "added") == 1


def test_a_manifest_that_says_it_is_huge_is_not_unpacked(
    filled: Registry, other: Registry, tmp_path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup.save(filled, tmp_path / "x.tar", now=clock())
    with (
        tarfile.open(tmp_path / "x.tar") as archive,
        tarfile.open(tmp_path / "y.tar.gz", "w:gz") as out,
    ):
        head, text = archive.getmembers()[:2]
        out.addfile(head, archive.extractfile(head))
        text.size = 16 * 1024**3
        out.addfile(text)  # its header alone: what follows is never asked for
    monkeypatch.setattr("sleap_rtc.files.space.free_space", lambda _: 10**9)
    told: list[int] = []
    with pytest.raises(OutOfSpace, match=r"17 GB are needed"):
        unpacking.restore(other, tmp_path / "y.tar.gz", opening=lambda done, _: told.append(done))
    assert (told, list(other.incoming.iterdir())) == ([], [])


def test_what_takes_long_is_told_step_by_step(
    filled: Registry, other: Registry, tmp_path: Path, clock: Any
) -> None:
    backup.save(filled, tmp_path / "x.tar", now=clock())
    told: list[tuple[str, int, int]] = []

    def teller(step: str) -> Any:
        return lambda done, of: told.append((step, done, of))

    steps = ("opening", "told", "moved", "taken", "named")
    unpacking.restore(other, tmp_path / "x.tar", **{step: teller(step) for step in steps})
    assert tuple(dict.fromkeys(step for step, _, _ in told)) == steps
    ends = {step: (done, of) for step, done, of in told}
    size = ends.pop("opening")
    assert size[0] == size[1] > 1_000
    assert ends == {"told": (3, 3), "moved": (20, 20), "taken": (1, 1), "named": (2, 2)}


def test_of_two_directories_with_one_id_one_is_saved_and_the_other_named(
    filled: Registry, other: Registry, tmp_path: Path, clock: Any
) -> None:
    entry = filled.get("Fly")
    twin = filled.models_dir / f"bottomup_{entry.id}"
    shutil.copytree(entry.directory, twin)
    for path in twin.glob(".record/0*.json"):
        path.write_text(path.read_text().replace('"centroid"', '"bottomup"'))
    saved = backup.save(filled, tmp_path / "x.tar", now=clock())
    (left_out,) = saved.left_out
    assert left_out.directory in (entry.directory.name, twin.name)
    assert re.fullmatch(f"it has the id of [a-z]+_{entry.id}, and two .*", left_out.why)
    assert (saved.models, saved.size) == (3, 20)
    with tarfile.open(tmp_path / "x.tar") as archive:
        assert not [name for name in archive.getnames() if f"/{left_out.directory}/" in name]
    unpacking.restore(other, tmp_path / "x.tar")
    assert other.checkpoint_path(entry.id).read_text() == "weights a"


def test_a_file_that_shrinks_meanwhile_harms_no_other(
    filled: Registry, other: Registry, tmp_path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = filled.get("Fly").directory / "best.ckpt"
    real = backup.open_file

    def shrink(path: Path) -> int:
        fd = real(path)
        if path == victim:
            os.truncate(path, 3)
        return fd

    monkeypatch.setattr(backup, "open_file", shrink)
    saved = backup.save(filled, tmp_path / "x.tar", now=clock())
    assert [each.directory for each in saved.left_out] == [victim.parent.name]
    unpacking.restore(other, tmp_path / "x.tar")
    assert other.get("Fly").record.status == "missing"
    assert other.checkpoint_path("pair:centered_instance").read_text() == "weights b"


def test_what_a_backup_has_of_a_damaged_model_is_restored(
    registry: Registry, arrive: Any, other: Registry, tmp_path: Path, clock: Any
) -> None:
    entry = arrive()
    (entry.directory / "sub" / "config").write_text("!")
    saved = backup.save(registry, tmp_path / "b.tar", now=clock())
    assert len(saved.left_out) == 1
    unpacking.restore(other, tmp_path / "b.tar")
    came = other.get(entry.id)
    assert (came.record.status, came.record.files) == ("missing", entry.record.files)
    assert other.checkpoint_path(came.id).read_text() == "weights"
    assert not (came.directory / "sub" / "config").exists()


@pytest.fixture
def hostile(filled: Registry, tmp_path: Path, clock: Any) -> Callable[..., Path]:
    """A backup that was changed: ``hostile(records=…, twice=True)``."""

    def make(change: Callable[[Any], None] = lambda _: None, *, twice: bool = False) -> Path:
        good, bad = tmp_path / "good.tar", tmp_path / "bad.tar"
        backup.save(filled, good, now=clock())
        with tarfile.open(good) as source, tarfile.open(bad, "w") as target:
            for member in source:
                content = source.extractfile(member)
                assert content is not None
                data = content.read()
                if member.name.endswith("manifest.json"):
                    plain = msgspec.json.decode(data)
                    change(plain)
                    data = msgspec.json.encode(plain)
                    member.size = len(data)
                for _ in range(1 + (twice and "/models/" in member.name)):
                    target.addfile(member, io.BytesIO(data))
        return bad

    return make


def test_a_file_that_is_there_twice_is_refused(hostile: Any, other: Registry) -> None:
    with pytest.raises(DataError, match="in the backup twice"):
        unpacking.restore(other, hostile(twice=True))
    assert list(other.incoming.iterdir()) == []


@pytest.mark.parametrize("odd", ["best.ckpt/below", "n" * 300, "x/" * 400 + "x"])
def test_a_name_that_cannot_be_leaves_the_other_models(
    hostile: Any, other: Registry, odd: str
) -> None:
    def change(plain: Any) -> None:
        record = next(each for each in plain["models"].values() if each["files"])
        record["files"].append({**record["files"][0], "path": odd})

    report = unpacking.restore(other, hostile(change))
    assert report.count("model", "added") + report.count("model", "refused") == 3
    assert report.count("model", "added") >= 2


def test_a_link_that_is_no_path_is_no_link(hostile: Any, other: Registry) -> None:
    def change(plain: Any) -> None:
        for record in plain["models"].values():
            for file in record["files"][:1]:
                record["files"].append({**file, "path": "log", "link": "/a\0b"})

    report = unpacking.restore(other, hostile(change))
    assert report.count("model", "added") == 3


def test_no_more_than_a_record_is_held_in_memory(
    registry: Registry, other: Registry, record_of: RecordOf, tmp_path: Path, clock: Any
) -> None:
    large = replace(record_of().training, hyperparameters={"anchors": "x" * 500_000})
    for n in range(20):
        registry.register(record_of(str(n), training=large))
    path = tmp_path / "x.tar"
    told: list[tuple[int, int]] = []
    with peak() as saving:
        saved = backup.save(registry, path, now=clock(), told=lambda *far: told.append(far))
    assert (saved.models, told[-1]) == (20, (20, 20))
    assert path.stat().st_size > 10_000_000
    told.clear()
    with peak() as restoring:
        report = unpacking.restore(other, path, told=lambda *far: told.append(far))
    assert (report.count("model", "added"), told[-1]) == (20, (20, 20))
    assert max(saving[0], restoring[0]) < 8_000_000  # a record, some times over, and a piece read


@contextlib.contextmanager
def peak() -> Iterator[list[int]]:
    """Bytes that were held at once, at most, within the block."""
    held: list[int] = []
    tracemalloc.start()
    try:
        yield held
        held.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


def test_models_in_another_order_come_in_as_well(
    filled: Registry, other: Registry, tmp_path: Path, clock: Any
) -> None:
    backup.save(filled, tmp_path / "x.tar", now=clock())
    with tarfile.open(tmp_path / "x.tar") as archive, tarfile.open(tmp_path / "y.tar", "w") as out:
        head, text, *files = archive.getmembers()
        of_model: dict[str, list[tarfile.TarInfo]] = {}
        for file in files:
            of_model.setdefault(file.name.split("/")[2], []).append(file)
        turned = [file for each in list(of_model.values())[::-1] for file in each[::-1]]
        for member in (head, text, *turned):
            out.addfile(member, archive.extractfile(member))
    assert set(fates(unpacking.restore(other, tmp_path / "y.tar")).values()) == {"added"}
    assert other.checkpoint_path("Fly").read_text() == "weights a"


def test_a_model_that_changes_meanwhile_is_saved_as_the_manifest_has_it(
    filled: Registry, other: Registry, tmp_path: Path, clock: Any
) -> None:
    a, b = filled.get("Fly"), filled.get("pair:centered_instance")

    def change(done: int, of: int) -> None:
        if done == of:  # all records were read, no file was yet
            filled.delete(a.id, files=False)
            filled.update(b.id, lambda old: replace(old, notes="later"))

    backup.save(filled, tmp_path / "x.tar", now=clock(), told=change)
    unpacking.restore(other, tmp_path / "x.tar")
    assert other.checkpoint_path(a.id).read_text() == "weights a"
    assert other.get(b.id).record.notes == ""
