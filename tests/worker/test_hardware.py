"""What this machine has."""

from __future__ import annotations

from sleap_rtc.domain.places import Gpu, Hardware
from sleap_rtc.worker import hardware


def test_a_machine_has_processors_memory_and_disk(tmp_path):
    found = hardware.look(tmp_path)
    assert found.cpus >= 1
    assert found.ram > 2**20
    assert found.disk_free > 0
    assert found.platform


def test_the_device_is_the_first_gpu_or_the_processor():
    assert hardware.device_name(Hardware()) == "cpu"
    gpus = (Gpu(name="RTX 4090", memory=24 * 2**30), Gpu(name="T4", memory=16 * 2**30))
    assert hardware.device_name(Hardware(gpus=gpus)) == "RTX 4090"
