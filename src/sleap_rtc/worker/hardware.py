"""What this machine has: processors, memory, disk, GPUs. Extra ``worker``."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

from loguru import logger

from sleap_rtc.domain.places import Gpu, Hardware
from sleap_rtc.engines.threads import usable_cpus


def look(directory: Path) -> Hardware:
    """Measure this machine.

    Args:
        directory: Where the worker keeps its files; must exist.
    """
    import psutil  # noqa: PLC0415 - belongs to the extra

    return Hardware(
        cpus=usable_cpus(),
        ram=psutil.virtual_memory().total,
        disk_free=disk_free(directory),
        gpus=_gpus(),
        platform=f"{platform.system()} {platform.machine()}",
    )


def device_name(hardware: Hardware) -> str:
    """The name of what training runs on: the first GPU's, or ``cpu``."""
    return hardware.gpus[0].name if hardware.gpus else "cpu"


def _gpus() -> tuple[Gpu, ...]:
    """NVIDIA GPUs by the driver's own library; none where there is no driver."""
    import pynvml  # noqa: PLC0415 - belongs to the extra

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        logger.debug("no NVIDIA driver: {}", error)
        return ()
    try:
        found = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            found.append(Gpu(name=str(pynvml.nvmlDeviceGetName(handle)), memory=int(memory.total)))
        return tuple(found)
    except pynvml.NVMLError as error:
        logger.warning("the NVIDIA driver doesn't answer: {}", error)
        return ()
    finally:
        pynvml.nvmlShutdown()


def disk_free(directory: Path) -> int:
    """Free bytes where a directory is."""
    return shutil.disk_usage(directory).free
