"""What kind of drive a path is on, by what Linux tells."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sleap_rtc.files import drives
from sleap_rtc.files.drives import Mount, drive_of, mount_of


class Machine:
    """A made-up machine: mounted file systems, and the disks below them."""

    def __init__(self, root: Path) -> None:
        self.system = root / "sys"
        self.mounts = root / "mountinfo"
        (self.system / "dev" / "block").mkdir(parents=True)
        (self.system / "class" / "block").mkdir(parents=True)
        self.lines: list[str] = []
        self.folder = root / "folder with space"
        self.folder.mkdir()
        number = self.folder.stat().st_dev
        self.number = f"{os.major(number)}:{os.minor(number)}"

    def mount(self, kind: str, source: str, *, number: str | None = None, more: str = "rw") -> None:
        path = str(self.folder).replace(" ", "\\040")
        number = number or self.number
        self.lines.append(f"36 35 {number} / {path} rw,noatime master:1 - {kind} {source} {more}")
        self.mounts.write_text("\n".join(["1 0 0:1 / / rw - rootfs none rw", *self.lines]))

    def disk(self, name: str, *, rotates: str | None = "1", part: str = "") -> Path:
        device = self.system / "devices" / name
        (device / "queue").mkdir(parents=True)
        if rotates is not None:
            (device / "queue" / "rotational").write_text(f"{rotates}\n")
        if part:
            device /= part
            device.mkdir()
            (device / "partition").write_text("1\n")
        (self.system / "class" / "block" / device.name).symlink_to(device)
        return device

    def number_is(self, device: Path) -> None:
        (self.system / "dev" / "block" / self.number).symlink_to(device)

    def drive(self, path: Path | None = None) -> drives.Drive:
        return drive_of(path or self.folder, system=self.system, mounts=self.mounts)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("name", "rotates", "kind", "streams"),
    [
        ("nvme0n1", "0", "ssd", None),
        ("sda", "1", "hdd", 1),
        ("vda", "1", "unknown", 2),
        ("xvdb", "1", "unknown", 2),
        ("vda", "0", "ssd", None),
        ("sdb", None, "unknown", 2),
        ("sdc", "?", "unknown", 2),
    ],
)
def test_a_disk_tells_whether_it_rotates(machine, name, rotates, kind, streams):
    machine.number_is(machine.disk(name, rotates=rotates, part=f"{name}p1"))
    machine.mount("ext4", f"/dev/{name}p1")
    found = machine.drive(machine.folder / "not" / "there" / "yet")
    assert found.kind == kind
    assert name in found.why
    assert found.mount.path == str(machine.folder)
    assert found.streams == streams or (streams is None and 1 <= found.streams <= 4)


def test_a_volume_is_as_slow_as_its_slowest_disk(machine):
    volume = machine.disk("dm-0", rotates="0")
    (volume / "slaves").mkdir()
    for name, rotates in (("nvme0n1", "0"), ("sda", "1")):
        (volume / "slaves" / f"{name}p2").symlink_to(
            machine.disk(name, rotates=rotates, part=f"{name}p2")
        )
    machine.number_is(volume)
    machine.mount("ext4", "/dev/mapper/home")
    assert machine.drive().kind == "hdd"


def test_volumes_that_lead_in_a_circle_end(machine):
    volume = machine.disk("dm-0")
    (volume / "slaves").mkdir()
    (volume / "slaves" / "dm-0").symlink_to(volume)
    machine.number_is(volume)
    machine.mount("ext4", "/dev/dm-0")
    assert machine.drive().kind == "unknown"


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "lustre", "9p", "fuse"])
def test_a_file_system_elsewhere_is_a_network(machine, kind):
    machine.mount(kind, "server:/home", number="0:44")
    assert machine.drive().kind == "network"
    assert machine.drive().streams == 2


def test_memory_and_what_is_unknown(machine):
    machine.mount("tmpfs", "tmpfs")
    assert machine.drive().kind == "memory"
    machine.lines.clear()
    machine.mount("overlay", "overlay")
    assert machine.drive().kind == "unknown"


def test_the_setting_wins(machine):
    machine.mount("nfs", "server:/home")
    found = drive_of(machine.folder, override="ssd", system=machine.system, mounts=machine.mounts)
    assert (found.kind, found.why) == ("ssd", "set")


def test_the_last_of_several_mounts_at_one_place_counts(machine):
    machine.mount("ext4", "/dev/sda1", number="8:1")
    machine.mount("nfs", "server:/x", number="0:50")
    assert machine.drive().kind == "network"


def test_a_system_that_does_not_tell(tmp_path):
    found = drive_of(tmp_path, mounts=tmp_path / "none")
    assert (found.kind, found.mount) == ("unknown", None)
    assert mount_of(tmp_path, mounts=tmp_path / "none") is None


@given(st.text(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_list_of_mounts_gives_an_answer(tmp_path, text):
    mounts = tmp_path / "any"
    mounts.write_text(text, "utf-8", errors="surrogateescape")
    assert drive_of(tmp_path, mounts=mounts).kind in ("unknown", "network", "memory", "ssd", "hdd")


def test_this_machine_is_told():
    found = drive_of(Path("/proc"))
    assert found.mount is None or isinstance(found.mount, Mount)
    assert found.streams >= 1
