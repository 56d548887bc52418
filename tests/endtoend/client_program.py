"""A person's machine as a process: does one thing with the Python API, and tells it line by line.

    python client_program.py '{"do": "train", "labels": …, "configs": […]}'

Each update is a line of JSON on standard output. An error is the last line, and the exit code is
the error's own. ``die_at`` names a kind of line after which the process kills itself, at once and
with SIGKILL, while what it was doing is half done.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

import msgspec

from sleap_rtc.client.api import AsyncClient
from sleap_rtc.client.following import AliasGiven, CameHome, Fetching, Follower, LinkChanged, Update
from sleap_rtc.client.watching import Watcher
from sleap_rtc.errors import SleapRtcError
from sleap_rtc.jobs.events import JobEvent
from sleap_rtc.jobs.lifecycle import SETTLED, JobView, fold

asked: dict[str, Any] = json.loads(sys.argv[1])


def say(kind: str, **fields: Any) -> None:
    os.write(1, json.dumps({"kind": kind, **fields}, default=str).encode() + b"\n")
    if asked.get("die_at") == kind and fields.get("done", 1):
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


async def follow(follower: Follower) -> None:
    say("job", job=follower.job.id)
    async for update in follower.updates():
        tell(update)
    say("end", state=follower.view.state, reason=follower.view.reason, models=follower.job.models)


async def watch(watcher: Watcher) -> None:
    view = JobView()
    async for event in watcher.events():
        tell(event)
        view = fold(view, event)
        if view.state in SETTLED:
            say("end", state=view.state)
            return


async def act(client: AsyncClient) -> None:
    match asked["do"]:
        case "train":
            composed = client.compose_training(
                asked["labels"], asked["configs"], engine=asked.get("engine", "tiny")
            )
            async with client.submit(
                composed, worker=asked.get("worker"), alias=asked.get("alias")
            ) as follower:
                await follow(follower)
        case "track":
            models = client.resolve_models([asked["model"]])
            composed = client.compose_tracking([asked["video"]], models)
            async with client.submit(composed, output=asked["output"]) as follower:
                await follow(follower)
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
        case "join":
            await client.join(asked["link"])
        case "workers":
            say("workers", names=[worker.name for worker in await client.workers()])


async def main() -> None:
    async with AsyncClient() as client:
        await act(client)


try:
    asyncio.run(main())
except SleapRtcError as error:
    say("error", code=error.code, message=error.message, hint=error.hint_text)
    sys.exit(error.exit_code)
