"""``workers``: who is online."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sleap_rtc.cli import options
from sleap_rtc.cli.app import App

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sleap_rtc.cli.machine_documents import GpuShown, WorkerShown
    from sleap_rtc.domain.places import Presence, WorkerInfo


@click.command()
@options.room
@click.option(
    "--accept-new",
    metavar="NAME",
    help="Take the machine that is online as NAME for that worker from now on.",
)
@click.pass_obj
def workers(app: App, room: str | None, accept_new: str | None) -> None:
    """List the workers that are online.

    With what each has, and how many jobs are at work or waiting there.

    A worker's name keeps the key of the machine that was first met under it, and
    another machine is refused. Where a worker was set up anew, --accept-new takes
    its new key, and prints both.
    """
    if accept_new is not None:
        _accept(app, accept_new, room)
        return
    from sleap_rtc.cli.machine_documents import (  # noqa: PLC0415 - --help stays quick
        WorkersDocument,
    )

    client = app.client()
    entry = client.room(room)
    found: Sequence[Presence]
    as_of = None
    if app.offline:
        known = client.known.workers(entry)
        found, as_of = known.told, known.as_of
        app.tell_kept(as_of, "these were the workers")
    else:
        found = app.run(client.workers(entry.room))
    shown = [worker_shown(each.name, entry.name, each.device, each.worker) for each in found]
    document = WorkersDocument(workers=tuple(shown), as_of=as_of)
    app.out.show(document, lambda: _table(app, shown, entry.name))


def _accept(app: App, name: str, room: str | None) -> None:
    from sleap_rtc.cli.machine_documents import (  # noqa: PLC0415 - --help is quick
        WorkerAcceptedDocument,
    )
    from sleap_rtc.domain.ids import fingerprint  # noqa: PLC0415

    accepted = app.run(app.client().accept_worker(name, room=room))
    before = accepted.before
    document = WorkerAcceptedDocument(
        name=accepted.name, room=accepted.room, device=accepted.device, before=before
    )
    was = "not met before" if before is None else fingerprint(before)
    app.out.show(
        document,
        lambda: app.out.fields(
            [
                ("Worker", f"{accepted.name}, in room {accepted.room}"),
                ("Key, before", was),
                ("Key, now", fingerprint(accepted.device)),
            ]
        ),
    )
    app.out.say("The worker prints its key where it is started: compare them.")


def _table(app: App, shown: list[WorkerShown], room: str) -> None:
    from sleap_rtc.cli.text import Cell, Column, busy  # noqa: PLC0415 - --help stays quick
    from sleap_rtc.domain.units import format_bytes  # noqa: PLC0415

    columns = [
        Column("worker"),
        Column("gpu"),
        Column("cpus", right=True),
        Column("memory", right=True),
        Column("disk free", right=True),
        Column("engines"),
        Column("load"),
        Column("jobs", right=True),
        Column("models", right=True),
    ]
    rows = [
        [
            Cell(one.name, "name"),
            gpus(one.gpus),
            str(one.cpus),
            format_bytes(one.ram),
            format_bytes(one.disk_free),
            ", ".join(one.engines) or Cell("none", "warning"),
            "" if one.load is None else busy(one.load.cpu, one.load.gpu),
            str(one.jobs),
            str(one.models),
        ]
        for one in shown
    ]
    if rows:
        app.out.table(columns, rows)
    else:
        app.out.say(f"No worker is online in {room}. Start one: sleap-rtc worker --room {room}")


def worker_shown(name: str, room: str, device: str, told: WorkerInfo | None) -> WorkerShown:
    """A worker as it is shown; one that says nothing of itself has nothing."""
    from sleap_rtc.cli.machine_documents import (  # noqa: PLC0415 - --help stays quick
        GpuShown,
        LoadShown,
        WorkerShown,
    )
    from sleap_rtc.domain.places import WorkerInfo  # noqa: PLC0415

    info = told or WorkerInfo()
    return WorkerShown(
        name=name,
        room=room,
        device=device,
        version=info.version,
        engines=info.engines,
        gpus=tuple(GpuShown(name=gpu.name, memory=gpu.memory) for gpu in info.hardware.gpus),
        cpus=info.hardware.cpus,
        ram=info.hardware.ram,
        disk_free=info.hardware.disk_free,
        platform=info.hardware.platform,
        jobs=info.jobs,
        models=info.models,
        load=None if info.load is None else LoadShown(cpu=info.load.cpu, gpu=info.load.gpu),
    )


def hardware_pairs(shown: WorkerShown) -> list[tuple[str, str]]:
    """What a worker has, as names and values."""
    from sleap_rtc.domain.ids import DeviceId, fingerprint  # noqa: PLC0415 - --help stays quick
    from sleap_rtc.domain.units import format_bytes  # noqa: PLC0415

    return [
        ("Key", fingerprint(DeviceId(shown.device))),
        ("GPU", gpus(shown.gpus)),
        ("Machine", f"{shown.cpus} cpus, {format_bytes(shown.ram)} of memory, {shown.platform}"),
        ("Disk free", format_bytes(shown.disk_free)),
        ("Engines", ", ".join(f"{name} {version}" for name, version in shown.engines.items())),
        ("Models", str(shown.models)),
    ]


def gpus(found: Sequence[GpuShown]) -> str:
    """GPUs in few words: ``2 x RTX 4090, 24 GB``."""
    from sleap_rtc.domain.units import format_bytes  # noqa: PLC0415 - --help stays quick

    names = list(dict.fromkeys((gpu.name, gpu.memory) for gpu in found))
    parts = []
    for name, memory in names:
        number = sum((gpu.name, gpu.memory) == (name, memory) for gpu in found)
        parts.append(f"{number} x {name}, {format_bytes(memory)}")
    return "; ".join(parts) or "none"
