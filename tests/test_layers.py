"""Who imports whom, as `[tool.importlinter]` in pyproject.toml says, and what stays light."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What makes a start slow, or belongs to an extra that a laptop doesn't have.
HEAVY = (
    "numpy",
    "h5py",
    "sleap_io",
    "zmq",
    "reactor_webrtc",
    "aiortc",
    "uvicorn",
    "websockets",
    "psutil",
    "cryptography",
    "prometheus_client",
    "sqlite3",
)
# What values, rules and messages must not bring along, whoever imports them.
PURE_TOO = (*HEAVY, "asyncio", "socket", "ssl", "subprocess", "loguru")
PURE = ("domain", "jobs", "protocol", "transfer")


def test_layers_and_pure_parts_hold() -> None:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-logo", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def imported_by(*modules: str) -> set[str]:
    """Every module that a fresh interpreter has after importing these."""
    code = "import importlib, sys\nfor m in sys.argv[1:]: importlib.import_module(m)\n"
    code += "print(*sys.modules)"
    # What measures coverage brings modules of its own along.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, *modules],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("package", PURE)
def test_pure_parts_bring_nothing_heavy(package: str) -> None:
    folder = ROOT / "src" / "sleap_rtc" / package
    modules = [f"sleap_rtc.{package}.{path.stem}" for path in folder.glob("[!_]*.py")]
    assert modules
    assert imported_by(*modules) & set(PURE_TOO) == set()


def test_the_package_itself_is_light() -> None:
    assert imported_by("sleap_rtc") & set(PURE_TOO) == set()


def test_the_command_line_starts_light() -> None:
    assert imported_by("sleap_rtc.cli.main") & set(HEAVY) == set()
