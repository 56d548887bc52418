"""What a training configuration says, for an engine.

How one is read without trusting it is the library's: `sleap_rtc.library.inspection.configs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sleap_rtc.engines.base import ConfigSummary
from sleap_rtc.errors import InvalidConfig
from sleap_rtc.library.inspection.configs import (
    at,
    chosen,
    dump_config,
    hyperparameters,
    leaves,
    load_config,
)

__all__: Final = (
    "at",
    "chosen",
    "dump_config",
    "hyperparameters",
    "leaves",
    "load_config",
    "summarize",
)


def summarize(plain: Mapping[str, Any], *, where: str) -> ConfigSummary:
    """What a configuration says.

    Raises:
        InvalidConfig: It has no head, or more than one, or a part that isn't what it should be.
    """
    heads = chosen(plain, ("model_config", "head_configs"), where=where)
    if len(heads) != 1:
        said = ", ".join(sorted(heads)) or "none"
        why = f"model_config.head_configs must have exactly one head that isn't null; it has {said}"
        raise InvalidConfig(where=where, why=why)
    epochs = at(plain, ("trainer_config", "max_epochs"))
    name = at(plain, ("trainer_config", "run_name"))
    return ConfigSummary(
        model_type=next(iter(heads)),
        backbone=chosen(plain, ("model_config", "backbone_config"), where=where),
        run_name=name if isinstance(name, str) else "",
        epochs=epochs if type(epochs) is int and epochs > 0 else None,
        hyperparameters=hyperparameters(plain),
    )
