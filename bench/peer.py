"""One process of a measurement: ``python -m bench.peer '{"kind": …, "role": …, "fd": …}'``.

Prints one JSON document when it has done its part.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from typing import Any

from loguru import logger

from bench.wire import Wire

KINDS = {
    "ours": "ours",
    "control": "ours",
    "bare": "bare",
    "aiortc": "portable",
    "tls": "tls",
    "tcp": "tcp",
}
"""What can be measured, and the module that knows how."""


async def _play(options: dict[str, Any]) -> dict[str, Any]:
    wire = await Wire.open(options["fd"])
    module = importlib.import_module(f"bench.{KINDS[options['kind']]}")
    name = "control" if options["kind"] == "control" else "transfer"
    part = getattr(module, f"{name}_{options['role']}")
    result: dict[str, Any] = await part(wire, options)
    return result


if __name__ == "__main__":
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    print(json.dumps(asyncio.run(_play(json.loads(sys.argv[1])))))
