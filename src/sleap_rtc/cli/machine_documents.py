"""What ``--json`` prints of the commands about machines: workers, servers, engines, this one.

See ``documents.py``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from sleap_rtc.cli.documents import Shown


class WorkerAcceptedDocument(Shown, frozen=True):
    """``workers --accept-new``: the worker's key from now on, and the one that it had before."""

    name: str
    room: str
    device: str
    before: str | None


class GpuShown(Shown, frozen=True):
    """A GPU: its model's name, and its memory."""

    name: str
    memory: int


class LoadShown(Shown, frozen=True):
    """How busy a machine is: percent of its processors, and of its busiest GPU if it has one."""

    cpu: float
    gpu: float | None


class WorkerShown(Shown, frozen=True):
    """A worker that is online.

    Attributes:
        name: Its name in the room.
        room: The room's name.
        device: Its key.
        version: Its sleap-rtc version.
        engines: Name → version.
        gpus: One each.
        cpus: Logical processors.
        ram: Bytes.
        disk_free: Bytes.
        platform: Operating system and architecture.
        jobs: At work or waiting.
        models: In its library.
        load: How busy it was a moment ago; null if it doesn't say.
    """

    name: str
    room: str
    device: str
    version: str
    engines: dict[str, str]
    gpus: tuple[GpuShown, ...]
    cpus: int
    ram: int
    disk_free: int
    platform: str
    jobs: int
    models: int
    load: LoadShown | None


class WorkersDocument(Shown, frozen=True):
    """``workers``.

    Attributes:
        workers: By name.
        as_of: When that was so, if nobody could be asked (offline); null for now.
    """

    workers: tuple[WorkerShown, ...]
    as_of: datetime | None


class WorkerDocument(Shown, frozen=True):
    """``worker``: printed once it is online; it goes on until it is ended."""

    worker: WorkerShown


class ServerDocument(Shown, frozen=True):
    """``server``: printed once it answers; it goes on until it is ended.

    Attributes:
        url: Where devices reach it.
        port: Its TCP port.
        stun_port: Its UDP port, 0 for none.
        data_dir: Its folder.
        setup_code: For the first device; null when one has signed in before.
    """

    url: str
    port: int
    stun_port: int
    data_dir: str
    setup_code: str | None


class ServerCodeDocument(Shown, frozen=True):
    """``server-code``."""

    setup_code: str


class EngineShown(Shown, frozen=True):
    """An engine; ``version`` and ``python`` are null where it isn't installed."""

    name: str
    version: str | None
    python: str | None


class EnginesDocument(Shown, frozen=True):
    """``engine list``."""

    engines: tuple[EngineShown, ...]


class EngineDocument(Shown, frozen=True):
    """``engine install``."""

    engine: EngineShown


class CheckShown(Shown, frozen=True):
    """One thing that ``doctor`` looked at."""

    name: str
    status: Literal["ok", "note", "warning", "broken"]
    message: str
    hint: str


class DoctorDocument(Shown, frozen=True):
    """``doctor``: ``ok`` unless something is broken."""

    ok: bool
    checks: tuple[CheckShown, ...]


class TrustDocument(Shown, frozen=True):
    """``trust-model``: whether the file with this hash runs here, now and before."""

    blake3: str
    trusted: bool
    before: bool


MACHINES: Final[dict[str, type[Shown]]] = {
    "doctor": DoctorDocument,
    "engine-install": EngineDocument,
    "engine-list": EnginesDocument,
    "server": ServerDocument,
    "server-code": ServerCodeDocument,
    "trust-model": TrustDocument,
    "worker": WorkerDocument,
    "workers": WorkersDocument,
    "workers-accept-new": WorkerAcceptedDocument,
}
"""Name of the schema's file → the document."""
