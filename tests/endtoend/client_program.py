"""A person's machine as a process: does one thing with the Python API, and tells it line by line.

    python client_program.py '{"do": "train", "labels": …, "configs": […]}'

Each update is a line of JSON on standard output. An error is the last line, and the exit code is
the error's own. ``die_at`` names a kind of line after which the process kills itself, at once and
with SIGKILL, while what it was doing is half done; with ``die_after``, once more bytes are done.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from sleap_rtc.client.api import AsyncClient
from sleap_rtc.client.composing import Composed, new_job_id
from sleap_rtc.client.following import AliasGiven, CameHome, Fetching, Follower, LinkChanged, Update
from sleap_rtc.client.routing import plan_for, send_first
from sleap_rtc.client.shipping import Wish, pull_models, push_models
from sleap_rtc.client.submitted import SubmittedJob
from sleap_rtc.client.watching import Watcher
from sleap_rtc.domain.packages import ref
from sleap_rtc.errors import SleapRtcError
from sleap_rtc.files.packing import pack
from sleap_rtc.jobs.events import JobEvent
from sleap_rtc.jobs.lifecycle import SETTLED, JobView, fold
from sleap_rtc.jobs.spec import JobSpec, TrainSpec, TrainStage
from sleap_rtc.transfer.progress import Progress
from sleap_rtc.transports.serving import ServedPackage

BLOCK_S = 0.1
HELD_AT = 4 * 1024 * 1024

asked: dict[str, Any] = json.loads(sys.argv[1])
sent = 0


def say(kind: str, **fields: Any) -> None:
    os.write(1, json.dumps({"kind": kind, **fields}, default=str).encode() + b"\n")
    if asked.get("die_at") == kind and fields.get("done", 1) > asked.get("die_after", 0):
        os.kill(os.getpid(), signal.SIGKILL)


def tell(update: Update) -> None:
    match update:
        case JobEvent():
            fields = msgspec.to_builtins(update.body)
            say(fields.pop("kind"), n=update.n, **fields)
        case LinkChanged():
            say("link", state=update.state)
        case Fetching():
            say("fetching", what=update.what, done=update.progress.done)
        case CameHome():
            say("home", what=update.what, path=str(update.path))
        case AliasGiven():
            say("alias", alias=update.alias, refused=update.refused)


async def nap() -> None:
    """Read nothing of what happens until a line comes on standard input, if asked to."""
    if asked.get("nap"):
        await asyncio.to_thread(sys.stdin.readline)


async def follow(follower: Follower) -> None:
    say("job", job=follower.job.id)
    await nap()
    async for update in follower.updates():
        tell(update)
    view = follower.view
    say("end", state=view.state, reason=view.reason, models=follower.job.models, sent=sent)


async def submit_unchecked(client: AsyncClient) -> str:
    """What a client does that was changed not to look at what it sends."""
    config, labels = Path(asked["configs"][0]), Path(asked["labels"])
    files = {f"labels/{labels.name}": labels, f"configs/0/{config.name}": config}
    packed = pack(files)
    room = client.room()
    [worker] = await client.workers()
    stage = TrainStage(
        config=asked.get("config_path", f"configs/0/{config.name}"),
        model_type=asked.get("head", "centroid"),
        run_name="unchecked",
    )
    work = TrainSpec(
        labels=f"labels/{labels.name}",
        stages=(stage,),
        dataset_name=labels.name,
        dataset_hash=packed.file_hashes[f"labels/{labels.name}"],
    )
    job = SubmittedJob(
        spec=JobSpec(
            id=new_job_id(),
            engine=asked.get("engine", "tiny"),
            work=work,
            inputs=ref(packed.package),
            room=room.room,
        ),
        room=room.room,
        worker=worker.name,
        device=worker.device,
        submitted_at=datetime.now(UTC),
        files={name: str(path) for name, path in files.items()},
    )
    client.submitted.add(job)
    return job.id


async def watch(watcher: Watcher) -> None:
    view = JobView()
    say("watching")
    await nap()
    async for event in watcher.events():
        tell(event)
        view = fold(view, event)
        if view.state in SETTLED:
            say("end", state=view.state)
            return


async def move(client: AsyncClient) -> None:
    wish = Wish(
        names=tuple(asked["models"]),
        if_exists=asked.get("if_exists", "ask"),
        alias=asked.get("alias"),
    )

    def on_model(_number: int, _models: int, label: str, progress: Progress | None) -> None:
        if progress is not None:
            say("moving", label=label, phase=progress.phase, done=progress.done)

    async with client.mover(
        asked.get("worker"),
        beside=asked.get("beside", ()),
        wanted=wish.names if asked["do"] == "pull" else (),
        say=lambda text: say("said", text=text),
    ) as mover:
        ship = push_models if asked["do"] == "push" else pull_models
        shipped = await ship(mover, wish, on_model=on_model)
    moved = [
        {
            "how": each.how,
            "result": each.result,
            "path": each.path,
            "trash": each.trash,
            "came": [[came.way, came.source, came.size] for came in each.came],
        }
        for each in shipped.moved
    ]
    offers = [(each.alias, each.state, each.given) for each in shipped.offers]
    failed = [(each.error.code, each.error.message) for each in shipped.failed]
    say("end", moved=moved, failed=failed, offers=offers, sent=sent)


async def routed(client: AsyncClient, composed: Composed) -> Composed:
    """Have a job's data go by the way that the settings say, if asked to."""
    if not asked.get("route"):
        return composed
    leaves, worker = asked.get("leaves", False), asked.get("worker", "gpu-1")
    planned = await plan_for(client, composed, worker, leaves=leaves)
    say("plan", ways=[way.kind for way in planned.plan.ways], text=planned.plan.explain())

    def storing(name: str, progress: Progress) -> None:
        say("storing", name=name, done=progress.done, total=progress.total)

    done = await asyncio.to_thread(
        send_first,
        client,
        planned,
        composed,
        on_progress=storing,
        say=lambda text: say("warning", text=text),
    )
    say("stored", way=done.way, sent=done.sent, there=done.there, places=done.places)
    return done.composed


