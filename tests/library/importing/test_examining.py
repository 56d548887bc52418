"""What is seen before anything is written: what may run, and what can't be imported."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sleap_rtc.domain.models import safety_of
from sleap_rtc.errors import (
    Damaged,
    FilesMissing,
    NotFound,
    NotTrusted,
    PathNotPermitted,
    UnsafePath,
    UsageError,
)
from sleap_rtc.library.importing.importer import Importer
from sleap_rtc.library.importing.wishes import Wishes


class Evil:
    def __reduce__(self):
        return (eval, ("1",))


# ── safety ───────────────────────────────────────────────────────────────────


def test_what_could_run_is_refused_and_trust_is_recorded(take_one, samples, disk, registry, clock):
    folder = samples.folder(disk / "a")
    (folder / "best.ckpt").write_bytes(samples.torch_zip({"x": Evil()}, ()))
    with pytest.raises(NotTrusted, match="eval"):
        take_one(folder)
    assert registry.list().entries == ()
    record = take_one(folder, trust=True).entry.record
    assert record.trust.files == ("best.ckpt",)
    assert record.trust.at == clock()
    assert "eval" in record.trust.why
    safety = safety_of(record)
    assert (safety.tier, safety.trusted) == ("flagged", True)
    assert "eval" in safety.why


def test_trust_without_need_is_not_recorded(take_one, samples, disk):
    assert take_one(samples.folder(disk / "a"), trust=True).entry.record.trust is None


def test_a_pickle_that_is_no_weights_stays_where_it_is(take_one, samples, disk):
    folder = samples.folder(disk / "a")
    (folder / "metrics.train.npz").write_bytes(
        samples.npz("{'descr': '|O', 'fortran_order': False, 'shape': (), }")
    )
    (folder / "extra.pkl").write_bytes(samples.torch_pickle({"x": Evil()}))
    imported = take_one(folder)
    names = {file.path for file in imported.entry.record.files}
    assert names == {"best.ckpt", "training_config.yaml", "training_log.csv"}
    assert len(imported.notes) == 2


# ── what can't be imported ───────────────────────────────────────────────────


def test_a_cut_checkpoint_is_refused_at_many_offsets(take_one, samples, disk, registry):
    folder = samples.folder(disk / "a", seed=9)
    whole = (folder / "best.ckpt").read_bytes()
    for length in range(0, len(whole), 41):
        (folder / "best.ckpt").write_bytes(whole[:length])
        with pytest.raises(Damaged):
            take_one(folder)
    assert registry.list().entries == ()


def test_a_link_that_leads_to_itself(take_one, samples, disk):
    (disk / "loop").symlink_to("loop")
    with pytest.raises(UnsafePath, match="leads to itself"):
        take_one(disk / "loop")
    folder = samples.folder(disk / "a")
    (folder / "best.ckpt").unlink()
    (folder / "best.ckpt").symlink_to("best.ckpt")
    with pytest.raises(UnsafePath, match="leads to itself"):
        take_one(folder)
    (folder / "again").symlink_to(folder, target_is_directory=True)
    (folder / "best.ckpt").unlink()
    samples.folder(folder)
    assert any("link to a folder" in note for note in take_one(folder).notes)


def test_a_link_to_nothing_names_what_is_missing(take_one, samples, disk):
    folder = samples.folder(disk / "a")
    (folder / "best.ckpt").unlink()
    (folder / "best.ckpt").symlink_to("/unplugged/best.ckpt")
    with pytest.raises(NotFound, match=r"/unplugged/best\.ckpt"):
        take_one(folder)


def test_links_in_a_folder_are_followed_to_where_the_files_are(take_one, samples, disk):
    """As in the cache of a hub: names that are links to files named by their hash."""
    blobs = disk / "blobs"
    blobs.mkdir()
    (blobs / "0123abcd").write_bytes(samples.safetensors())
    snapshot = disk / "snapshot"
    snapshot.mkdir()
    (snapshot / "model.safetensors").symlink_to("../blobs/0123abcd")
    record = take_one(snapshot, model_type="centroid").entry.record
    assert record.files[0].path == "model.safetensors"
    assert record.files[0].link == str(blobs / "0123abcd")
    assert safety_of(record).tier == "safe"


@contextlib.contextmanager
def somebody_else() -> Iterator[None]:
    """As another user, if this one is root, who may read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_folder_without_permission(samples, registry):
    disk = Path(tempfile.mkdtemp())  # pytest's own folders nobody else may enter
    try:
        disk.chmod(0o755)
        folder = samples.folder(disk / "a")
        folder.chmod(0o700 if os.geteuid() == 0 else 0)
        with somebody_else():
            (result,) = Importer(registry, Wishes()).run([folder])
        folder.chmod(0o700)
    finally:
        shutil.rmtree(disk)
    assert isinstance(result.error, PathNotPermitted)
    assert "may not read" in result.error.message


def test_a_configuration_that_is_a_folder(take_one, samples, disk):
    folder = samples.folder(disk / "a")
    (folder / "training_config.yaml").unlink()
    (folder / "training_config.yaml").mkdir()
    with pytest.raises(UsageError, match="what type"):
        take_one(folder)
    imported = take_one(folder, model_type="centroid")
    assert imported.entry.record.config is None


def test_a_billion_laughs_do_no_harm(take_one, samples, disk):
    folder = samples.folder(disk / "a")
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    (folder / "training_config.yaml").write_text("\n".join(lines))
    imported = take_one(folder, model_type="centroid")
    assert any("anchors" in note for note in imported.notes)


def test_a_set_that_lacks_a_file_is_refused_with_its_name(take_one, samples, disk):
    folder = disk / "sharded"
    folder.mkdir()
    for number in (1, 3):
        name = f"model-0000{number}-of-00003.safetensors"
        (folder / name).write_bytes(samples.safetensors())
    with pytest.raises(FilesMissing, match=r"model-00002-of-00003\.safetensors"):
        take_one(folder, model_type="centroid")
    with pytest.raises(FilesMissing, match="model-00002"):
        take_one(folder / "model-00003-of-00003.safetensors", model_type="centroid")
    (folder / "model-00002-of-00003.safetensors").write_bytes(samples.safetensors(metadata=False))
    entry = take_one(folder / "model-00001-of-00003.safetensors", model_type="centroid").entry
    assert len(entry.record.files) == 3
    assert take_one(folder, model_type="centroid").known


def test_weights_beside_an_onnx_file_belong_to_it(take_one, samples, disk):
    folder = disk / "net"
    folder.mkdir()
    (folder / "net.onnx").write_bytes(samples.onnx(beside="net.bin"))
    with pytest.raises(FilesMissing, match=r"net\.bin"):
        take_one(folder, model_type="centroid")
    (folder / "net.bin").write_bytes(b"bytes of tensors" * 9)
    record = take_one(folder, model_type="centroid").entry.record
    assert record.checkpoint == "net.onnx"
    assert len(record.files) == 2
    assert take_one(folder / "net.onnx", model_type="centroid").known
    assert safety_of(record).tier == "safe"
    (folder / "net.onnx").write_bytes(samples.onnx(beside="../../secret"))
    with pytest.raises(UnsafePath):
        take_one(folder, model_type="centroid")
