"""What every test stands on: no network beyond this machine, a home of its own, quiet logs.

Hypothesis has two profiles, chosen by ``HYPOTHESIS_PROFILE``: ``fast`` while one
works, ``ci`` with more examples in ``make test``.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from loguru import logger

# Where the trainer's environment and pip's cache are is asked before the home moves below.
from sleap_rtc.config import load
from sleap_rtc.testing import netns

# Test processes share the cores: how long an example takes says nothing.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("fast", max_examples=60, **_COMMON)
settings.register_profile("ci", max_examples=150, print_blob=True, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

_NAMESPACE = ipaddress.ip_network("10.77.0.0/16")
"""Addresses of the network namespaces that are made for tests."""
_EVENTS = {"socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"}

_HERE = Path(__file__).parent
_LONGEST = (
    "endtoend/test_demo.py",
    "engines/sleap_nn/test_engine.py",
    "endtoend/test_real_recording.py",
    "endtoend/test_training.py",
    "endtoend/test_network.py",
    "transports/test_fetch_processes.py",
    "cli/test_whole_job.py",
)
"""Modules whose tests run first, and then every slow one: one that began last would end alone."""


class NetworkUsed(RuntimeError):
    """A test reached for the network beyond this machine."""


def _is_here(host: str) -> bool:
    if host in ("", "localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address in _NAMESPACE


def _guard(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse what would leave this machine, as an audit hook: it sees every library's sockets."""
    if event in _EVENTS:
        address = arguments[1]
        # Unix and netlink sockets have other addresses. Binding to every address is no traffic.
        if not isinstance(address, tuple) or not isinstance(address[0], str):
            return
        host = address[0]
        if event == "socket.bind" and host in ("0.0.0.0", "::"):
            return
    elif event == "socket.getaddrinfo" and arguments[0] is not None:
        host = arguments[0].decode() if isinstance(arguments[0], bytes) else str(arguments[0])
        if host.endswith(".invalid"):
            # By RFC 6761 there is no such name; that is said without asking anybody.
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    else:
        return
    if not _is_here(host) and not (event == "socket.getaddrinfo" and host in ("0.0.0.0", "::")):
        raise NetworkUsed(f"a test used {event} for {host!r}; 127.0.0.1 is all there is")


def _have_a_network_alone() -> None:
    """Have a namespace for this process, of those that share one and run tests side by side.

    The fast WebRTC library follows the machine's network: when a test's cable or router comes and
    goes, connections of all tests in its namespace try that way, and are silent for ten seconds.
    """
    if netns.inside() is not None and "PYTEST_XDIST_WORKER" in os.environ:
        netns.enter()


def _move_home(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    os.environ["HOME"] = str(home)
    os.environ["SLEAP_RTC_HOME"] = str(home / ".sleap-rtc")


def pytest_configure(config: pytest.Config) -> None:
    """Before anything is imported: guard the network and leave the user's home alone."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell has its jobs in the background ignore it, and so would programs that tests start.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Tests run side by side: with a thread for each core in each of them they'd stand in line.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    kept = {"SLEAP_RTC_NETNS", "SLEAP_RTC_ENGINES"}
    os.environ["SLEAP_RTC_ENGINES"] = str(load().engines_dir)
    for name in list(os.environ):
        ours = name.startswith("SLEAP_RTC_") and name not in kept
        if ours or name.startswith("XDG_"):
            del os.environ[name]
    _have_a_network_alone()
    home = tempfile.TemporaryDirectory(prefix="sleap-rtc-home-", ignore_cleanup_errors=True)
    config.add_cleanup(home.cleanup)
    _move_home(Path(home.name))
    logger.remove()
    sys.addaudithook(_guard)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long ones first; tests of one module stay together, as they share its fixtures."""
    rank = {_HERE / name: number for number, name in enumerate(_LONGEST)}

    def place(item: pytest.Item) -> tuple[int, bool]:
        return rank.get(item.path, len(rank)), item.get_closest_marker("slow") is None

    items.sort(key=place)


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty home for each test; what a test does to the environment's home is undone."""
    before = {name: os.environ[name] for name in ("HOME", "SLEAP_RTC_HOME")}
    home = tmp_path_factory.mktemp("home")
    _move_home(home)
    yield home
    os.environ.update(before)
