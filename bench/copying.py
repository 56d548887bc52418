"""What people move files with today, each as it comes: cp, scp, rsync, magic-wormhole.

All of it stays on this machine: servers listen on 127.0.0.1, with keys and
configurations made for this run. The clock stops when what was written is on the
disk. ``scp`` and ``rsync`` are timed whole, with the making of their connection;
magic-wormhole from when the receiver has accepted the file, since what comes before is
Python starting and two people typing.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from bench import environments
from bench.processes import Missing, Program, Used, figures, found_program, free_port
from bench.processes import sync_file_system as synced

_CODE: Final = "7-bench-figures"


class Load(msgspec.Struct, frozen=True):
    """What is moved.

    Attributes:
        path: A file, or a folder of files.
        size: Bytes of all of it.
        into: An empty folder, for what arrives and for what a program needs.
    """

    path: Path
    size: int
    into: Path

    @property
    def target(self) -> Path:
        """Where it arrives."""
        return self.into / "arrived"

    def check(self) -> None:
        """See that it has arrived, by its size; programs that are compared check more, or don't.

        Raises:
            RuntimeError: It hasn't.
        """
        found = [path for path in self.target.rglob("*") if path.is_file()] or [self.target]
        size = sum(path.stat().st_size for path in found)
        if size != self.size:
            raise RuntimeError(f"{size} bytes have arrived, and {self.size} were sent")


def cp(load: Load) -> dict[str, float]:
    """Copy on one machine."""
    program = found_program("cp", package="coreutils")
    with Program([program, "-r", load.path, load.target], cwd=load.into) as copying:
        used = copying.end()
    return _whole(load, used, Used())


def scp(load: Load) -> dict[str, float]:
    """Copy over ssh."""
    with _ssh_server(load.into) as (server, ssh):
        scp = found_program("scp", package="openssh-client")
        command = [scp, "-q", "-r", *ssh.scp, load.path, f"{ssh.who}:{load.target}"]
        return _with_server(load, command, server)


def rsync_ssh(load: Load) -> dict[str, float]:
    """Copy by rsync over ssh."""
    rsync = found_program("rsync", package="rsync")
    with _ssh_server(load.into) as (server, ssh):
        way = " ".join(["ssh", *ssh.ssh])
        source = f"{load.path}/" if load.path.is_dir() else str(load.path)
        command = [rsync, "-a", "-e", way, source, f"{ssh.who}:{load.target}"]
        return _with_server(load, command, server)


def rsync_daemon(load: Load) -> dict[str, float]:
    """Copy by rsync to its own server, unencrypted."""
    rsync = found_program("rsync", package="rsync")
    port = free_port()
    config = load.into / "rsyncd.conf"
    module = f"[bench]\npath = {load.into}\nread only = false\nuse chroot = false\n"
    # Without a uid it would become nobody.
    who = f"uid = {os.getuid()}\ngid = {os.getgid()}\n" if os.getuid() == 0 else ""
    config.write_text(f"address = 127.0.0.1\nport = {port}\n{module}{who}", "utf-8")
    daemon = [rsync, "--daemon", "--no-detach", f"--config={config}"]
    with Program(daemon, cwd=load.into) as server:
        server.listening(port)
        source = f"{load.path}/" if load.path.is_dir() else str(load.path)
        command = [rsync, "-a", source, f"rsync://127.0.0.1:{port}/bench/{load.target.name}"]
        return _with_server(load, command, server)


def wormhole(load: Load) -> dict[str, float]:
    """Send by magic-wormhole, with its servers beside it; the bytes go straight."""
    if not environments.there("wormhole"):
        raise Missing("magic-wormhole is not installed; see what pip said")
    mailbox, relay = free_port(), free_port()
    twist = environments.program("wormhole", "twist")
    program = environments.program("wormhole", "wormhole")
    places = [
        f"--relay-url=ws://127.0.0.1:{mailbox}/v1",
        f"--transit-helper=tcp:127.0.0.1:{relay}",
    ]
    own = {"HOME": str(load.into)}
    serving = [twist, "wormhole-mailbox", f"--port=tcp:{mailbox}:interface=127.0.0.1"]
    relaying = [twist, "transitrelay", f"--port=tcp:{relay}:interface=127.0.0.1"]
    send = [program, *places, "send", "--hide-progress", "--code", _CODE, load.path]
    take = [program, *places, "receive", "--hide-progress", "--accept-file"]
    take += ["--output-file", load.target, _CODE]
    with (
        Program(serving, cwd=load.into, env=own) as first,
        Program(relaying, cwd=load.into, env=own) as second,
    ):
        first.listening(mailbox)
        second.listening(relay)
        with (
            Program(send, cwd=load.into, env=own) as sender,
            Program(take, cwd=load.into, env=own) as receiver,
        ):
            began = receiver.saw("Receiving ")
            before = sender.cpu_s(), receiver.cpu_s()
            received, sent = receiver.end(), sender.end()
            wall = time.perf_counter() - began + synced(load.into)
    load.check()
    return figures(
        load.size,
        wall,
        sender=msgspec.structs.replace(sent, cpu_s=sent.cpu_s - before[0]),
        receiver=msgspec.structs.replace(received, cpu_s=received.cpu_s - before[1]),
    )


def versions() -> dict[str, str]:
    """Which versions of the system's programs are there."""
    found: dict[str, str] = {}
    for name, package, option in (
        ("cp", "coreutils", "--version"),
        ("rsync", "rsync", "--version"),
        ("ssh", "openssh-client", "-V"),
    ):
        with contextlib.suppress(Missing):
            command = [str(found_program(name, package=package)), option]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if number := re.search(r"\d+\.\d+[.\dp]*", done.stdout + done.stderr):
                found[name] = number[0]
    return found


