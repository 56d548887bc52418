from __future__ import annotations

import msgspec
import pytest

from sleap_rtc.cli.machine_documents import GpuShown, LoadShown
from sleap_rtc.cli.workers import gpus, hardware_pairs, worker_shown
from sleap_rtc.domain.places import Gpu, Hardware, Load, WorkerInfo

INFO = WorkerInfo(
    hardware=Hardware(
        cpus=8,
        ram=64_000_000_000,
        disk_free=1_000_000_000_000,
        gpus=(Gpu(name="RTX", memory=24_000_000_000),) * 2,
        platform="Linux x86_64",
    ),
    engines={"sleap-nn": "0.3.5"},
    version="0.1.0",
    jobs=1,
    models=3,
)


def test_what_a_worker_says():
    shown = worker_shown("gpu-1", "lab", "d" * 64, INFO)
    assert (shown.name, shown.room, shown.cpus, shown.jobs) == ("gpu-1", "lab", 8, 1)
    assert dict(hardware_pairs(shown)) == {
        "Key": " ".join(["dddd"] * 8),
        "GPU": "2 x RTX, 24 GB",
        "Machine": "8 cpus, 64 GB of memory, Linux x86_64",
        "Disk free": "1.0 TB",
        "Engines": "sleap-nn 0.3.5",
        "Models": "3",
    }


def test_a_worker_that_says_nothing():
    shown = worker_shown("w", "lab", "d" * 64, None)
    assert (shown.cpus, shown.engines, shown.gpus, shown.load) == (0, {}, (), None)


def test_how_busy_a_worker_is():
    info = msgspec.structs.replace(INFO, load=Load(cpu=12.5, gpu=99.0, gpu_memory=10**9))
    shown = worker_shown("gpu-1", "lab", "d" * 64, info)
    assert shown.load == LoadShown(cpu=12.5, gpu=99.0)


def test_gpus_in_few_words():
    one, two = GpuShown(name="A", memory=8_000_000_000), GpuShown(name="B", memory=2_000_000_000)
    assert gpus([]) == "none"
    assert gpus([one, two, one]) == "2 x A, 8.0 GB; 1 x B, 2.0 GB"


@pytest.mark.slow
def test_nobody_is_online(host, cli):
    cli("login", host.url, "--code", host.code)
    cli("room", "create", "lab")
    done = cli("workers")
    assert (done.code, done.out) == (0, "")
    assert "No worker is online in lab" in done.err
    assert cli("workers", "--json").document == {"workers": [], "as_of": None}
    assert cli("workers", "--room", "other").code == 3