async def be_let_in(client: AsyncClient) -> None:
    match asked["do"]:
        case "login":
            await client.login(asked["server"], code=asked["code"])
        case "await":
            room = client.room()
            async with client.online(room) as online:
                await online.find_worker(room, asked["worker"], within_s=60)
        case "join":
            await client.join(asked["link"])


async def act(client: AsyncClient) -> None:
    match asked["do"]:
        case "train":
            composed = client.compose_training(
                asked["labels"],
                asked["configs"],
                engine=asked.get("engine", "tiny"),
                val_labels=asked.get("val_labels"),
            )
            composed = await routed(client, composed)
            async with client.submit(
                composed, worker=asked.get("worker"), alias=asked.get("alias")
            ) as follower:
                await follow(follower)
        case "track":
            worker = asked.get("worker", "gpu-1")
            models = await client.locate_models([asked["model"]], worker)
            for model in models:
                say("located", id=model.ref.id, content=model.ref.package, there=model.there)
            composed = await routed(client, client.compose_tracking([asked["video"]], models))
            async with client.submit(composed, worker=worker, output=asked["output"]) as follower:
                await follow(follower)
        case "push" | "pull":
            await move(client)
        case "attach":
            async with client.attach(asked["job"]) as follower:
                await follow(follower)
        case "command":
            await client.command(asked["job"], asked["command"])
        case "order":
            await client.command(asked["job"], asked["command"], worker=asked["worker"])
        case "watch":
            async with client.watch(asked["job"], worker=asked["worker"]) as watcher:
                await watch(watcher)
        case "retry":
            await client.retry(asked["job"])
        case "unchecked":
            async with client.attach(await submit_unchecked(client)) as follower:
                await follow(follower)
        case _:
            await be_let_in(client)


def count_reads() -> None:
    """Count the bytes that are read to be sent.

    Slowly, if asked to, as from a slow disk: a small file then takes long enough to send to be
    interrupted. Or not beyond the first blocks as long as the file ``hold`` is there.
    """
    read = ServedPackage.read

    def counted(self: ServedPackage, file: int, block: int) -> bytes:
        global sent  # noqa: PLW0603 - of the one thing that this program does
        if asked.get("slow"):
            time.sleep(BLOCK_S)
        while sent > HELD_AT and "hold" in asked and Path(asked["hold"]).exists():
            time.sleep(0.02)
        data = read(self, file, block)
        sent += len(data)
        return data

    ServedPackage.read = counted  # type: ignore[method-assign]


async def main() -> None:
    count_reads()
    async with AsyncClient() as client:
        await act(client)


try:
    asyncio.run(main())
except SleapRtcError as error:
    say("error", code=error.code, message=error.message, hint=error.hint_text)
    sys.exit(error.exit_code)
