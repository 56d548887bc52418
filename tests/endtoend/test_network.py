"""Cables pulled between client and worker, which have networks of their own."""

from __future__ import annotations

import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.webrtc]


def hold(program, since: float, seconds: float) -> None:
    """Wait out the rest of a cut that is so long; how long it lasts is what is tested."""
    assert program.process.poll() is None
    time.sleep(max(0.0, since + seconds - time.monotonic()))


def test_cut_for_30_seconds_while_it_sends_and_again_while_it_trains(lab, large) -> None:
    lab.wire()
    lab.worker.begin()
    client = lab.client.train(lab.config(epochs=12, steps=60), labels=large, slow=True)
    job = client.until("job")["job"]
    arrived = client.until(lambda line: line["kind"] == "transfer" and line["done"] > 0)
    lab.client.network.cut()
    cut_at = time.monotonic()
    client.until(lambda line: line["kind"] == "link" and line["state"] == "silent")
    client.until(lambda line: line["kind"] == "link" and line["state"] == "down")
    hold(client, cut_at, 30)
    there = lab.worker.view(job).transfer.done
    assert arrived["done"] <= there < arrived["total"]
    lab.client.network.mend()

    client.until(lambda line: line["kind"] == "epoch" and line["epoch"] == 1)
    lab.client.network.cut()
    client.until(lambda line: line["kind"] == "link" and line["state"] == "silent")
    lab.client.network.mend()

    assert client.done()["state"] == "completed"
    assert [line["state"] for line in client.of("link")] == [
        *("up", "silent", "down", "up", "silent", "up")
    ]
    numbers = [line["n"] for line in client.lines if "n" in line]
    assert numbers == list(range(1, len(numbers) + 1))
    sent = [line["done"] for line in client.of("transfer")]
    assert sent == sorted(set(sent))
    assert len(client.of("epoch")) == 12
    assert lab.worker.states(job) == [
        *("queued", "assigned", "preparing", "running", "finishing", "completed")
    ]
    assert lab.worker.left() == []
    assert lab.client.models()["centroid"].status == "completed"


def test_laptop_loses_all_of_its_network_while_it_trains(lab) -> None:
    """The server is away as well as the worker, as when a lid is closed."""
    lab.wire()
    lab.worker.begin()
    client = lab.client.train(lab.config(epochs=12, steps=60))
    client.until(lambda line: line["kind"] == "epoch" and line["epoch"] == 1)
    for cable in ("peer", "server"):
        lab.client.network.cut(cable)
    client.until(lambda line: line["kind"] == "link" and line["state"] == "silent")
    for cable in ("peer", "server"):
        lab.client.network.mend(cable)
    assert client.done()["state"] == "completed"
    assert len(client.of("epoch")) == 12