def _whole(load: Load, sender: Used, receiver: Used) -> dict[str, float]:
    """The figures of a program that was timed from its start."""
    wall = sender.wall_s + synced(load.into)
    load.check()
    return figures(load.size, wall, sender=sender, receiver=receiver)


def _with_server(load: Load, command: list[str | Path], server: Program) -> dict[str, float]:
    before = server.cpu_s()
    with Program(command, cwd=load.into) as sending:
        sent = sending.end()
    return _whole(load, sent, Used(cpu_s=server.cpu_s() - before, peak_mb=server.peak_mb()))


class _Ssh(msgspec.Struct, frozen=True):
    """How the server is reached: options for ``ssh`` and for ``scp``, and user and host."""

    ssh: list[str]
    scp: list[str]
    who: str


@contextlib.contextmanager
def _ssh_server(folder: Path) -> Iterator[tuple[Program, _Ssh]]:
    """An ssh server on 127.0.0.1 with keys of its own, for this user alone."""
    sshd = found_program("sshd", package="openssh-server")
    keygen = found_program("ssh-keygen", package="openssh-client")
    for name in ("host", "user"):
        make = [str(keygen), "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(make, check=True, capture_output=True)
    shutil.copy(folder / "user.pub", folder / "allowed")
    port = free_port()
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/allowed\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n",
        "utf-8",
    )
    if os.getuid() == 0:
        with contextlib.suppress(OSError):
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # as its service would
    options = [
        *("-i", f"{folder}/user", "-F", "none"),
        *("-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR"),
        *("-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={folder}/known"),
    ]
    reached = _Ssh(
        ssh=[*options, "-p", str(port)],
        scp=[*options, "-P", str(port)],
        who=f"{pwd.getpwuid(os.getuid()).pw_name}@127.0.0.1",
    )
    with Program([sshd, "-D", "-e", "-f", folder / "sshd_config"], cwd=folder) as server:
        server.listening(port)
        yield server, reached
