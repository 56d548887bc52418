"""How busy this machine is. Extra ``worker``."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from loguru import logger

from sleap_rtc.domain.places import Load

LEAST_S: Final = 0.5
"""Seconds that a processor's load is measured over at least."""


class LoadMeter:
    """Measures it. For several threads.

    Args:
        seconds: A clock that doesn't jump.
    """

    def __init__(self, *, seconds: Callable[[], float] = time.monotonic) -> None:
        import psutil  # noqa: PLC0415 - belongs to the extra

        self._psutil = psutil
        self._seconds = seconds
        self._lock = threading.Lock()
        self._gpus = _Gpus()
        self._psutil.cpu_percent(None)  # the next one tells what passed since
        self._at = seconds()
        self._last: Load | None = None

    def __call__(self) -> Load | None:
        """The load since the last measurement; None as long as there is too little to tell."""
        with self._lock:
            now = self._seconds()
            if now - self._at >= LEAST_S:
                self._at = now
                gpu, memory = self._gpus.busiest()
                cpu = min(100.0, max(0.0, self._psutil.cpu_percent(None)))
                self._last = Load(cpu=cpu, gpu=gpu, gpu_memory=memory)
            return self._last


class _Gpus:
    """NVIDIA GPUs, by the driver's own library; none where there is no driver."""

    def __init__(self) -> None:
        import pynvml  # noqa: PLC0415 - belongs to the extra

        self._nvml: Any = pynvml
        self._handles: list[Any] = []
        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
            self._handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
        except pynvml.NVMLError as error:
            logger.debug("no load of GPUs: {}", error)

    def busiest(self) -> tuple[float | None, int | None]:
        """Load in percent, and bytes of memory in use, of the GPU that has most to do."""
        found: list[tuple[float, int]] = []
        for handle in self._handles:
            # Some virtual GPUs tell of their memory alone, or of nothing.
            with contextlib.suppress(self._nvml.NVMLError):
                load = float(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
                used = int(self._nvml.nvmlDeviceGetMemoryInfo(handle).used)
                found.append((min(100.0, max(0.0, load)), used))
        return max(found, default=(None, None))
