"""Checkpoints are looked into, never loaded."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest

from sleap_rtc.library.inspection.scanning import loadable, scan

SHARED = Path(__file__).parents[4] / "shared" / "data" / "models"


class Runs:
    """Unpickling this runs a command."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return (exec, (f"open({str(self.witness)!r}, 'w')",))


def torch_file(path: Path, content: object) -> Path:
    """A file as torch writes it: a zip with a pickle inside."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, protocol=2))
        archive.writestr("archive/data/0", b"\0" * 16)
        archive.writestr("archive/version", b"3\n")
    return path


def test_what_only_holds_containers_is_clean(tmp_path):
    content = OrderedDict(epoch=3, losses=[0.1, 0.2], names=("a", "b"))
    assert scan(torch_file(tmp_path / "best.ckpt", content)).clean


def test_what_would_run_something_is_named_and_not_run(tmp_path):
    witness = tmp_path / "witness"
    verdict = scan(torch_file(tmp_path / "best.ckpt", {"epoch": 3, "state": Runs(witness)}))
    assert not verdict.clean
    assert "exec" in verdict.sentence
    assert not witness.exists()


def test_a_bare_pickle_is_looked_into_too(tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(io.BytesIO))
    verdict = scan(path)
    assert not verdict.clean
    assert "BytesIO" in verdict.sentence


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"\x80\x04garbage", b"hello"])
def test_what_can_not_be_read_is_not_clean(tmp_path, content):
    path = tmp_path / "best.ckpt"
    path.write_bytes(content)
    assert not scan(path).clean


def test_a_cut_checkpoint_is_not_clean(tmp_path):
    path = torch_file(tmp_path / "best.ckpt", list(range(1000)))
    whole = path.read_bytes()
    for length in range(0, len(whole) - 30, 97):
        path.write_bytes(whole[:length])
        assert not scan(path).clean, length


@pytest.mark.parametrize(
    "name", ["minimal_instance_centroid", "minimal_instance_centered_instance"]
)
def test_real_checkpoints_of_the_trainer_are_clean(name):
    path = SHARED / name / "best.ckpt"
    if not path.exists():
        pytest.skip("the real recordings are not beside this checkout")
    assert scan(path).clean, scan(path).sentence


def test_every_file_that_an_engine_might_unpickle_is_named():
    paths = ["best.ckpt", "a/last.CKPT", "best.npz", "training_config.yaml", "weights", "x.pkl"]
    assert loadable(paths) == ("a/last.CKPT", "best.ckpt", "weights", "x.pkl")
