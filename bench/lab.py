"""A room of real programs, each with a home of its own: a server, a laptop, and workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import msgspec
import yaml

from sleap_rtc.demo.machines import Machine

URL: Final = "http://127.0.0.1:8764"
"""Of the server; in a namespace every port is free."""


class Lab(msgspec.Struct, frozen=True):
    """What runs.

    Attributes:
        laptop: Of the room's owner.
        workers: By their names; each one's home is its folder as a worker, too.
    """

    laptop: Machine
    workers: dict[str, Machine]


@contextmanager
def lab(folder: Path, *, workers: Sequence[str], config: str = "") -> Iterator[Lab]:
    """Start them; at the end of the block they are stopped.

    Args:
        folder: Where their homes are made.
        workers: Names of the workers.
        config: The laptop's ``config.toml``.
    """
    logs = folder / "logs"
    host, laptop, *boxes = (Machine(folder / name, logs) for name in ("server", "laptop", *workers))
    if config:
        laptop.home.mkdir(parents=True)
        (laptop.home / "config.toml").write_text(config, encoding="utf-8")
    serving = ("server", "--data-dir", str(folder / "server" / "data"), "--port", URL[-4:])
    with ExitStack() as undo:
        undo.callback(host.start("server", *serving, "--stun-port", "0", until=URL).stop)
        code = host.run("server-code", *serving[1:3])
        laptop.run("login", URL, "--code-file", "-", secret=code)
        laptop.run("room", "create", "lab", "--server", URL)
        for name, box in zip(workers, boxes, strict=True):
            invite = laptop.run("room", "invite", "lab", "--role", "worker").strip()
            working = ("worker", "--room", invite, "--name", name, "--dir", str(box.home))
            undo.callback(box.start(name, *working, until="online").stop)
        yield Lab(laptop, dict(zip(workers, boxes, strict=True)))


def set_epochs(config: Path, epochs: int) -> None:
    """Have a configuration train for so many epochs."""
    document = yaml.safe_load(config.read_text(encoding="utf-8"))
    document["trainer_config"]["max_epochs"] = epochs
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
