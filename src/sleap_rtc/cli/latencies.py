"""``--benchmark`` of any command: how long the library's operations took (REG-11)."""

from __future__ import annotations

import contextlib

from sleap_rtc.cli.app import App
from sleap_rtc.cli.text import count
from sleap_rtc.errors import SleapRtcError


def tell(app: App) -> None:
    """Say how long each operation of the library took, in this process.

    Half and 99 % of the calls stayed within the times that are told; these are ends of ranges.

    Args:
        app: The invocation, whose command has ended.
    """
    with contextlib.suppress(SleapRtcError, OSError):  # then the command has said so
        for operation, found in app.library().latencies.all().items():
            failed = f", {found.failed} failed" if found.failed else ""
            app.out.say(
                f"{operation}: {count(found.count, 'call')}{failed}, half within "
                f"{_ms(found.quantile(0.5))}, 99 % within {_ms(found.quantile(0.99))}, "
                f"longest {_ms(found.longest_s)}."
            )


def _ms(seconds: float) -> str:
    return f"{seconds * 1_000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
