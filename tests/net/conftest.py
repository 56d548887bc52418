"""A real server in the test's loop, and a room at it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sleap_rtc.net import signaling
from sleap_rtc.testing.lab import Lab
from sleap_rtc.testing.server import running_server, server_settings


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with running_server(server_settings(tmp_path / "data")) as server:
        yield Lab(server.address, server.info.setup_code)


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reconnect at once."""
    monkeypatch.setattr(signaling, "delay", lambda _attempt, _chance: 0.01)
