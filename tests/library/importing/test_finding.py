"""What a folder holds: which models, with which files."""

from __future__ import annotations

import os

import pytest

from sleap_rtc.errors import DataError, NotFound, UnsafePath
from sleap_rtc.library.importing import finding
from sleap_rtc.library.importing.finding import Candidate, Skipped, from_file, in_folder


def names(found: Candidate) -> set[str]:
    return set(found.files)


def test_several_models_in_one_folder_are_each_one(take_all, take_one, samples, disk):
    for number in (1, 2):
        content = {"w": samples.Storage("0", number)}
        (disk / f"net{number}.pt").write_bytes(samples.torch_zip(content, (4 * number,)))
    with pytest.raises(DataError, match="holds 2 models"):
        take_one(disk)
    results = take_all(disk, recursive=True, model_type="centroid")
    assert [result.entry.alias for result in results] == ["net1", "net2"]


def test_what_is_no_model(take_one, disk):
    (disk / "notes.txt").write_text("hello")
    for path, error in [(disk / "notes.txt", DataError), (disk, NotFound), (disk / "x", NotFound)]:
        with pytest.raises(error):
            take_one(path)
    os.mkfifo(disk / "pipe.ckpt")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        take_one(disk / "pipe.ckpt")


def test_an_archive_in_a_tree_is_named_and_not_opened(samples, disk):
    samples.folder(disk / "a")
    for path in ("old/models.tar.gz", "old/Labels.ZIP", "a/results.zip"):
        (disk / path).parent.mkdir(exist_ok=True)
        (disk / path).write_bytes(b"x")
    model, *skipped = in_folder(disk, recursive=True)
    assert isinstance(model, Candidate)
    assert [each.path.name for each in skipped] == ["Labels.ZIP", "models.tar.gz"]
    assert "by itself" in skipped[0].error.hint_text


def test_what_is_below_a_model_belongs_to_it_unless_it_is_one(samples, disk):
    folder = samples.folder(disk / "a")
    for path in ("viz/0.png", "viz/deep/1.png", ".git/x", "wandb/run/x", "lightning_logs/y"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")
    samples.folder(folder / "older" / "b", seed=2)
    own, inner = in_folder(folder, recursive=True)
    assert names(own) == {
        *("best.ckpt", "training_config.yaml", "training_log.csv", "viz/0.png", "viz/deep/1.png")
    }
    assert inner.path == folder / "older" / "b"


@pytest.mark.parametrize(
    ("present", "first"),
    [
        (["last.ckpt", "best.ckpt"], "best.ckpt"),
        (["epoch=3.ckpt", "last.ckpt"], "last.ckpt"),
        (["best_model.h5", "final_model.h5", "latest_model.h5"], "best_model.h5"),
        (["b.pt", "a.pt"], "a.pt"),
    ],
)
def test_the_best_weights_come_first(present, first):
    assert finding.in_order(iter(present))[0] == first


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("best.ckpt", True),
        ("BEST.CKPT", True),
        ("x.safetensors", True),
        ("m.ckpt.part2", True),
        ("m-00001-of-00002.bin", True),
        ("best.npz", True),
        ("metrics.train.npz", False),
        ("labels.slp", False),
        ("ckpt", False),
        (".part1", False),
    ],
)
def test_weights_are_told_by_their_names(name, is_one):
    assert finding.is_weights(name) is is_one


def test_a_checkpoint_brings_what_describes_it_and_no_other_checkpoint(samples, disk):
    folder = samples.folder(disk / "run 5")
    (folder / "last.ckpt").write_bytes(b"x")
    (folder / "labels.slp").write_bytes(b"x")
    found = from_file(folder / "best.ckpt")
    assert names(found) == {"best.ckpt", "training_config.yaml", "training_log.csv"}
    assert found.name == "run 5"
    assert from_file(folder / "last.ckpt").weights == ("last.ckpt",)


def test_a_tree_that_is_too_large_is_told(samples, disk, monkeypatch):
    monkeypatch.setattr(finding, "MAX_ENTRIES", 5)
    samples.folder(disk / "a")
    samples.folder(disk / "b")
    found = list(in_folder(disk, recursive=True))
    assert any(isinstance(each, Skipped) and "more than 5" in each.error.message for each in found)


def test_folders_that_are_too_deep_are_left_out(samples, disk, monkeypatch):
    monkeypatch.setattr(finding, "MAX_DEPTH", 2)
    samples.folder(disk / "a" / "b")
    samples.folder(disk / "1" / "2" / "3")
    (found,) = [each.path for each in in_folder(disk, recursive=True)]
    assert found == disk / "a" / "b"


def test_more_files_than_a_record_lists(samples, disk, monkeypatch):
    monkeypatch.setattr(finding, "MAX_FILES", 10)
    folder = samples.folder(disk / "a")
    (folder / "viz").mkdir()
    for number in range(20):
        (folder / "viz" / f"{number}.png").write_bytes(b"x")
    (found,) = in_folder(folder, recursive=False)
    assert names(found) == {"best.ckpt", "training_config.yaml", "training_log.csv"}
    assert any("more than 10" in note for note in found.notes)


def test_two_names_that_would_be_one_are_refused_if_they_are_weights(samples, disk):
    folder = disk / "a"
    folder.mkdir()
    for name in ("best.ckpt", "be:st.ckpt", "be?st.ckpt"):
        (folder / name).write_bytes(samples.torch_zip())
    (found,) = in_folder(folder, recursive=False)
    assert isinstance(found.error, UnsafePath)


def test_a_checkpoint_that_leads_nowhere_is_said_by_itself(disk):
    (disk / "best.ckpt").symlink_to("/unplugged/x.ckpt")
    with pytest.raises(NotFound):
        from_file(disk / "best.ckpt")
