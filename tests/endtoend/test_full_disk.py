"""Full disks on either side: a clear error, nothing half-written, and work goes on afterwards.

The disks are small file systems in memory, which only root may mount.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.webrtc]

MIB = 1024 * 1024


class SmallDisk:
    """A file system that can be filled, and made larger."""

    def __init__(self, place: Path, size: int) -> None:
        self.place = place
        self._filler = place / "filler"
        place.mkdir(parents=True)
        done = subprocess.run(
            ("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            pytest.skip(f"a small disk can't be mounted here: {done.stderr.strip()}")

    def fill(self, leaving: int) -> None:
        """Leave so many bytes free."""
        usage = subprocess.run(
            ("df", "--output=avail", "-B1", str(self.place)),
            capture_output=True,
            text=True,
            check=True,
        )
        free = int(usage.stdout.split()[-1])
        # Others write at the same time: a disk that is full before is as well.
        with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as file:
            file.write(bytes(max(0, free - leaving)))

    def make_room(self) -> None:
        self._filler.unlink()

    def resize(self, size: int) -> None:
        subprocess.run(("mount", "-o", f"remount,size={size}", str(self.place)), check=True)

    def unmount(self) -> None:
        subprocess.run(("umount", "--lazy", str(self.place)), check=True)


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path, int], SmallDisk]]:
    made: list[SmallDisk] = []

    def make(place: Path, size: int) -> SmallDisk:
        made.append(SmallDisk(place, size))
        return made[-1]

    yield make
    for disk in made:
        disk.unmount()


def test_no_room_for_the_dataset_on_the_worker(small_disk, lab, large) -> None:
    disk = small_disk(lab.worker.directory, 24 * MIB)
    lab.worker.begin()
    client = lab.client.train(lab.config(), labels=large)
    code, told = client.refused()
    assert (code, told["code"]) == (1, "out_of_space")
    assert "are needed" in told["message"]
    assert str(lab.worker.directory) in told["message"]
    assert "Make room" in told["hint"]
    # It was seen before anything was written.
    assert client.of("transfer") == []
    assert not (lab.worker.directory / "jobs").is_dir()
    assert not (lab.worker.directory / "datasets").is_dir() or not any(
        (lab.worker.directory / "datasets").iterdir()
    )
    assert lab.worker.records() == {}
    assert lab.client.models() == {}

    # Meanwhile it works on what it has room for, and on all of it when there is room.
    assert lab.client.train(lab.config()).done()["state"] == "completed"
    # The images come from a file of this very machine, so the worker makes a copy without its name.
    disk.resize(128 * MIB)
    assert lab.client.train(lab.config(), labels=large).done()["state"] == "completed"
    assert lab.worker.left() == []


def test_the_workers_disk_fills_up_while_it_trains(small_disk, lab) -> None:
    disk = small_disk(lab.worker.directory, 64 * MIB)
    lab.worker.begin()
    client = lab.client.train(lab.config(epochs=12, steps=60))
    job = client.until("job")["job"]
    client.until(lambda line: line["kind"] == "epoch" and line["epoch"] == 1)
    disk.fill(leaving=0)
    end = client.done()
    assert end["state"] == "interrupted"
    assert "0 B free" in end["reason"]
    assert lab.worker.states(job)[-1] == "interrupted"

    disk.make_room()
    record = lab.worker.records()["centroid"]
    assert record.status == "interrupted"
    assert record.interruption.epoch >= 1
    assert lab.client.do("retry", job=job).ended() == 0
    again = lab.client.attach(job)
    assert again.done()["state"] == "completed"
    assert again.of("stage")[-1]["first_epoch"] == record.interruption.epoch
    assert lab.client.models()["centroid"].status == "completed"


def test_a_worker_whose_disk_is_full_takes_no_job(small_disk, lab) -> None:
    disk = small_disk(lab.worker.directory, 16 * MIB)
    lab.worker.begin()
    disk.fill(leaving=0)
    client = lab.client.train(lab.config())
    code, error = client.refused()
    assert (code, error["code"]) == (1, "out_of_space")
    assert str(lab.worker.directory) in error["message"]
    job = client.lines[0]["job"]

    disk.make_room()
    # Nothing is lost: the same job is sent again.
    assert lab.client.attach(job).done()["state"] == "completed"


def test_no_room_for_the_model_at_home(small_disk, lab) -> None:
    disk = small_disk(lab.client.home / "models", 16 * MIB)
    lab.worker.begin()
    client = lab.client.train(lab.config(epochs=8, steps=60, pad=250_000), alias="flies")
    job = client.until("job")["job"]
    client.until(lambda line: line["kind"] == "epoch" and line["epoch"] == 1)
    disk.fill(leaving=256 * 1024)
    code, error = client.refused()
    assert (code, error["code"]) == (1, "out_of_space")
    assert str(lab.client.home / "models") in error["message"]
    assert lab.worker.view(job).state == "completed"
    record = lab.client.models()["centroid"]
    assert record.files == ()
    assert record.package is None

    disk.make_room()
    again = lab.client.attach(job)
    assert again.done()["state"] == "completed"
    done = lab.client.models()["centroid"]
    assert (done.id, done.status) == (record.id, "completed")
    assert [line["alias"] for line in again.of("alias")] == ["flies"]
    assert lab.client.left() == []


def test_no_room_at_home_for_anything(small_disk, lab) -> None:
    lab.worker.begin()
    disk = small_disk(lab.client.home / "jobs", MIB)
    disk.fill(leaving=0)
    code, error = lab.client.train(lab.config()).refused()
    assert (code, error["code"]) == (1, "out_of_space")
    assert list((lab.client.home / "jobs").glob("*.json")) == []
    assert not (lab.worker.directory / "jobs").exists()
