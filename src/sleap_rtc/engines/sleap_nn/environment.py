"""The environment of sleap-nn: found, made, made again when half-made.

It is made with ``venv`` and ``pip`` in a directory whose name holds the versions,
so that a new version is a new environment and the old one goes on working. The
marker ``installed.json`` is written last; a directory without it is half-made and
is removed before it is made again. An existing environment can be named instead
(:data:`~sleap_rtc.engines.sleap_nn.places.PYTHON_VARIABLE`); it is used as it is.
"""

from __future__ import annotations

import collections
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from sleap_rtc.engines.base import Installation
from sleap_rtc.engines.output import Lines
from sleap_rtc.engines.process import last_error
from sleap_rtc.engines.sleap_nn.places import Places
from sleap_rtc.errors import EngineError, EngineMissing
from sleap_rtc.files.claim import Claim
from sleap_rtc.files.durable import write_replacing
from sleap_rtc.files.space import check_space

NAME: Final = "sleap-nn"
VERSION: Final = "0.3.5"
TORCH: Final = "2.13.0"
TORCHVISION: Final = "0.28.0"
MARKER: Final = "installed.json"
PYTHONS: Final = ((3, 11), (3, 12), (3, 13))
"""Versions of Python that it runs on."""

Device = Literal["cpu", "gpu"]
Tell = Callable[[str], None]

