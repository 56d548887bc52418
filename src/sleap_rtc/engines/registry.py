"""Engines by name. Each is imported when it is asked for."""

from __future__ import annotations

from typing import Final

from sleap_rtc.engines.base import Engine
from sleap_rtc.engines.sleap_nn.places import Places
from sleap_rtc.errors import EngineMissing

NAMES: Final = ("sleap-nn", "tiny")
"""Engines that this version knows, the default first."""
DEFAULT: Final = NAMES[0]

_RUN_BY: Final = {"sleap": "sleap-nn"}
"""Trainer that is no engine → the engine that reads its models."""


def running(trainer: str | None) -> str:
    """Name of the engine that runs the models of a trainer; the default where nothing is known."""
    return DEFAULT if trainer is None else _RUN_BY.get(trainer, trainer)


def engine(name: str, places: Places | None = None) -> Engine:
    """The engine with this name; it needn't be installed yet.

    Args:
        name: One of :data:`NAMES`.
        places: Where environments are kept; None follows from the process's environment.

    Raises:
        EngineMissing: There is no engine of that name.
    """
    if name == "tiny":
        from sleap_rtc.engines.tiny.engine import TinyEngine  # noqa: PLC0415 - see above

        return TinyEngine()
    if name == "sleap-nn":
        from sleap_rtc.engines.sleap_nn.engine import SleapNNEngine  # noqa: PLC0415

        return SleapNNEngine(places)
    hint = f"This version knows {', '.join(NAMES)}."
    raise EngineMissing(engine=name[:80], where="any machine", hint=hint)


def available(places: Places | None = None) -> dict[str, str]:
    """Name and version of every engine that is installed on this machine."""
    found = {}
    for name in NAMES:
        try:
            found[name] = engine(name, places).find().version
        except EngineMissing:
            continue
    return found
