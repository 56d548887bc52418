"""sleap-rtc: train SLEAP models on any machine you can reach, and keep every model.

``Client`` and ``AsyncClient`` are the Python API; they are imported when they are asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sleap_rtc.client.api import AsyncClient
    from sleap_rtc.client.synchronous import Client

__all__ = ["AsyncClient", "Client", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Client":
        from sleap_rtc.client.synchronous import Client  # noqa: PLC0415 - the package stays light

        return Client
    if name == "AsyncClient":
        from sleap_rtc.client.api import AsyncClient  # noqa: PLC0415

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
