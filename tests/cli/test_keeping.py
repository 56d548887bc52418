"""Carrying a library elsewhere: export-registry, import-registry, backup, restore."""

from __future__ import annotations

import json
import tarfile

import pytest

from sleap_rtc.library import backup, unpacking


@pytest.fixture
def elsewhere(tmp_path):
    """Another home, as arguments."""
    return ("--home", tmp_path / "elsewhere")


@pytest.fixture
def filled(home):
    entry = home.model("fly")
    home.alias("flies", entry.id)
    return entry


def test_a_registry_is_carried_to_another_home(cli, filled, elsewhere, tmp_path):
    path = tmp_path / "registry.json"
    done = cli("export-registry", path)
    assert (done.code, done.out) == (0, f"{path}\n")
    assert "1 model and 1 alias written." in done.err
    assert json.loads(path.read_text())["aliases"] == {"flies": filled.id}

    done = cli("import-registry", path, *elsewhere)
    assert done.code == 0
    assert done.out == ""
    assert "Models: 1 new here." in done.err
    assert "Aliases: 1 new here." in done.err
    assert "1 model of the library lacks files" in done.err
    assert "sleap-rtc repair-model NAME --path FOLDER" in " ".join(done.err.split())
    listed = json.loads(cli("list-models", "--json", *elsewhere).out)["models"]
    assert [(model["alias"], model["status"]) for model in listed] == [("flies", "missing")]

    again = cli("import-registry", path, "--json", *elsewhere)
    document = json.loads(again.out)
    assert (document["models"], document["aliases"]) == ({"known": 1}, {"known": 1})
    assert document["outcomes"][0]["now"] == filled.id


def test_a_file_that_is_there_is_replaced_only_when_asked(cli, filled, tmp_path):
    for command, name in (("export-registry", "x.json"), ("backup", "x.tar")):
        path = tmp_path / name
        path.write_text("mine")
        done = cli(command, path)
        assert done.code == 4
        assert "--force replaces it." in done.err
        assert path.read_text() == "mine"
        assert cli(command, path, "--force").code == 0
        assert path.read_bytes()[:4] != b"mine"


def test_a_library_is_saved_and_restored(cli, filled, elsewhere, tmp_path):
    path = tmp_path / "library.tar"
    done = cli("backup", path)
    assert (done.code, done.out) == (0, f"{path}\n")
    assert "1 model and 1 alias saved" in done.err
    assert tarfile.is_tarfile(path)
    done = cli("restore", path, *elsewhere)
    assert done.code == 0
    assert "Models: 1 new here." in done.err
    assert "lacks files" not in done.err
    shown = json.loads(cli("model-info", "flies", "--json", *elsewhere).out)["models"][0]
    assert shown["model"]["id"] == filled.id
    document = json.loads(cli("restore", path, "--json", *elsewhere).out)
    assert document["models"] == {"known": 1}
    assert json.loads(cli("backup", path, "--force", "--json").out)["left_out"] == []


def test_what_to_do_is_told_of_a_model_that_comes_back_without_its_files(
    cli, filled, elsewhere, tmp_path
):
    path = tmp_path / "library.tar"
    (filled.directory / "best.ckpt").unlink()
    assert cli("backup", path).code == 0
    assert "1 model of the library lacks files" in cli("restore", path, *elsewhere).err


def test_what_can_not_be_saved_is_warned_of(cli, filled, tmp_path):
    (filled.directory / "best.ckpt").unlink()
    done = cli("backup", tmp_path / "x.tar.gz")
    assert done.code == 0
    assert f"warning: {filled.directory.name}: " in done.err


def test_what_was_deleted_comes_back_when_asked(cli, filled, home, tmp_path):
    path = tmp_path / "x.tar"
    cli("backup", path)
    with home.library as library:
        library.delete("flies")
    done = cli("restore", path)
    assert "1 deleted here" in done.err
    assert cli("model-info", filled.id).code == 3
    assert "1 new here" in cli("restore", path, "--include-deleted").err
    assert cli("model-info", "flies").code == 0


