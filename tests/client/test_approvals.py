"""Checkpoints from elsewhere are looked into before they are run here."""

from __future__ import annotations

import pickle
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from sleap_rtc.client.approvals import Approvals
from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.errors import NotTrusted
from sleap_rtc.library.entries import Entry


def model(folder: Path, content: object, *, source: str = "worker-pull") -> Entry:
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "best.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, protocol=2))
    record = ModelRecord(
        id="0a1b2c3d",
        name="run",
        model_type="centroid",
        status="completed",
        source=source,
        created_at=datetime.now(UTC),
        checkpoint="best.ckpt",
    )
    return Entry(record=record, alias="flies", folder=str(folder))


def test_a_clean_one_is_run(tmp_path):
    Approvals(tmp_path / "trusted").check(model(tmp_path / "m", {"epoch": 3}))
    assert not (tmp_path / "trusted").exists()


def test_a_strange_one_is_refused_by_what_it_would_do(tmp_path):
    with pytest.raises(NotTrusted, match=r"flies is not trusted: it would import .*eval") as raised:
        Approvals(tmp_path / "trusted").check(model(tmp_path / "m", eval))
    assert "--trust-model" in raised.value.hint_text


def test_a_yes_is_remembered_for_that_content_alone(tmp_path):
    approvals = Approvals(tmp_path / "trusted")
    approvals.check(model(tmp_path / "m", eval), trust=True)
    approvals.check(model(tmp_path / "m", eval))
    with pytest.raises(NotTrusted):
        approvals.check(model(tmp_path / "m", exec))


def test_what_the_record_calls_its_checkpoint_hides_nothing(tmp_path):
    """The trainer loads best.ckpt, whatever a worker's record says."""
    evil = model(tmp_path / "m", eval)
    (evil.directory / "decoy.npz").write_bytes(b"")
    files = tuple(
        ModelFile(path=path.name, size=path.stat().st_size, blake3="0" * 64)
        for path in sorted(evil.directory.iterdir())
    )
    for checkpoint in ("decoy.npz", None):
        record = msgspec.structs.replace(evil.record, files=files, checkpoint=checkpoint)
        entry = msgspec.structs.replace(evil, record=record)
        with pytest.raises(NotTrusted, match=r"best\.ckpt of model flies .*eval"):
            Approvals(tmp_path / "trusted").check(entry)


def test_that_it_was_trained_here_is_not_believed(tmp_path):
    """A backup's record, or a colleague's, may say so too."""
    with pytest.raises(NotTrusted, match=r"best\.ckpt of model flies .*eval"):
        Approvals(tmp_path / "trusted").check(model(tmp_path / "m", eval, source="worker-training"))


def test_a_yes_to_what_was_imported_by_link_is_for_what_is_linked_to(tmp_path):
    real = model(tmp_path / "real", eval)
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "best.ckpt").symlink_to(real.directory / "best.ckpt")
    linked = msgspec.structs.replace(real, folder=str(folder))
    approvals = Approvals(tmp_path / "trusted")
    with pytest.raises(NotTrusted, match=r"best\.ckpt of model flies .*eval"):
        approvals.check(linked)
    approvals.check(linked, trust=True)
    approvals.check(real)  # it is the same content