_SIZE: Final[dict[Device, int]] = {"cpu": 2_400_000_000, "gpu": 7_000_000_000}
"""Bytes on the disk when it is done."""
_SLACK: Final = 1.5
"""Downloads are unpacked beside what is there already."""
_VERSION_CODE: Final = f"from importlib.metadata import version; print(version({NAME!r}))"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What an installation will do.

    Attributes:
        directory: The environment.
        python: The Python that it is made with.
        device: Whether it is for a graphics card.
        requirements: What pip is asked for.
        size: Bytes on the disk, about.
    """

    directory: Path
    python: Path
    device: Device
    requirements: tuple[str, ...]
    size: int


def find(places: Places) -> Installation:
    """Where sleap-nn is installed.

    Raises:
        EngineMissing: It isn't, or is half-made, or the environment that was named has none.
    """
    if places.sleap_nn_python is not None:
        return _named(places.sleap_nn_python)
    for device in ("gpu", "cpu") if has_gpu() else ("cpu", "gpu"):
        for minor in PYTHONS:
            directory = _directory(places, device, minor)
            if is_complete(directory):
                return Installation(python=_python_in(directory), version=VERSION)
    raise EngineMissing(engine=NAME, where="this machine")


def plan_installation(places: Places, *, python: Path | None = None) -> Plan:
    """What :func:`install` would do; nothing is changed.

    Args:
        places: Where to.
        python: The Python to use; None looks for one.

    Raises:
        EngineMissing: There is no Python that sleap-nn runs on.
    """
    chosen, version = _find_python([python] if python is not None else _candidates())
    device: Device = "gpu" if has_gpu() else "cpu"
    requirements = [f"{NAME}=={VERSION}"]
    if device == "cpu":
        requirements += [f"torch=={TORCH}", f"torchvision=={TORCHVISION}"]
    return Plan(
        directory=_directory(places, device, version),
        python=chosen,
        device=device,
        requirements=tuple(requirements),
        size=_SIZE[device],
    )


def install(plan: Plan, tell: Tell, *, index_url: str | None = None) -> Installation:
    """Make the environment, unless it is there. Takes minutes; the size should be told before.

    Args:
        plan: What to do.
        tell: Gets a line for each thing that happens.
        index_url: Package index for pip, for example one with torch for this machine.

    Raises:
        Busy: Another process is making it.
        OutOfSpace: There isn't room for it.
        EngineError: pip failed, or what it installed doesn't work; the message says why.
    """
    directory = plan.directory
    with Claim(directory.with_name(directory.name + ".lock"), what=f"The engine {NAME}"):
        if is_complete(directory):
            tell(f"{NAME} {VERSION} is there already, in {directory}")
            return Installation(python=_python_in(directory), version=VERSION)
        if directory.exists():
            tell(f"Removing what an earlier attempt left in {directory}")
            shutil.rmtree(directory)
        check_space(directory.parent, int(plan.size * _SLACK))
        tell(f"Making an environment with {plan.python} in {directory}")
        _run([str(plan.python), "-m", "venv", str(directory)], tell, what="venv")
        mend(_python_in(directory))
        command = [str(_python_in(directory)), "-I", "-m", "pip", "install"]
        command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
        if index_url is not None:
            command += ["--index-url", index_url]
        _run([*command, *plan.requirements], tell, what="pip")
        tell("Checking that it works")
        check = f"import torch, torchvision, sleap_nn; {_VERSION_CODE}"
        version = _run([str(_python_in(directory)), "-I", "-c", check], tell, what=NAME)[-1]
        marker = {"engine": NAME, "version": version, "requirements": plan.requirements}
        write_replacing(directory / MARKER, msgspec.json.encode(marker))
    tell(f"{NAME} {version} is installed")
    return Installation(python=_python_in(directory), version=version)


def is_complete(directory: Path) -> bool:
    """Whether an environment was made to the end."""
    return (directory / MARKER).is_file() and _python_in(directory).exists()


def mend(python: Path) -> None:
    """Put the mend for torchvision into an environment; see :mod:`sleap_rtc.engines.sleap_nn.mend`.

    Raises:
        EngineError: The environment's packages can't be found.
    """
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    packages = Path(_run([str(python), "-I", "-c", code], lambda _: None, what=str(python))[-1])
    source = Path(__file__).with_name("mend.py").read_bytes()
    write_replacing(packages / "_sleap_rtc_mend.py", source)
    write_replacing(packages / "sleap_rtc_mend.pth", b"import _sleap_rtc_mend\n")


def has_gpu() -> bool:
    """Whether this machine has a graphics card that torch can use, by its driver."""
    return Path("/proc/driver/nvidia/version").exists()


def _named(python: Path) -> Installation:
    try:
        asked = subprocess.run(
            [str(python), "-I", "-c", _VERSION_CODE],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        hint = f"Name an environment's interpreter where pip shows {NAME}, or none."
        raise EngineMissing(engine=NAME, where=f"this machine in {python}", hint=hint) from None
    return Installation(python=python, version=asked.stdout.strip()[:40])


def _directory(places: Places, device: str, python: tuple[int, int]) -> Path:
    name = f"{NAME}-{VERSION}-torch-{TORCH}-py{python[0]}.{python[1]}-{device}"
    return places.engines / name


def _python_in(directory: Path) -> Path:
    return directory / "bin" / "python"


def _candidates() -> list[Path]:
    """Pythons that may do: this one first, then by name along the path."""
    found = [Path(sys.executable)]
    for major, minor in reversed(PYTHONS):
        named = shutil.which(f"python{major}.{minor}")
        if named:
            found.append(Path(named))
    return found


def _find_python(candidates: Sequence[Path]) -> tuple[Path, tuple[int, int]]:
    """The first Python that is of a right version and can make environments."""
    code = "import sys, venv, ensurepip; print(*sys.version_info[:2])"
    for python in candidates:
        with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
            asked = subprocess.run(
                [str(python), "-I", "-c", code],
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
            major, minor = (int(part) for part in asked.stdout.split())
            if (major, minor) in PYTHONS:
                return python, (major, minor)
    raise EngineMissing(
        engine=NAME,
        where="this machine, which has no Python that it runs on",
        hint="Install Python 3.11, 3.12 or 3.13 with its venv module (on Debian and Ubuntu: "
        "python3.12 and python3.12-venv), or name one with --python.",
    )


def _run(command: Sequence[str], tell: Tell, *, what: str) -> list[str]:
    """Run a program to its end and tell its lines; it is ended with us if we are interrupted."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    said: collections.deque[str] = collections.deque(maxlen=60)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
    try:
        lines = Lines()
        assert process.stdout is not None  # noqa: S101 - asked for above
        with process.stdout as stream:
            while data := stream.read1(64 * 1024):  # type: ignore[attr-defined]
                for line in lines.feed(data):
                    said.append(line)
                    tell(line)
        said.extend(lines.end())
        returncode = process.wait()
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if returncode != 0:
        why = last_error(said) or f"exit code {returncode}"
        raise EngineError(message=f"{what} failed while installing {NAME}: {why}")
    return list(said) or [""]
