"""``repair-model`` on a library in this process; from a worker: tests/endtoend/test_library.py."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime

import msgspec
import pytest
from blake3 import blake3
from msgspec.structs import replace

from sleap_rtc.cli.care_documents import RepairDocument, RepairedShown
from sleap_rtc.domain.models import Location, ModelFile, ModelRecord
from sleap_rtc.library.chain import file_name

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def told(done) -> RepairedShown:
    (model,) = msgspec.convert(done.document, RepairDocument).models
    return model


@pytest.fixture
def linked(home, tmp_path):
    """A model imported by link, and where its file is."""
    theirs = tmp_path / "drive" / "flies" / "best.ckpt"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"weights")
    real = os.path.realpath(theirs)
    file = ModelFile(path="best.ckpt", size=7, blake3=blake3(b"weights").hexdigest(), link=real)
    record = ModelRecord(
        id="0a1b2c3d",
        name="linked",
        model_type="centroid",
        status="imported",
        source="local-import",
        created_at=NOW,
        files=(file,),
        checkpoint="best.ckpt",
    )
    with home.library as library:
        folder = library.incoming / "linked"
        folder.mkdir()
        (folder / "best.ckpt").symlink_to(real)
        return library.place(folder, record, links=True), theirs


def test_a_model_that_is_whole(cli, home):
    model = home.model("a")
    done = cli("repair-model", model.id)
    assert done.code == 0
    assert "Nothing was wrong" in done.err
    shown = told(cli("repair-model", model.id, "--json"))
    assert (shown.whole, shown.record, shown.files) == (True, "good", ())
    remote = home.model("b", files=False)
    assert "no files on this machine" in cli("repair-model", remote.id).err


def test_a_model_that_is_not_there(cli, tmp_path):
    assert cli("repair-model", "nobody").code == 3
    assert cli("repair-model", tmp_path).code == 3


def test_a_damaged_record_and_a_second_alias(cli, home):
    model = home.model("a")
    home.alias("first", model.id)
    with home.library as library:
        library.update(model.id, lambda old: replace(old, notes="kept"))
        library._finder.aliases._set("second", (model.id,), [model.directory], force=False)
    (model.directory / ".record" / file_name(3)).write_bytes(b"{")
    shown = told(cli("repair-model", "second", "--json"))
    assert (shown.whole, shown.record, shown.aliases) == (True, "mended", ("first",))
    assert shown.alias == "second"
    with home.library as library:
        assert library.get("second").record.notes == "kept"


def test_links_whose_files_have_moved(cli, linked):
    model, theirs = linked
    moved = theirs.rename(theirs.with_name("renamed.ckpt"))
    # Nobody is there to be asked: it is proposed, and nothing is done.
    done = cli("repair-model", model.id)
    assert done.code == 3
    assert f"best.ckpt is at {moved}." in done.err
    assert "--yes" in done.err
    # A person says no, then says where; then yes.
    done = cli("repair-model", model.id, terminal=True, stdin="n\n\n")
    assert done.code == 3
    assert "leads nowhere" in done.err
    done = cli("repair-model", model.id, terminal=True, stdin="y\n")
    assert done.code == 0
    assert "is whole" in done.err
    assert (model.directory / "best.ckpt").readlink() == moved


def test_the_place_is_asked_for(cli, linked, tmp_path):
    model, theirs = linked
    far = tmp_path / "elsewhere"
    far.mkdir()
    theirs.rename(far / "best.ckpt")
    (tmp_path / "empty").mkdir()
    answers = f"{tmp_path / 'nowhere'}\n{tmp_path / 'empty'}\n{far}\n"
    # What is nearby is looked at first: the parent folder of the drive isn't, here.
    theirs.parent.rmdir()
    theirs.parent.parent.rmdir()
    home = cli("repair-model", model.id, terminal=True, stdin="n\n" + answers)
    assert home.code == 0, home.err
    assert "There is nothing at" in home.err
    assert "nothing there has their content" in home.err
    assert (model.directory / "best.ckpt").readlink() == far / "best.ckpt"


def test_the_place_is_given(cli, linked, tmp_path):
    model, theirs = linked
    moved = theirs.rename(tmp_path / "new name")
    assert cli("repair-model", model.id, "--path", tmp_path / "nowhere").code == 3
    shown = told(cli("repair-model", model.id, "--path", moved, "--json"))
    assert shown.whole
    (file,) = shown.files
    assert (file.was, file.now, file.source) == ("broken-link", "ok", str(moved))


def test_files_come_back_from_a_copy(cli, home, tmp_path):
    model = home.model("a")
    place = model.directory / "best.ckpt"
    content = place.read_bytes()
    place.write_bytes(b"X" * len(content))
    done = cli("repair-model", model.id, "--json")
    assert done.code == 3
    assert not told(done).whole
    backup = tmp_path / "backup"
    backup.mkdir()
    (backup / "old.ckpt").write_bytes(content)
    done = cli("repair-model", model.id, "--path", backup, environment={"COLUMNS": "200"})
    assert done.code == 0
    assert done.out.splitlines()[1].split()[:3] == ["best.ckpt", "changed", "ok"]
    assert place.read_bytes() == content


def test_a_worker_that_cannot_be_asked_is_said(cli, home):
    here = Location(kind="worker", name="gpu-1", last_seen=NOW)
    model = home.model("a", locations=(here,))
    (model.directory / "best.ckpt").unlink()
    done = cli("repair-model", model.id)
    assert done.code == 3
    assert "Bring 1 file" in done.err
    assert "--yes" in done.err
    done = cli("repair-model", model.id, "--yes")
    assert done.code == 3
    assert "Not from gpu-1" in done.err
    assert "--from-worker" in done.err


def test_several_are_mended_and_one_that_cannot_be_does_not_keep_the_others(cli, linked, home):
    model, theirs = linked
    moved = theirs.with_name("moved.ckpt")
    theirs.rename(moved)
    lost = home.model("lost")
    (lost.directory / "best.ckpt").unlink()
    names = ["nobody", lost.id, model.id]
    done = cli("repair-model", *names, "--path", moved, "--json")
    assert done.code == 3
    document = msgspec.convert(done.document, RepairDocument)
    assert [(one.id, one.whole) for one in document.models] == [(lost.id, False), (model.id, True)]
    assert [one.error.code for one in document.failed] == ["unknown_model", "files_missing"]
    assert lost.id in done.err


def test_all_models_are_looked_at(cli, home):
    assert cli("repair-model").code == 2
    assert cli("repair-model", "a", "--all").code == 2
    whole, damaged, lost = (home.model(name) for name in ("whole", "damaged", "lost"))
    (damaged.directory / ".record" / file_name(1)).write_bytes(b"{")
    done = cli("repair-model", "--all")
    assert done.code == 0
    assert "2 models of 3: nothing was wrong." in done.err
    assert damaged.id in done.err
    assert whole.id not in done.err
    (lost.directory / "best.ckpt").unlink()
    done = cli("repair-model", "--all", "--json")
    assert done.code == 3
    document = msgspec.convert(done.document, RepairDocument)
    assert sorted(one.whole for one in document.models) == [False, True, True]
    assert len(document.failed) == 1


def test_a_pairs_alias_is_both_of_its_models(cli, home):
    one, two = home.model("a"), home.model("b", model_type="centered_instance")
    home.alias("pair", one.id, two.id)
    document = msgspec.convert(cli("repair-model", "pair", "--json").document, RepairDocument)
    assert [model.id for model in document.models] == [one.id, two.id]


def test_what_was_found_is_told_in_few_words(cli, home, tmp_path):
    contents = {f"part-{number}.bin": b"%d" % number for number in range(5)}
    model = home.model("a", extra=contents)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(model.directory, elsewhere, ignore=shutil.ignore_patterns(".record"))
    for name in contents:
        (model.directory / name).unlink()
    done = cli("repair-model", model.id)
    assert "part-0.bin, part-1.bin, part-2.bin and 2 more are not there." in done.err
    done = cli("repair-model", model.id, "--path", elsewhere)
    assert f"part-0.bin, part-1.bin, part-2.bin and 2 more are in {elsewhere}." in done.err
    assert done.code == 0


def test_what_was_found_and_not_agreed_to_needs_a_yes(cli, linked):
    model, theirs = linked
    theirs.parent.rename(theirs.parent.with_name("elsewhere"))
    done = cli("repair-model", model.id)
    assert done.code == 3
    assert "hint: Add --yes to use what there is." in done.err
