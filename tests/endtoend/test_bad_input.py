"""What can't work is refused in one clear sentence, on either side, and leaves nothing behind."""

from __future__ import annotations

import json
import shutil

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.webrtc]


def nothing_left(lab) -> None:
    assert lab.client.models() == {}
    assert lab.client.left() == []
    assert lab.worker.left() == []


def damaged(lab, how: str):
    """A copy of the labels that isn't whole."""
    path = lab.root / f"{how}.pkg.slp"
    data = bytearray(lab.data.package.read_bytes())
    match how:
        case "cut short":
            del data[len(data) // 2 :]
        case "flipped":
            middle = len(data) // 2
            data[64:512] = bytes(byte ^ 0x5A for byte in data[64:512])
            data[middle : middle + 64] = bytes(byte ^ 0xFF for byte in data[middle : middle + 64])
        case "no labels":
            data = bytearray(b"frame,x,y\n1,2,3\n" * 100)
        case "empty":
            data.clear()
    path.write_bytes(data)
    return path


def test_labels_that_are_none(lab) -> None:
    """Both sides look: the client before it sends anything, the worker whatever it was sent."""
    lab.worker.begin()
    for how in ("cut short", "flipped", "no labels", "empty"):
        labels = damaged(lab, how)
        code, error = lab.client.train(lab.config(), labels=labels).refused()
        assert (code, error["code"]) == (2, "invalid_labels")
        assert str(labels) in error["message"]

        client = lab.client.unchecked(lab.config(), labels=labels)
        end = client.done()
        assert end["state"] == "failed"
        [told] = client.of("error")
        assert told["code"] == "invalid_labels"
        assert labels.name in told["message"]
        assert end["reason"] == told["message"]
    assert len(list((lab.client.home / "jobs").glob("*.json"))) == 4  # those not looked at
    assert lab.worker.records() == {}
    nothing_left(lab)


def test_images_that_are_damaged_inside_sound_labels(lab) -> None:
    """The client's look finds nothing wrong; the trainer does."""
    import h5py  # noqa: PLC0415

    labels = lab.root / "bad-images.pkg.slp"
    shutil.copyfile(lab.data.package, labels)
    with h5py.File(labels, "a") as file:
        images = file["video0/video"]
        for number in range(len(images)):
            images[number] = images[number] ^ 0x55
    lab.worker.begin()
    client = lab.client.train(lab.config(), labels=labels)
    end = client.done()
    assert end["state"] == "failed"
    assert client.of("error")[0]["code"] == "training_failed"
    assert "Traceback" not in end["reason"]
    assert lab.worker.records()["centroid"].status == "failed"
    assert lab.client.models()["centroid"].status == "failed"


def test_labels_with_a_wrong_name(lab) -> None:
    other = lab.root / "labels.h5"
    shutil.copyfile(lab.data.package, other)
    for labels, why in ((lab.root / "no.pkg.slp", "no such file"), (other, "doesn't end in .slp")):
        code, error = lab.client.train(lab.config(), labels=labels).refused()
        assert (code, error["code"]) == (2, "invalid_labels")
        assert why in error["message"]
        assert error["hint"]


def test_a_config_that_the_engine_refuses(lab) -> None:
    config = lab.config(trainer={"max_epochs": -3})
    code, error = lab.client.train(config).refused()
    assert (code, error["code"]) == (2, "invalid_config")
    assert "trainer_config.max_epochs" in error["message"]
    assert str(config) in error["message"]
    assert not (lab.client.home / "jobs").exists()

    lab.worker.begin()
    client = lab.client.unchecked(config)
    end = client.done()
    assert end["state"] == "failed"
    assert client.of("error")[0]["code"] == "invalid_config"
    assert "trainer_config.max_epochs" in end["reason"]
    assert lab.worker.records() == {}
    nothing_left(lab)


def test_a_config_that_says_another_model_than_the_job(lab) -> None:
    lab.worker.begin()
    client = lab.client.unchecked(lab.config(), head="centered_instance")
    end = client.done()
    assert end["state"] == "failed"
    assert "declares a centroid model" in end["reason"]
    nothing_left(lab)


def test_a_config_that_points_at_files_of_the_worker(lab) -> None:
    """Weights are unpickled by the trainer: a path to them would be a way in."""
    for key in ("pretrained_backbone_weights", "pretrained_head_weights"):
        config = lab.config(model={key: "/etc/passwd"})
        code, error = lab.client.train(config, engine="sleap-nn").refused()
        assert (code, error["code"]) == (2, "invalid_config")
        assert f"model_config.{key}" in error["message"]
    config = lab.config(trainer={"resume_ckpt_path": "/home/lab/model.ckpt"})
    code, error = lab.client.train(config, engine="sleap-nn").refused()
    assert "trainer_config.resume_ckpt_path" in error["message"]

    lab.worker.begin()
    for path, code in (("../../../etc/passwd", "unsafe_path"), ("configs/1/no.yaml", "not_found")):
        client = lab.client.unchecked(lab.config(), config_path=path)
        end = client.done()
        assert end["state"] == "failed"
        assert client.of("error")[0]["code"] == code
        assert path in end["reason"]
    nothing_left(lab)


def test_an_engine_that_the_worker_lacks(lab) -> None:
    lab.worker.begin()
    client = lab.client.train(lab.config(), engine="sleap-nn", worker="gpu-1")
    code, error = client.refused()
    assert (code, error["code"]) == (1, "engine_missing")
    assert error["message"] == "The engine 'sleap-nn' is not installed on worker gpu-1."
    assert error["hint"].startswith("Run there: sleap-rtc engine install sleap-nn. Or take what")
    assert not (lab.client.home / "jobs").exists()

    end = lab.client.unchecked(lab.config(), engine="sleap-nn").done()
    assert end["state"] == "failed"
    assert end["reason"] == error["message"]


def test_a_worker_that_is_not_there(lab) -> None:
    code, error = lab.client.train(lab.config(), worker="gpu-9").refused()
    assert (code, error["code"]) == (3, "unknown_worker")
    assert "gpu-9" in error["message"]
    code, error = lab.client.train(lab.config()).refused()
    assert (code, error["code"]) == (3, "not_found")


def test_labels_that_change_while_they_are_sent(lab, large) -> None:
    labels = lab.root / "changing.pkg.slp"
    shutil.copyfile(large, labels)
    lab.worker.begin()
    client = lab.client.train(lab.config(), labels=labels, slow=True)
    client.until(lambda line: line["kind"] == "transfer" and line["done"] > 0)
    with labels.open("r+b") as file:
        file.seek(-4096, 2)
        file.write(b"changed!")
    end = client.done()
    assert end["state"] == "failed"
    assert end["reason"] == f"{labels} changed while it was being sent."
    assert lab.worker.records() == {}
    nothing_left(lab)


def test_a_job_file_at_home_that_is_damaged(lab) -> None:
    lab.worker.begin()
    client = lab.client.train(lab.config())
    assert client.done()["state"] == "completed"
    job = client.lines[0]["job"]
    path = lab.client.home / "jobs" / f"{job}.json"
    path.write_text(json.dumps(json.loads(path.read_text()))[:-40])
    code, error = lab.client.attach(job).refused()
    assert (code, error["code"]) == (1, "data")
    assert str(path) in error["message"]