def test_a_public_registry_is_taken_in(cli, elsewhere, tmp_path):
    runs = tmp_path / "old" / "fly"
    runs.mkdir(parents=True)
    (runs / "best.ckpt").write_text("weights")
    entry = {"model_type": "centroid", "local_path": str(runs), "alias": "fly"}
    path = tmp_path / "old" / "manifest.json"
    path.write_text(json.dumps({"version": "1.0", "models": {"3f2a9c01": entry}}))
    before = path.read_bytes()
    done = cli("import-registry", path, *elsewhere)
    assert done.code == 0
    assert "Models: 1 new here." in done.err
    assert json.loads(cli("model-info", "fly", "--json", *elsewhere).out)["models"][0]["files"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("command", ["import-registry", "restore"])
def test_bad_files_are_one_sentence(cli, home, tmp_path, command):
    done = cli(command, tmp_path / "none")
    assert done.code == 3
    assert f"There is no {tmp_path / 'none'}." in done.err
    for text in ("", "hello", '{"version": "9.0"}', '{"models": 3}'):
        (tmp_path / "bad").write_text(text)
        done = cli(command, tmp_path / "bad")
        assert done.code == 1
        assert "error: " in done.err
        assert "Something is wrong inside" not in done.err


def test_a_folder_that_is_not_there(cli, filled, tmp_path):
    for command, name in (("export-registry", "x.json"), ("backup", "x.tar")):
        done = cli(command, tmp_path / "none" / name)
        assert done.code == 3
        assert f"There is no {tmp_path / 'none'}." in done.err


def test_an_unknown_ending_is_refused(cli, filled, tmp_path):
    done = cli("backup", tmp_path / "library.zip")
    assert done.code == 2
    assert ".tar.gz" in done.err
    assert "library.tar" in done.err


def test_an_interrupted_backup_leaves_nothing(cli, filled, tmp_path, monkeypatch):
    def interrupt(*_args, **_more):
        raise KeyboardInterrupt

    monkeypatch.setattr(backup, "_add_file", interrupt)
    folder = tmp_path / "out"
    folder.mkdir()
    assert cli("backup", folder / "x.tar").code == 130
    assert list(folder.iterdir()) == []


def test_an_interrupted_restore_says_how_it_goes_on(cli, filled, tmp_path, elsewhere, monkeypatch):
    cli("backup", tmp_path / "x.tar")

    def interrupt(*_args, **_more):
        raise KeyboardInterrupt

    monkeypatch.setattr(unpacking, "_extract", interrupt)
    done = cli("restore", tmp_path / "x.tar", *elsewhere)
    assert done.code == 130
    assert "the same command goes on" in done.err


def test_many_outcomes_are_cut(cli, elsewhere, tmp_path):
    models = {f"{n:08x}": {"model_type": "x"} for n in range(25)} | {"ffffffff": 3}
    (tmp_path / "m.json").write_text(json.dumps({"version": "1.0", "models": models}))
    done = cli("import-registry", tmp_path / "m.json", *elsewhere)
    assert len(done.out.splitlines()) == 21
    assert "6 more; --json lists them." in done.err
    assert "1 not usable" in done.err


def test_the_public_sleap_rtcs_models_are_taken_over_by_any_command(cli, home):
    folder = home.root / "models" / "centroid_3f2a9c01"
    folder.mkdir(parents=True)
    (folder / "best.ckpt").write_text("weights")
    entry = {"id": "3f2a9c01", "model_type": "centroid", "local_path": str(folder)}
    gone = {"id": "3f2a9c02", "model_type": "centroid", "local_path": "/nowhere"}
    models = {each["id"]: each for each in (entry, gone)}
    (home.root / "models" / "manifest.json").write_text(
        json.dumps({"version": "1.0", "models": models, "aliases": {"fly": "3f2a9c01"}})
    )
    done = cli("list-models", "--json")
    assert done.code == 0
    assert {model["id"] for model in json.loads(done.out)["models"]} == set(models)
    assert "2 models of the public sleap-rtc taken over." in done.err
    assert "model 3f2a9c02: without its files: /nowhere is not there" in done.err
    assert "taken over" not in cli("model-info", "fly").err


def test_a_damaged_index_is_told(cli, home, filled):
    with home.library as library:
        library.list()
        databases = list(library._index._place().glob("*.sqlite"))
    for database in databases:
        database.write_bytes(b"garbage" * 1_000)
    done = cli("list-models")
    assert done.code == 0
    assert "flies" in done.out
    assert (
        "The library's index was damaged and is built anew from the records of 1 models" in done.err
    )
