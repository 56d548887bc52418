"""import-model: what a person types, is asked, and is told."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import struct
import time
from pathlib import Path

import pytest

from sleap_rtc.cli import imports
from sleap_rtc.client.approvals import Approvals
from sleap_rtc.errors import OutOfSpace
from sleap_rtc.library.importing import importer
from sleap_rtc.testing import model_files


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.mkdir()
    return path


class Evil:
    def __reduce__(self):
        return (eval, ("1",))


def test_one_model_is_shown_with_its_id_alias_type_size_and_path(cli, home, disk):
    folder = model_files.folder(disk / "my flies")
    done = cli("import-model", folder)
    assert done.code == 0
    entry = home.library.get("my-flies")
    for word in (entry.id, "my-flies", "centroid", "3 files", "scanned", str(folder), "head, tail"):
        assert word in done.out
    again = cli("import-model", folder)
    assert again.code == 0
    assert "Here already" in again.out


def test_json_tells_everything(cli, home, disk):
    model_files.folder(disk / "a", seed=1)
    broken = model_files.folder(disk / "b", seed=2)
    (broken / "best.ckpt").write_bytes(b"PK\x03\x04 cut here, alas")
    done = cli("import-model", disk, "--recursive", "--json")
    assert done.code == 0
    (imported,), (skipped,) = done.document["imported"], done.document["skipped"]
    assert imported["model"]["alias"] == "a"
    assert imported["added"] is True
    assert (imported["way"], imported["safety"], imported["trusted"]) == ("link", "scanned", False)
    assert skipped["source"] == str(broken)
    assert skipped["error"]["code"] == "damaged"


def test_a_path_that_was_named_and_gives_nothing_is_a_failure(cli, home, disk):
    good, cut = model_files.folder(disk / "good"), model_files.folder(disk / "cut", seed=2)
    (cut / "best.ckpt").write_bytes(b"PK\x03\x04 cut here, alas")
    done = cli("import-model", good, disk / "nowhere")
    assert done.code == 3
    assert home.library.exists("good")
    assert "There is no" in done.out
    assert cli("import-model", good, cut, disk / "nowhere", "--json").code == 1
    assert cli("import-model", disk, "--recursive").code == 0  # what a tree holds besides
    quiet = cli("import-model", good, disk / "nowhere", "--quiet")
    assert quiet.out == f"{home.library.get('good').id}\n"
    assert f"{disk / 'nowhere'} is not imported: There is no" in quiet.err


def test_what_was_imported_before_the_disk_was_full_is_shown(cli, home, disk, monkeypatch):
    for number in (1, 2, 3):
        model_files.folder(disk / f"m{number}", seed=number)
    taken = []

    def take(registry, examined, *, real=importer.take, **how):
        if taken:
            raise OutOfSpace(path="/disk", free="0 B", need="1 GB")
        taken.append(real(registry, examined, **how))
        return taken[0]

    monkeypatch.setattr(importer, "take", take)
    done = cli("import-model", disk, "--recursive", "--json")
    assert done.code == 1
    assert "/disk has 0 B free" in done.err
    assert [each["model"]["alias"] for each in done.document["imported"]] == ["m1"]
    assert cli("import-model", disk / "m2", "--json").document["error"]["code"] == "out_of_space"


def test_in_a_tree_a_type_is_for_those_of_which_nothing_tells_it(cli, home, disk):
    model_files.folder(disk / "told", seed=1)
    (disk / "untold").mkdir()
    (disk / "untold" / "net.onnx").write_bytes(model_files.onnx())
    assert cli("import-model", disk, "--recursive", "--type", "bottomup").code == 0
    listed = json.loads(cli("list-models", "--json").out)["models"]
    assert sorted(model["model_type"] for model in listed) == ["bottomup", "centroid"]


def test_a_tree_is_a_table_with_what_was_skipped_and_why(cli, home, disk):
    for number, head in enumerate(("centroid", "centered_instance", "single_instance"), start=1):
        model_files.folder(disk / f"run {number}", head, seed=number)
    (disk / "run 2" / "best.ckpt").unlink()
    done = cli("import-model", disk, "--recursive", environment={"COLUMNS": "100"})
    assert done.code == 0
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["model", "run-1", "run-3"]
    assert lines[3:5] == ["Not imported", "  run 2"]
    assert lines[5].startswith("    it has a configuration, and no file of weights. Is its")
    assert "2 models imported, 1 not imported." in done.err
    (disk / "run 3").rename(disk / "run 4")
    again = cli("import-model", disk, "--recursive", environment={"COLUMNS": "100"})
    assert "0 models imported, 1 mended, 1 here already, 1 not imported." in again.err
    quiet = cli("import-model", disk, "--recursive", "--quiet")
    assert quiet.out.split() == [home.library.get(f"run-{n}").id for n in (1, 3)]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere"], 3, "There is no"),
        ([], 2, "PATH"),
        (["hf://org/model"], 2, "Hugging Face"),
        (["wandb://a/b/c"], 2, "Weights & Biases"),
        (["x", "--type", "Not A Type"], 2, "no model type"),
        (["x", "--alias", "a b"], 2, "alias"),
        (["x", "--alias", "deadbeef"], 2, "looks like an id"),
    ],
)
def test_what_can_not_be_is_one_sentence(cli, home, arguments, code, words):
    done = cli("import-model", *arguments)
    assert done.code == code
    assert words in done.err


def test_nothing_is_asked_without_a_terminal_or_with_yes(cli, home, disk):
    path = disk / "net.onnx"
    path.write_bytes(model_files.onnx())
    for more in ([], ["--yes"]):
        done = cli("import-model", path, *more, terminal=bool(more), stdin="centroid\n")
        assert done.code == 2
        assert "--type" in done.err
    done = cli("import-model", path, "--type", "centroid", "--yes", terminal=True)
    assert done.code == 0
    assert home.library.get("net").record.model_type == "centroid"


def test_a_person_is_asked_for_type_and_alias(cli, home, disk):
    path = disk / "net.onnx"
    path.write_bytes(model_files.onnx())
    answers = "Not One\ncentroid\ndeadbeef\nnice\n"
    done = cli("import-model", path, terminal=True, stdin=answers)
    assert done.code == 0
    assert "no model type" in done.err
    assert "looks like an id" in done.err
    assert home.library.get("nice").record.model_type == "centroid"


def test_an_empty_answer_takes_the_name_and_a_dash_none(cli, home, disk):
    first = model_files.folder(disk / "one", seed=1)
    second = model_files.folder(disk / "two", seed=2)
    assert cli("import-model", first, terminal=True, stdin="\n").code == 0
    assert cli("import-model", second, "--json", terminal=True, stdin="-\n").code == 0
    aliases = {entry.alias for entry in home.library.list().entries}
    assert aliases == {"one", None}


def test_an_empty_type_skips_the_model(cli, home, disk):
    path = disk / "net.onnx"
    path.write_bytes(model_files.onnx())
    done = cli("import-model", path, terminal=True, stdin="\n")
    assert done.code == 2
    assert home.library.list().entries == ()


def test_an_alias_that_is_taken_is_said_and_the_model_is_there(cli, home, disk):
    cli("import-model", model_files.folder(disk / "a", seed=1), "--alias", "fly")
    done = cli("import-model", model_files.folder(disk / "b", seed=2), "--alias", "fly", "--json")
    assert done.code == 4
    (imported,) = done.document["imported"]
    assert imported["wanted_alias"] == "fly"
    assert imported["suggestions"][0] == "fly-v2"
    assert "tag-model" in done.err
    assert len(home.library.list().entries) == 2


def test_what_could_run_needs_trust_which_is_remembered(cli, home, disk):
    folder = model_files.folder(disk / "a")
    (folder / "best.ckpt").write_bytes(model_files.torch_zip({"x": Evil()}, ()))
    done = cli("import-model", folder)
    assert done.code == 6
    assert "eval" in done.err
    assert "--trust" in done.err
    done = cli("import-model", folder, "--trust")
    assert done.code == 0
    assert "flagged" in done.out
    assert "trusted by you" in done.out
    record = home.library.get("a").record
    (weights,) = [file for file in record.files if file.path == "best.ckpt"]
    assert Approvals(home.root / "trusted").has(weights.blake3)


def test_notes_are_warnings(cli, home, disk):
    folder = model_files.folder(disk / "a")
    (folder / "extra.pkl").write_bytes(b"x")
    assert "extra.pkl" in cli("import-model", folder).err


def test_progress_is_shown_when_it_takes_long(cli, home, disk, monkeypatch):
    monkeypatch.setattr(imports, "QUIET_S", 0.0)
    path = disk / "a.pt"
    path.write_bytes(model_files.torch_zip({"w": model_files.Storage("0", 3 << 20)}, (12 << 20,)))
    done = cli("import-model", path, "--type", "centroid", "--copy")
    assert done.code == 0
    assert "looking at" in done.err
    quiet = cli("import-model", path, "--type", "centroid", "--copy", "--quiet")
    assert quiet.err == ""


def test_nothing_of_the_persons_folder_is_changed(cli, home, disk):
    folder = model_files.folder(disk / "a")

    def state() -> dict[str, str]:
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()
        }

    before = state()
    assert cli("import-model", folder).code == 0
    home.library.delete("a")
    assert state() == before


@pytest.mark.slow
def test_ctrl_c_leaves_nothing(start, tmp_path, disk):
    """A real process, interrupted while it copies."""
    path = disk / "large.safetensors"
    size = 8 << 30  # a hole, which is read and hashed like anything else: for seconds
    tensors = {"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}
    header = json.dumps(tensors).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)
    process = start(tmp_path / "home", "import-model", path, "--type", "centroid", "--copy")
    incoming = tmp_path / "home" / "models" / ".incoming"
    while process.popen.poll() is None and not any(incoming.glob("*/large.safetensors")):
        time.sleep(0.01)  # until it has begun to copy
    process.popen.send_signal(signal.SIGINT)
    result = process.end()
    assert result.code == 130, result.err
    assert "Interrupted" in result.err
    assert list(incoming.iterdir()) == []
    models = tmp_path / "home" / "models"
    assert not any(path.name.startswith("centroid_") for path in models.iterdir())
    shutil.rmtree(disk)
