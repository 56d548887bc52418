"""Where engines' environments are.

::

    <engines>/                         SLEAP_RTC_ENGINES; else the user's cache directory
      sleap-nn-0.3.5-…-cpu/            one environment per set of versions
        installed.json                 written last: without it the environment is half-made
      sleap-nn-0.3.5-…-cpu.lock/       held by whoever makes it
      home/                            what libraries keep in a home: caches, fonts
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from sleap_rtc import config

PYTHON_VARIABLE: Final = "SLEAP_RTC_SLEAP_NN_PYTHON"
"""The setting's environment variable: an environment that has sleap-nn already."""


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Where to look for engines.

    Attributes:
        engines: Folder of environments.
        sleap_nn_python: Interpreter of an existing environment to use instead.
    """

    engines: Path
    sleap_nn_python: Path | None = None

    @property
    def home(self) -> Path:
        """The home that engines' libraries see."""
        return self.engines / "home"


def default_places() -> Places:
    """The places that this process's settings name.

    Raises:
        InvalidConfig: A setting is wrong.
    """
    settings = config.load()
    return Places(engines=settings.engines_dir, sleap_nn_python=settings.sleap_nn_python)
