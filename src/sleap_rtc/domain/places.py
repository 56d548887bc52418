"""Rooms, workers and the names that people give to them."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from msgspec import Meta

from sleap_rtc.domain.ids import DeviceId, RoomId
from sleap_rtc.domain.values import Value
from sleap_rtc.errors import InvalidName

Role = Literal["owner", "member", "viewer", "worker"]
DeviceKind = Literal["client", "worker"]

MAY_WORK: Final[frozenset[Role]] = frozenset({"owner", "member", "worker"})
"""Roles that may be a room's worker."""

_NAME: Final = re.compile(r"\w[\w.-]{0,63}")

Name = Annotated[str, Meta(min_length=1, max_length=64)]


def check_name(kind: str, name: str) -> str:
    """Return the name of a room, worker or device if it is valid.

    Raises:
        InvalidName: Not 1 to 64 letters, digits, ``.``, ``_``, ``-``, or a bad first character.
    """
    if _NAME.fullmatch(name) is None:
        raise InvalidName(
            kind=f"{kind} name",
            name=name[:80],
            why="1 to 64 letters, digits, '.', '_' or '-' are allowed, a letter or digit first",
        )
    return name


class Gpu(Value, frozen=True):
    """One GPU: its model name and memory in bytes."""

    name: Annotated[str, Meta(max_length=200)]
    memory: Annotated[int, Meta(ge=0)]


class Hardware(Value, frozen=True):
    """What a worker has. Sizes are bytes.

    Attributes:
        cpus: Logical processors that the worker may use.
        ram: Total memory.
        disk_free: Free space where the worker keeps its files.
        gpus: One entry per GPU, empty without.
        platform: Operating system and architecture.
    """

    cpus: Annotated[int, Meta(ge=0)] = 0
    ram: Annotated[int, Meta(ge=0)] = 0
    disk_free: Annotated[int, Meta(ge=0)] = 0
    gpus: Annotated[tuple[Gpu, ...], Meta(max_length=64)] = ()
    platform: Annotated[str, Meta(max_length=200)] = ""


class Load(Value, frozen=True):
    """How busy a machine is at a moment.

    Attributes:
        cpu: Percent of all its processors together.
        gpu: Percent of the GPU that has most to do, None without one that tells.
        gpu_memory: Bytes in use on that one.
    """

    cpu: Annotated[float, Meta(ge=0, le=100)]
    gpu: Annotated[float, Meta(ge=0, le=100)] | None = None
    gpu_memory: Annotated[int, Meta(ge=0)] | None = None


class WorkerInfo(Value, frozen=True):
    """What a worker says of itself.

    Attributes:
        hardware: What it has.
        engines: Name → version of every engine that is installed.
        version: Its sleap-rtc version.
        jobs: Jobs that are running or waiting.
        models: Models in its library.
        load: How busy it was when it said so.
    """

    hardware: Hardware = Hardware()
    engines: Annotated[dict[str, str], Meta(max_length=32)] = {}
    version: Annotated[str, Meta(max_length=64)] = ""
    jobs: Annotated[int, Meta(ge=0)] = 0
    models: Annotated[int, Meta(ge=0)] = 0
    load: Load | None = None


class Presence(Value, frozen=True):
    """A device that is online in a room, as the server tells it.

    Attributes:
        device: Its public key; who it is is proven on the link, not here.
        connection: The server's id of its connection.
        room: The room it is online in.
        name: Its name there.
        kind: ``client`` or ``worker``.
        worker: A worker's own words.
    """

    device: DeviceId
    connection: Annotated[str, Meta(max_length=64)]
    room: RoomId
    name: Name
    kind: DeviceKind
    worker: WorkerInfo | None = None
