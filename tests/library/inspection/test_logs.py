"""Logs and metrics of three generations of trainers."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sleap_rtc.domain.models import Metrics
from sleap_rtc.library.inspection import logs

SHARED = Path(__file__).parents[4] / "shared" / "data" / "models"


def metrics_of_log(folder: Path, text: str) -> Metrics:
    path = folder / logs.LOG
    path.write_text(text)
    return logs.metrics_of({logs.LOG: path})


def test_sleap_nns_training_loss_is_moved_into_its_own_epoch(tmp_path):
    text = "epoch,train/loss,val/loss\n0,,0.5\n1,0.4,0.2\n2,0.3,0.3\n"
    found = metrics_of_log(tmp_path, text)
    assert found == Metrics(final_val_loss=0.3, best_val_loss=0.2, epochs=3, best_epoch=1)
    rows = logs.in_step(logs.read_log(tmp_path / logs.LOG))
    assert [logs.training_loss(rows[epoch]) for epoch in range(3)] == [0.4, 0.3, None]


def test_a_log_in_step_stays_as_it_is(tmp_path):
    text = "epoch,train/loss,val/loss\n0,0.6,0.5\n1,0.4,0.2\n"
    assert metrics_of_log(tmp_path, text).final_train_loss == 0.4


@pytest.mark.parametrize("column", ["train_loss", "loss"])
def test_older_names_are_known(tmp_path, column):
    text = f"epoch,{column},lr,val_loss\n0,0.5,1,0.6\n1,0.25,1,nan\n"
    found = metrics_of_log(tmp_path, text)
    assert found == Metrics(best_val_loss=0.6, final_train_loss=0.25, epochs=2, best_epoch=0)


def test_a_real_log_is_read():
    path = SHARED / "minimal_instance_centroid" / logs.LOG
    if not path.exists():
        pytest.skip("the real recordings are not beside this checkout")
    found = logs.metrics_of({logs.LOG: path})
    assert found.epochs == 22
    assert found.best_epoch == 21
    assert found.best_val_loss == pytest.approx(3.4936573e-07)
    assert found.final_train_loss == pytest.approx(3.4971995e-07)


def npy(descr: str, shape: str, body: bytes) -> bytes:
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


def test_metrics_are_read_from_json_and_from_plain_arrays(tmp_path):
    (tmp_path / "metrics.train.0.json").write_text(
        json.dumps({"distance_metrics": {"avg": 2.5, "p50": None}, "mOKS": {"mOKS": 0.9}})
    )
    with zipfile.ZipFile(tmp_path / "metrics.val.npz", "w") as archive:
        archive.writestr("dist.avg.npy", npy("<f8", "()", struct.pack("<d", 3.5)))
        archive.writestr("oks_voc.mAP.npy", npy("|O", "()", b"\x80\x04."))
        archive.writestr("pck.mPCK.npy", npy("<f4", "(2,)", b"\0" * 8))
    found = logs.evaluation({path.name: path for path in tmp_path.iterdir()})
    assert found == {"train.mean_error_px": 2.5, "train.mOKS": 0.9, "val.mean_error_px": 3.5}


@given(content=st.binary(max_size=200), name=st.sampled_from(["json", "npz", "csv", "npy"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_no_error(tmp_path, content, name):
    if name == "npy":
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("dist.avg.npy", b"\x93NUMPY\x01\x00" + content)
        content, name = stream.getvalue(), "npz"
    path = tmp_path / (logs.LOG if name == "csv" else f"metrics.val.0.{name}")
    path.write_bytes(content)
    assert isinstance(logs.metrics_of({path.name: path}), Metrics)


def test_what_is_missing_or_a_folder_is_nothing(tmp_path):
    (tmp_path / logs.LOG).mkdir()
    (tmp_path / "metrics.val.0.json").mkdir()
    files = {path.name: path for path in tmp_path.iterdir()}
    assert logs.metrics_of(files) == Metrics()
    assert logs.read_log(tmp_path / "none.csv") == {}


def test_the_best_epoch_is_the_first_of_equals():
    rows = {0: {"val/loss": "2"}, 1: {"val_loss": "1"}, 2: {"val/loss": "1"}}
    assert logs.lowest(rows) == (1, 1.0)
    assert logs.lowest({}) is None
