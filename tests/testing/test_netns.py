"""A namespace of one's own: an address besides loopback, and no way out."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sleap_rtc.errors import NotPermitted
from sleap_rtc.testing import netns

LOOK = """
import os, socket
from sleap_rtc.testing import netns
address = netns.inside()
with socket.create_server((address, 0)) as server:
    socket.create_connection(server.getsockname(), timeout=60).close()
with socket.socket() as outwards:
    outwards.settimeout(5)
    print(address, outwards.connect_ex(("192.0.2.1", 9)))
print(*sorted(name for _, name in socket.if_nameindex()))
"""


def enter(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sleap_rtc.testing.netns", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **options,  # type: ignore[call-overload]
    )


@pytest.fixture(scope="session")
def permitted() -> None:
    done = enter("--", sys.executable, "-c", "")
    if done.returncode == NotPermitted.exit_code:
        pytest.skip(done.stderr.strip())


def test_inside_there_is_an_address_and_no_way_out(permitted: None) -> None:
    done = enter("--", sys.executable, "-c", LOOK)
    assert done.stderr == ""
    told, interfaces = done.stdout.splitlines()
    assert told == f"{netns.ADDRESS} {errno.ENETUNREACH}"
    assert interfaces.split() == ["lo", "veth0", "veth1"]


def test_another_user_gets_one_too(permitted: None) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else; the other tests are that user's")
    nobody = 65534
    source = Path(netns.__file__).read_text("utf-8")
    # By standard input, since this user may not read the checkout.
    done = subprocess.run(
        ["python3", "-I", "-", "--", "cat", "/proc/net/route"],
        input=source.replace("from sleap_rtc.errors import NotPermitted", STAND_IN),
        capture_output=True,
        text=True,
        check=False,
        user=nobody,
        cwd="/",
    )
    if "can't be made here" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    assert "\t00000000\t00000000\t" not in done.stdout  # no default route
    assert "veth0" in done.stdout


STAND_IN = """
class NotPermitted(Exception):
    exit_code = 6
    def __init__(self, *, message):
        super().__init__(message)
"""


def test_the_command_s_exit_code_is_passed_on(permitted: None) -> None:
    assert enter(sys.executable, "-c", "raise SystemExit(42)").returncode == 42


def test_a_command_that_is_missing_is_named(permitted: None) -> None:
    done = enter("--", "no-such-program")
    assert (done.returncode, done.stderr) == (127, "no-such-program: No such file or directory\n")


def test_a_missing_ip_is_named(permitted: None, tmp_path: Path) -> None:
    done = enter("--", "true", env={**os.environ, "PATH": str(tmp_path)})
    assert done.returncode == NotPermitted.exit_code
    assert "the program 'ip' is missing (package iproute2)" in done.stderr


def test_what_ip_refuses_is_told(permitted: None, tmp_path: Path) -> None:
    (tmp_path / "ip").write_text("#!/bin/sh\necho 'RTNETLINK answers: no' >&2\nexit 2\n")
    (tmp_path / "ip").chmod(0o755)
    done = enter("--", "true", env={**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert done.returncode == NotPermitted.exit_code
    assert done.stderr == "A network namespace can't be made here: RTNETLINK answers: no.\n"


def test_without_a_command_there_is_a_usage() -> None:
    for words in ((), ("--",)):
        done = enter(*words)
        assert done.returncode == 2
        assert done.stderr.startswith("usage: ")


def test_other_systems_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(NotPermitted, match="only Linux has them"):
        netns.enter()


def test_outside_there_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(netns.VARIABLE, raising=False)
    assert netns.inside() is None


def test_processes_that_run_tests_side_by_side_have_one_each() -> None:
    if netns.inside() is None or "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("tests run in one process, or without a namespace")
    ours, others = (Path(f"/proc/{pid}/ns/net").readlink() for pid in ("self", os.getppid()))
    assert ours != others
