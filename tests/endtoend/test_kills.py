"""Every process of the main job killed with SIGKILL while it works: nothing is lost."""

from __future__ import annotations

import json
import os
import signal

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.webrtc]


def epochs_of(view) -> list[int]:
    return [epoch.epoch for epoch in view.stage_view(0).losses]


def test_client_killed_while_it_sends(lab, large) -> None:
    lab.worker.begin()
    client = lab.client.train(lab.config(), labels=large, slow=True, die_at="transfer")
    assert client.ended() == -signal.SIGKILL
    job = client.lines[0]["job"]
    arrived = client.of("transfer")[-1]
    assert 0 < arrived["done"] < arrived["total"]
    assert lab.worker.view(job).state == "preparing"
    assert lab.worker.left()

    again = lab.client.attach(job)
    assert again.done()["state"] == "completed"
    # All events of the job: what had arrived before wasn't sent again.
    done = [line["done"] for line in again.of("transfer")]
    assert done == sorted(done)
    assert lab.worker.left() == []
    [record] = lab.client.models().values()
    assert record.status == "completed"


def test_client_killed_while_it_trains(lab) -> None:
    lab.worker.begin()
    client = lab.client.train(lab.config(epochs=8, steps=40), alias="flies", die_at="epoch")
    assert client.ended() == -signal.SIGKILL
    job = client.lines[0]["job"]
    [noted] = lab.client.models().values()
    assert noted.status == "training"
    assert noted.files == ()

    again = lab.client.attach(job)
    assert again.done()["state"] == "completed"
    assert epochs_of(lab.worker.view(job)) == list(range(8))
    [record] = lab.client.models().values()
    assert record.id == noted.id
    assert record.status == "completed"
    assert [line["alias"] for line in again.of("alias")] == ["flies"]


def test_client_killed_while_it_receives(lab) -> None:
    lab.worker.begin()
    client = lab.client.train(lab.config(pad=250_000), alias="flies", die_at="fetching")
    assert client.ended() == -signal.SIGKILL
    job = client.lines[0]["job"]
    [noted] = lab.client.models().values()
    assert noted.files == ()

    again = lab.client.attach(job)
    assert again.done()["state"] == "completed"
    [record] = lab.client.models().values()
    directory = lab.client.home / "models" / record.directory
    assert record.status == "completed"
    assert record.package == lab.worker.records()["centroid"].package
    assert {f.path: f.size for f in record.files} == {
        f.path: (directory / f.path).stat().st_size for f in record.files
    }
    assert lab.client.left() == []


def test_client_killed_when_all_is_home(lab) -> None:
    """Before or after it has noted so: what is there isn't harmed."""
    lab.worker.begin()
    client = lab.client.train(lab.config(), alias="flies", die_at="home")
    assert client.ended() == -signal.SIGKILL
    job = client.lines[0]["job"]
    path = lab.client.home / "jobs" / f"{job}.json"
    noted = json.loads(path.read_text())
    assert noted["home"] == ["model 0"]
    for home in (["model 0"], []):
        path.write_text(json.dumps(noted | {"home": home}))
        again = lab.client.attach(job)
        assert again.done()["state"] == "completed"
        assert len(again.of("home")) == (0 if home else 1)
        [record] = lab.client.models().values()
        assert record.status == "completed"
        directory = lab.client.home / "models" / record.directory
        assert all((directory / file.path).stat().st_size == file.size for file in record.files)
        assert [line["alias"] for line in again.of("alias")] == ["flies"]
        assert lab.client.left() == []


def test_daemon_killed_while_it_trains(lab) -> None:
    daemon = lab.worker.begin()
    client = lab.client.train(lab.config(epochs=12, steps=60))
    job = client.until("job")["job"]
    client.until(lambda line: line["kind"] == "epoch" and line["epoch"] == 1)
    runner, trainer = lab.worker.runner(job), lab.worker.trainer(job)
    daemon.kill()
    assert (lab.worker.runner(job), lab.worker.trainer(job)) == (runner, trainer)

    lab.worker.begin()
    assert client.done()["state"] == "completed"
    assert epochs_of(lab.worker.view(job)) == list(range(12))
    assert len(client.of("stage")) == 1
    told = [line["n"] for line in client.lines if "n" in line]
    assert told == list(range(1, len(told) + 1))
    assert lab.client.models()["centroid"].status == "completed"


