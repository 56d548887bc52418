"""What kind of drive a folder is on, which decides how many files are read or written at once.

=========  ===============================  ==============================================
kind       at once                          how it is known
=========  ===============================  ==============================================
ssd        4, or the processors             Linux says that it doesn't rotate
hdd        1: a second stream moves heads   Linux says that it rotates
network    2: hides the way there and back  the file system's name: NFS, CIFS, FUSE, …
memory     4, or the processors             tmpfs, ramfs
unknown    2                                virtual disks say anything; macOS; containers
=========  ===============================  ==============================================

A setting overrides it, since a network may be fast, and a virtual disk an SSD.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, Literal

import msgspec

Kind = Literal["ssd", "hdd", "network", "memory", "unknown"]

NETWORK: Final = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "gpfs", "beegfs"),
        *("glusterfs", "9p", "virtiofs", "davfs", "wekafs", "panfs", "ocfs2", "gfs2", "ncpfs"),
        *("afpfs", "webdav"),
    }
)
"""Names of file systems that are elsewhere; everything in user space counts too."""
MEMORY: Final = frozenset({"tmpfs", "ramfs", "zram"})

_VIRTUAL: Final = re.compile(r"(?:x?vd[a-z]+|xvd.*|nbd\d+|loop\d+|zram\d+)\d*")
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
_MAX_STEPS: Final = 16
_MOST: Final = 4


class Mount(msgspec.Struct, frozen=True):
    """A mounted file system.

    Attributes:
        device: Its number, ``8:1``.
        path: Where it is mounted.
        kind: Its name: ``ext4``, ``nfs4``, ``fuseblk``.
        source: What is mounted: a device's path, a server's name.
        options: As ``rw``, ``noatime``.
    """

    device: str
    path: str
    kind: str
    source: str
    options: frozenset[str]


class Drive(msgspec.Struct, frozen=True):
    """A drive.

    Attributes:
        kind: Its kind.
        mount: The file system on it; None where that can't be told.
        why: Where the kind is from, for `doctor`.
    """

    kind: Kind
    mount: Mount | None
    why: str

    @property
    def streams(self) -> int:
        """How many files are read or written at once."""
        match self.kind:
            case "hdd":
                return 1
            case "ssd" | "memory":
                return max(1, min(_MOST, len(os.sched_getaffinity(0)) if _AFFINITY else _MOST))
            case _:
                return 2


_AFFINITY: Final = hasattr(os, "sched_getaffinity")


def drive_of(
    path: Path,
    *,
    override: Kind | Literal["auto"] = "auto",
    system: Path = Path("/sys"),
    mounts: Path = Path("/proc/self/mountinfo"),
) -> Drive:
    """The drive that a path is on, or the nearest of its parents that is there.

    Args:
        path: Any path.
        override: The kind that a setting says.
        system: Where the kernel tells of devices.
        mounts: The list of mounted file systems.
    """
    mount = mount_of(path, mounts=mounts)
    if override != "auto":
        return Drive(kind=override, mount=mount, why="set")
    if mount is None:
        return Drive(kind="unknown", mount=None, why="this system doesn't tell")
    if is_remote(mount):
        return Drive(kind="network", mount=mount, why=mount.kind)
    if mount.kind in MEMORY:
        return Drive(kind="memory", mount=mount, why=mount.kind)
    devices = _devices(mount, system)
    if not devices:
        return Drive(kind="unknown", mount=mount, why=f"{mount.kind} on {mount.source}")
    kinds = {_kind_of(device) for device in devices}
    # A volume over several disks is as slow as its slowest.
    kind: Kind = next((kind for kind in ("hdd", "unknown", "ssd") if kind in kinds), "unknown")
    names = ", ".join(sorted(device.name for device in devices))
    return Drive(kind=kind, mount=mount, why=f"{mount.kind} on {names}")


def is_remote(mount: Mount) -> bool:
    """Whether a file system's files are on another machine, or may be."""
    return mount.kind in NETWORK or (mount.kind.startswith("fuse") and mount.kind != "fuseblk")


def mount_of(path: Path, *, mounts: Path = Path("/proc/self/mountinfo")) -> Mount | None:
    """The file system that a path is on, None where the system doesn't tell."""
    try:
        text = mounts.read_text("utf-8", "surrogateescape")
    except OSError:
        return None
    there = _existing(path)
    real = os.path.realpath(there)
    try:
        number = there.stat().st_dev
    except OSError:
        return None
    device = f"{os.major(number)}:{os.minor(number)}"
    found = [mount for line in text.splitlines() if (mount := _parse(line))]
    above = [mount for mount in found if _is_above(mount.path, real)]
    # The deepest mount counts, of several at one place the last. Bind mounts and containers may
    # hide it: then the device tells.
    deepest = max(above, key=lambda mount: len(mount.path), default=None)
    same = [mount for mount in above if mount.device == device]
    if same and (deepest is None or deepest.device != device):
        return max(same, key=lambda mount: len(mount.path))
    if deepest is None:
        return None
    return [mount for mount in above if len(mount.path) == len(deepest.path)][-1]


def _existing(path: Path) -> Path:
    absolute = path.absolute()
    return next((each for each in (absolute, *absolute.parents) if each.exists()), Path("/"))


def _is_above(folder: str, path: str) -> bool:
    return folder in ("/", path) or path.startswith(f"{folder}/")


def _parse(line: str) -> Mount | None:
    """One line: ``36 35 98:0 /root /mnt rw,noatime … - ext4 /dev/sda1 rw``."""
    before, _, after = line.partition(" - ")
    fields, kind = before.split(" "), after.split(" ")
    if len(fields) < 6 or len(kind) < 2:
        return None
    options = fields[5].split(",") + (kind[2].split(",") if len(kind) > 2 else [])
    return Mount(
        device=fields[2],
        path=_unescaped(fields[4]),
        kind=kind[0],
        source=_unescaped(kind[1]),
        options=frozenset(options),
    )


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)


# ── block devices ────────────────────────────────────────────────────────────


def _devices(mount: Mount, system: Path) -> set[Path]:
    """The disks under a file system: its partition's, or those of its volume."""
    start = system / "dev" / "block" / mount.device
    if not start.exists() and mount.source.startswith("/dev/"):
        # Btrfs gives its files device numbers of its own.
        name = os.path.basename(os.path.realpath(mount.source))  # noqa: PTH119 - a name is wanted
        start = system / "class" / "block" / name
    if not start.exists():
        return set()
    disks: set[Path] = set()
    waiting = [Path(os.path.realpath(start))]
    for _ in range(_MAX_STEPS):
        if not waiting:
            break
        device = waiting.pop()
        below = sorted((device / "slaves").glob("*")) if (device / "slaves").is_dir() else []
        if below:  # device mapper, RAID
            waiting += [Path(os.path.realpath(each)) for each in below]
        elif (device / "partition").exists():
            waiting.append(device.parent)
        else:
            disks.add(device)
    return disks


def _kind_of(device: Path) -> Kind:
    try:
        rotates = (device / "queue" / "rotational").read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return "unknown"
    if rotates == "0":
        return "ssd"
    # A virtual disk says that it rotates whatever it is made of.
    return "unknown" if _VIRTUAL.fullmatch(device.name) or rotates != "1" else "hdd"
