"""How busy this machine is."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pynvml
import pytest

from sleap_rtc.worker.load import LEAST_S, LoadMeter


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_busy_processor_is_told():
    clock = Clock()
    meter = LoadMeter(seconds=clock)
    assert meter() is None  # nothing is measured yet
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        pass
    clock.now += LEAST_S
    load = meter()
    assert 0 < load.cpu <= 100
    assert meter() is load  # too soon to say more
    clock.now += LEAST_S
    assert meter() is not load


def test_several_may_ask_at_once():
    meter = LoadMeter()
    threads = [threading.Thread(target=meter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Gpus:
    """A driver with these GPUs: load in percent, bytes in use; None for one that tells nothing."""

    def __init__(self, *gpus: tuple[int, int] | None) -> None:
        self.gpus = gpus

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: len(self.gpus))
        monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
        monkeypatch.setattr(
            pynvml,
            "nvmlDeviceGetUtilizationRates",
            lambda index: SimpleNamespace(gpu=self._told(index)[0]),
        )
        monkeypatch.setattr(
            pynvml,
            "nvmlDeviceGetMemoryInfo",
            lambda index: SimpleNamespace(used=self._told(index)[1]),
        )

    def _told(self, index: int) -> tuple[int, int]:
        found = self.gpus[index]
        if found is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return found


@pytest.mark.parametrize(
    ("gpus", "told"),
    [
        (((10, 5), (90, 7), (90, 3)), (90.0, 7)),
        ((None, (0, 1)), (0.0, 1)),
        ((None,), (None, None)),
        ((), (None, None)),
    ],
)
def test_the_busiest_gpu_is_told(monkeypatch, gpus, told):
    Gpus(*gpus).install(monkeypatch)
    clock = Clock()
    meter = LoadMeter(seconds=clock)
    clock.now += LEAST_S
    load = meter()
    assert (load.gpu, load.gpu_memory) == told


def test_a_machine_without_a_driver_has_no_gpu(monkeypatch):
    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    clock = Clock()
    meter = LoadMeter(seconds=clock)
    clock.now += LEAST_S
    assert meter().gpu is None
