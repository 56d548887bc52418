"""sleap-rtc: train SLEAP models on any machine you can reach, and keep every model.

``Client`` and ``AsyncClient`` are the Python API; they are imported when they are asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sleap_rtc.client.api import AsyncClient, Client

__all__ = ["AsyncClient", "Client", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in ("AsyncClient", "Client"):
        from sleap_rtc.client import api  # noqa: PLC0415 - the package itself stays light

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
