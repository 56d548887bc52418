"""A worker as a process: ``python worker_program.py ROOM NAME``, where ROOM may be a link.

It says that it is online with a line of JSON; a refusal is a line too, and the exit code is the
error's own.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from sleap_rtc.config import load
from sleap_rtc.errors import SleapRtcError
from sleap_rtc.worker.daemon import WorkerReady, run_worker


def say(**fields: object) -> None:
    os.write(1, json.dumps(fields).encode() + b"\n")


def ready(worker: WorkerReady) -> None:
    say(kind="ready", name=worker.name)


try:
    asyncio.run(run_worker(load(), room=sys.argv[1] or None, name=sys.argv[2], on_ready=ready))
except SleapRtcError as error:
    say(kind="error", code=error.code, message=error.message, hint=error.hint_text)
    sys.exit(error.exit_code)
