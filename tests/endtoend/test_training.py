"""Jobs that end well, or are told to end, on real processes."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.webrtc]


def test_a_model_comes_home(lab) -> None:
    lab.worker.begin()
    client = lab.client.train(lab.config(), alias="flies")
    assert client.done()["state"] == "completed"
    [record] = lab.client.models().values()
    assert record.status == "completed"
    assert [line["alias"] for line in client.of("alias")] == ["flies"]
    assert record.training.duration_s
    assert lab.worker.left() == []
