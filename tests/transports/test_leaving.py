"""A process that ends while it connects: the library's threads must not find it half gone."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.webrtc]

# Each way to end is a child of one process that has loaded everything, since loading takes longest.
ENDING = """
import asyncio, itertools, json, os, sys, uuid
from sleap_rtc.errors import NotFound
from sleap_rtc.transports.peer import ended
from sleap_rtc.transports.webrtc import WebRtc, library

WAYS = ("return", "cancelled", "abandoned", "sys.exit", "interrupted")
DELAYS = (0, 0.001, 0.004, 0.012)

async def signal(message):
    await asyncio.sleep(0)

async def dial(way, delay):
    connection = WebRtc(attempt=str(uuid.uuid4()), peer="worker", signal=signal)
    dialling = asyncio.create_task(connection.offer(session="s", purpose="blocks"))
    await asyncio.sleep(delay)
    if way == "cancelled":
        dialling.cancel()
        await asyncio.gather(dialling, return_exceptions=True)
        connection.abandon("not connected")
        await ended()
    elif way == "abandoned":
        connection.abandon("not connected")
    elif way == "sys.exit":
        sys.exit(0)
    elif way == "interrupted":
        raise KeyboardInterrupt

library()
codes = {}
for way, delay in itertools.product(WAYS, DELAYS):
    sys.stdout.flush()
    child = os.fork()
    if not child:
        break
    codes[f"{way} after {delay} s"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
else:
    print(json.dumps(codes))
    os._exit(0)
try:
    asyncio.run(dial(way, delay))
except KeyboardInterrupt:
    pass
"""


@pytest.mark.slow
def test_a_dial_under_way_doesnt_abort_the_process_that_ends(address):
    done = subprocess.run(
        [sys.executable, "-c", ENDING], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    codes = json.loads(done.stdout)
    assert len(codes) == 20
    assert {name: code for name, code in codes.items() if code} == {}, done.stderr
