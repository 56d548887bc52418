"""Jobs whose models or data are somewhere else: on another worker, or with who is away."""

from __future__ import annotations

import re
import signal

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.webrtc]


def test_a_model_that_a_worker_lacks_is_fetched_from_who_asks(lab) -> None:
    lab.worker.begin()
    configs = lab.config(epochs=3), lab.config("centered_instance", epochs=3)
    assert lab.client.train(*configs, alias="flies").done()["state"] == "completed"
    models = lab.client.models()
    contents = {(r.id, r.package) for r in models.values()}
    other = lab.new_worker("gpu-2", lab.invite())
    other.begin()

    asked = {"model": "flies", "video": str(lab.data.video)}
    first = lab.client.do("track", **asked, worker="gpu-2", output=str(lab.root / "first"))
    assert first.done()["state"] == "completed"
    located = first.of("located")
    assert {(line["id"], line["content"]) for line in located} == contents
    assert not any(line["there"] for line in located)
    assert [p.suffix for p in (lab.root / "first").rglob("*") if p.is_file()] == [".slp"]
    # Each is told on the worker's side as well, in the log and with what comes home.
    told = [line["line"] for line in first.of("log")]
    for model, content in contents:
        assert any(model in line and content[:12] in line for line in told)
    [output] = first.of("output")
    assert {(m["id"], m["package"]) for m in output["about"]["models"]} == contents
    kept = {path.name for path in (other.directory / "datasets").iterdir()}
    assert {package for _, package in contents} < kept
    assert other.records() == {}

    # The second time nothing is sent, and it runs where it was trained without being sent either.
    second = lab.client.do("track", **asked, worker="gpu-2", output=str(lab.root / "second"))
    assert second.done()["state"] == "completed"
    assert second.of("transfer") == []
    there = lab.client.do("track", **asked, worker="gpu-1", output=str(lab.root / "there"))
    assert there.done()["state"] == "completed"
    assert all(line["there"] for line in there.of("located"))


def test_a_model_that_only_the_worker_has_is_named_from_elsewhere(lab) -> None:
    lab.worker.begin()
    config = lab.config("single_instance", epochs=2)
    assert lab.client.train(config, alias="flies").done()["state"] == "completed"
    [record] = lab.client.models().values()
    friend = lab.person("friend", lab.invite("member"))
    asked = {"video": str(lab.data.video), "output": str(lab.root / "out")}
    client = friend.do("track", model=record.id[:6], **asked)
    assert client.done()["state"] == "completed"
    [located] = client.of("located")
    assert (located["id"], located["content"]) == (record.id, record.package)
    assert friend.models() == {}

    code, error = friend.do("track", model="mice", **asked).refused()
    assert (code, error["code"]) == (3, "unknown_model")
    assert "gpu-1 hasn't got it either" in error["hint"]


def test_pausing_while_the_dataset_arrives(lab, large) -> None:
    lab.worker.begin()
    hold = lab.hold()
    client = lab.client.train(lab.config(), labels=large, hold=str(hold))
    job = client.until("job")["job"]
    lab.see(lab.worker.left)
    assert lab.client.do("command", job=job, command="pause").ended() == 0
    client.until(lambda line: line.get("state") == "paused")
    assert lab.worker.left()
    hold.unlink()

    # Nothing waits for it meanwhile.
    friend = lab.person("friend", lab.invite("member"))
    assert friend.train(lab.config("single_instance")).done()["state"] == "completed"
    assert lab.worker.view(job).held

    assert lab.client.do("command", job=job, command="resume").ended() == 0
    assert client.done()["state"] == "completed"
    done = [line["done"] for line in client.of("transfer")]
    assert done == sorted(done)  # what had arrived wasn't sent again
    assert lab.worker.left() == []


def test_an_absent_submitter_keeps_nobody_waiting(lab, large) -> None:
    lab.worker.begin(SLEAP_RTC_WORKER_PATIENCE="0.5")
    client = lab.client.train(lab.config(), labels=large, slow=True, die_at="transfer")
    assert client.ended() == -signal.SIGKILL
    job = client.lines[0]["job"]
    friend = lab.person("friend", lab.invite("member"))
    assert friend.train(lab.config("single_instance")).done()["state"] == "completed"
    view = lab.worker.view(job)
    assert view.state == "queued"
    who = r"laptop \([0-9a-f]{4}( [0-9a-f]{4}){3}\)"
    assert re.fullmatch(f"Nobody offers its data; it goes on when {who} is back.", view.reason)
    assert lab.worker.left()

    again = lab.client.attach(job)
    assert again.done()["state"] == "completed"
    done = [line["done"] for line in again.of("transfer")]
    assert done == sorted(done)
    assert lab.worker.left() == []