def test_daemon_killed_while_the_dataset_arrives(lab, large) -> None:
    daemon = lab.worker.begin()
    client = lab.client.train(lab.config(), labels=large, slow=True)
    job = client.until("job")["job"]
    arrived = client.until(lambda line: line["kind"] == "transfer" and line["done"] > 0)
    daemon.kill()
    assert lab.worker.left()

    lab.worker.begin()
    client.until(lambda line: line.get("state") == "interrupted")
    client.until(lambda line: line.get("state") == "queued")
    again = client.until("transfer")
    assert again["done"] >= arrived["done"] // 2  # all that was synced is still there
    assert client.done()["state"] == "completed"
    assert lab.worker.left() == []
    assert lab.worker.view(job).state == "completed"


def test_trainer_killed(lab) -> None:
    lab.worker.begin()
    client = lab.client.train(lab.config(epochs=12, steps=60))
    job = client.until("job")["job"]
    client.until(lambda line: line["kind"] == "epoch" and line["epoch"] == 2)
    os.kill(lab.worker.trainer(job), signal.SIGKILL)
    end = client.done()
    assert end["state"] == "interrupted"
    assert "signal 9" in end["reason"]
    record = lab.worker.records()["centroid"]
    assert record.status == "interrupted"
    assert record.interruption.epoch >= 2  # the epoch is told before its checkpoint
    listed = {file.path for file in record.files}
    assert record.interruption.checkpoint in listed
    told = client.of("model")[-1]["record"]
    assert told["status"] == "interrupted"
    assert told["interruption"]["epoch"] == record.interruption.epoch
    assert lab.client.models()["centroid"].status == "interrupted"

    assert lab.client.do("retry", job=job).ended() == 0
    again = lab.client.attach(job)
    assert again.done()["state"] == "completed"
    assert again.of("stage")[-1]["first_epoch"] == record.interruption.epoch
    view = lab.worker.view(job)
    assert epochs_of(view) == list(range(12))
    done = lab.client.models()["centroid"]
    assert done.status == "completed"
    assert done.interruption is None
    assert done.training.resumed_from == (f"epoch {record.interruption.epoch}",)


def test_runner_killed(lab) -> None:
    lab.worker.begin()
    client = lab.client.train(lab.config(epochs=12, steps=60))
    job = client.until("job")["job"]
    client.until(lambda line: line["kind"] == "epoch" and line["epoch"] == 1)
    trainer = lab.worker.trainer(job)
    os.kill(lab.worker.runner(job), signal.SIGKILL)
    assert client.done()["state"] == "interrupted"
    lab.see_end(trainer)
    assert lab.worker.records()["centroid"].interruption.epoch >= 1

    assert lab.client.do("retry", job=job).ended() == 0
    assert lab.client.attach(job).done()["state"] == "completed"
    assert epochs_of(lab.worker.view(job)) == list(range(12))


def test_daemon_and_runner_killed_at_once(lab) -> None:
    """As when the machine loses power."""
    daemon = lab.worker.begin()
    client = lab.client.train(lab.config(epochs=12, steps=60))
    job = client.until("job")["job"]
    client.until(lambda line: line["kind"] == "epoch" and line["epoch"] == 1)
    daemon.kill()
    trainer = lab.worker.trainer(job)
    for pid in (lab.worker.runner(job), trainer):
        os.kill(pid, signal.SIGKILL)
    lab.see_end(trainer)

    lab.worker.begin()
    end = client.done()
    assert end["state"] == "interrupted"
    record = lab.client.models()["centroid"]
    assert record.status == "interrupted"
    assert record.interruption.epoch >= 1
    there = lab.worker.records()["centroid"]
    assert there.interruption == record.interruption

    assert lab.client.do("retry", job=job).ended() == 0
    again = lab.client.attach(job)
    assert again.done()["state"] == "completed"
    assert again.of("stage")[-1]["first_epoch"] == record.interruption.epoch
    assert epochs_of(lab.worker.view(job)) == list(range(12))


def test_server_killed_in_the_middle(own_lab) -> None:
    lab = own_lab
    lab.worker.begin()
    client = lab.client.train(lab.config(epochs=8, steps=60), alias="first")
    client.until(lambda line: line["kind"] == "epoch" and line["epoch"] == 1)
    up = [line["state"] for line in client.of("link")]
    lab.host.process.kill()
    assert client.done()["state"] == "completed"
    # All of it, the model included, came over the link that was open.
    assert [line["state"] for line in client.of("link")] == up
    assert lab.client.models()["centroid"].status == "completed"

    code, error = lab.client.train(lab.config()).refused()
    assert (code, error["code"]) == (5, "server_unreachable")

    lab.host.process.start()
    assert lab.client.do("await", worker="gpu-1").ended() == 0
    second = lab.client.train(lab.config(), alias="second")
    assert second.done()["state"] == "completed"
