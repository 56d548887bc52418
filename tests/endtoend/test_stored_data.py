"""A job's data by storage and by shared disks, with every process killed while it moves."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.webrtc]

PAGE = Path(__file__).parents[2] / "docs" / "training-data.md"
MB = 1_000_000
QUOTA = 30 * MB
SMALL = {"SLEAP_RTC_LARGE_FILE_THRESHOLD": "1MB"}
STORED = {"SLEAP_RTC_TRANSPORT": "s3"}
SLOW = {"SLEAP_RTC_LIMIT_RATE": "4MB"}
PARTS = {"SLEAP_RTC_MULTIPART_CHUNK_SIZE": str(5 * 1024 * 1024)}
CRAWLING = {"SLEAP_RTC_LIMIT_RATE": "300KB"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory, data, make_lab) -> Iterator[Any]:
    """One for the module, its worker online: each test has labels of its own."""
    root = tmp_path_factory.mktemp("stored")
    with make_lab(root, data, server_storage_quota=QUOTA) as made:
        begin(made)
        yield made


@pytest.fixture(autouse=True)
def online(lab) -> None:
    """The worker is there, whatever became of it in the test before."""
    if lab.worker.daemon.process.poll() is not None:
        begin(lab)


def begin(lab, **env: str):
    (lab.root / "shared").mkdir(exist_ok=True)
    return lab.worker.begin(SLEAP_RTC_WORKER_SHARED=str(lab.root / "shared"), **env)


@pytest.fixture
def labels(data, tmp_path, request) -> Path:
    """Labels that no other test has."""
    return padded(data, tmp_path / "flies.pkg.slp", 6 * MB, request.node.name)


def padded(data, path: Path, size: int, name: str) -> Path:
    shutil.copyfile(data.package, path)
    noise = np.random.default_rng(sum(map(ord, name))).integers(0, 256, size, dtype=np.uint8)
    with h5py.File(path, "a") as file:
        file["padding"] = noise
    return path


def jobs_of(worker) -> list[str]:
    folder = worker.directory / "jobs"
    return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []


def train(lab, labels: Path, *, env: dict[str, str], pad: int = 0, **asked: Any):
    config = lab.config(epochs=1, pad=pad)
    return lab.client.train(config, labels=labels, route=True, env=env, **asked)


def test_its_page(lab, labels, run_page) -> None:
    lab.config().rename(labels.with_name("centroid.yaml"))
    assert len(run_page(lab, PAGE, cwd=labels.parent, **SMALL)) == 1


def test_a_client_killed_while_it_stores_goes_on_and_nothing_is_queued(lab, labels) -> None:
    before = jobs_of(lab.worker)
    # A configuration of its own: what the worker has doesn't count.
    size = labels.stat().st_size + lab.config(epochs=1, pad=999).stat().st_size
    exactly = {"SLEAP_RTC_LARGE_FILE_THRESHOLD": str(size)} | PARTS
    # The configuration goes in one piece, and leaves nothing behind.
    client = train(lab, labels, env=exactly | SLOW, pad=999, die_at="storing", die_after=MB)
    assert client.ended() == -signal.SIGKILL
    assert jobs_of(lab.worker) == before
    assert list((lab.client.home / "uploads").iterdir()) != []

    again = train(lab, labels, env=exactly, pad=999, die_at="stored")
    assert again.ended() == -signal.SIGKILL
    (stored,) = again.of("stored")
    assert (stored["way"], stored["sent"] + stored["there"]) == ("s3", size)
    assert list((lab.client.home / "uploads").iterdir()) == []
    assert jobs_of(lab.worker) == before


def test_a_laptop_closed_a_daemon_killed_and_a_pause_while_the_data_is_fetched(lab, labels) -> None:
    worker, size = lab.worker, labels.stat().st_size
    worker.daemon.terminate()
    daemon = begin(lab, **CRAWLING)
    client = train(lab, labels, env={}, leaves=True, die_at="transfer")
    assert client.ended() == -signal.SIGKILL
    (plan,), (stored,), (begun,) = client.of("plan"), client.of("stored"), client.of("job")
    assert plan["ways"][0] == "s3"
    assert (stored["sent"] > size, stored["there"]) == (True, 0)
    assert all(place.startswith("uploads/") for place in stored["places"])
    job = begun["job"]
    daemon.kill()
    assert worker.left()

    begin(lab, **CRAWLING)
    assert lab.client.do("command", job=job, command="pause").ended() == 0
    assert worker.view(job).state == "paused"
    arrived = worker.view(job).transfer.done
    assert worker.left()
    worker.daemon.terminate()

    begin(lab)
    assert lab.client.do("command", job=job, command="resume").ended() == 0
    again = lab.client.attach(job)
    end = again.done()
    assert (end["state"], end["sent"]) == ("completed", 0)
    told = again.of("transfer")
    done = [line["done"] for line in told]
    assert done == sorted(done)
    assert 0 < arrived < done[-1] == told[-1]["total"]
    assert {line["way"] for line in told} == {"s3"}
    assert "interrupted" in worker.states(job)
    assert worker.left() == []

    # The same labels with another configuration: only that moves, by the link as it is small.
    second = train(lab, labels, env=SMALL, pad=100)
    end = second.done()
    assert end["state"] == "completed"
    assert second.of("stored")[0]["sent"] == 0
    assert 0 < end["sent"] < MB


def test_a_model_that_the_worker_lacks_is_stored_with_the_video(lab) -> None:
    assert lab.client.train(lab.config(epochs=1), alias="flies").done()["state"] == "completed"
    [model] = [each for each in lab.client.models().values() if each.status == "completed"]
    other = lab.new_worker("gpu-2", lab.invite())
    daemon = other.begin()
    asked = {"model": "flies", "video": str(lab.data.video), "output": str(lab.root / "out")}
    client = lab.client.do(
        "track", **asked, worker="gpu-2", route=True, env=STORED, die_at="transfer"
    )
    assert client.ended() == -signal.SIGKILL
    (stored,), (begun,) = client.of("stored"), client.of("job")
    assert (stored["way"], len(stored["places"])) == ("s3", 1 + len(model.files))

    again = lab.client.attach(begun["job"])
    end = again.done()
    assert (end["state"], end["sent"]) == ("completed", 0)
    assert {line["way"] for line in client.of("transfer") + again.of("transfer")} == {"s3"}
    assert (other.directory / "datasets" / model.package).is_dir()
    daemon.terminate()


def test_labels_on_a_disk_that_both_see(lab, labels) -> None:
    seen = lab.root / "shared" / labels.name
    shutil.move(labels, seen)
    client = train(lab, seen, env=SMALL)
    end = client.done()
    assert end["state"] == "completed"
    (stored,) = client.of("stored")
    assert (stored["way"], stored["places"]) == ("local", [str(seen)])
    assert end["sent"] < MB < seen.stat().st_size  # the configuration
    assert {line["way"] for line in client.of("transfer")} == {"local"}


def test_storage_that_takes_no_more(lab, data, tmp_path) -> None:
    labels = padded(data, tmp_path / "many.pkg.slp", QUOTA, "many")
    before = jobs_of(lab.worker)
    code, error = train(lab, labels, env=STORED).refused()
    assert (code, error["code"]) == (1, "quota_exceeded")
    assert "Nothing was queued" in error["hint"]
    assert jobs_of(lab.worker) == before


def test_labels_that_rotted_in_storage_are_named_and_stored_anew(lab, labels) -> None:
    first = train(lab, labels, env=STORED, die_at="stored")
    assert first.ended() == -signal.SIGKILL
    size = labels.stat().st_size
    stored = lab.host.root / "server" / "storage" / "objects"
    files = [path for path in stored.rglob("*") if path.is_file() and path.stat().st_size == size]
    [rotten] = [path for path in files if path.read_bytes() == labels.read_bytes()]
    with rotten.open("r+b") as file:
        file.seek(size // 2)
        byte = file.read(1)
        file.seek(size // 2)
        file.write(bytes([byte[0] ^ 1]))

    # It is there already, so that nothing is sent; whoever submitted it is there, too.
    client = train(lab, labels, env=STORED)
    end = client.done()
    assert end["state"] == "completed"
    assert client.of("stored")[0]["sent"] == 0
    assert 0 < end["sent"] < size  # by the link: what storage had of it, and was right, stays
    said = f"{labels.name} in the room's storage is damaged: it isn't any more what was stored"
    assert said in lab.worker.job(client.of("job")[0]["job"]).log.read_text(errors="replace")

    # Whoever stores it the next time sends it anew.
    again = train(lab, labels, env=STORED, die_at="stored")
    assert again.ended() == -signal.SIGKILL
    assert again.of("stored")[0]["sent"] == size
    assert rotten.read_bytes() == labels.read_bytes()
