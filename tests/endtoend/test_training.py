"""Jobs that end well, that are told to end, and that wait for each other, on real processes."""

from __future__ import annotations

import json
import signal
import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.webrtc]


STATES = ("queued", "assigned", "preparing", "running")


def first_epochs(line) -> bool:
    return line["kind"] == "epoch" and line["epoch"] == 1


def test_stop_early_keeps_the_best_and_the_second_model_is_trained(lab) -> None:
    lab.worker.begin()
    configs = lab.config(epochs=200, steps=40), lab.config("centered_instance", epochs=2)
    client = lab.client.train(*configs, alias="flies")
    job = client.until("job")["job"]
    client.until(first_epochs)
    assert lab.client.do("command", job=job, command="stop").ended() == 0
    assert client.done()["state"] == "completed"
    assert client.of("command")[0]["command"] == "stop"

    models = lab.client.models()
    assert {name: record.status for name, record in models.items()} == {
        "centroid": "completed",
        "centered_instance": "completed",
    }
    centroid = models["centroid"]
    epochs = [line for line in client.of("epoch") if line["stage"] == 0]
    assert 2 <= len(epochs) < 200
    assert centroid.metrics.epochs == len(epochs)
    best = min(epochs, key=lambda line: line["val_loss"])
    assert centroid.metrics.best_epoch == best["epoch"]
    assert centroid.checkpoint in {file.path for file in centroid.files}
    assert [line["alias"] for line in client.of("alias")] == ["flies"]
    assert lab.client.left() == []


def test_cancel_while_it_trains_leaves_the_checkpoint_on_the_worker(lab) -> None:
    lab.worker.begin()
    client = lab.client.train(lab.config(epochs=200, steps=40), alias="flies")
    job = client.until("job")["job"]
    client.until(first_epochs)
    trainer = lab.worker.trainer(job)
    assert lab.client.do("command", job=job, command="cancel").ended() == 0
    end = client.done()
    assert (end["state"], end["reason"]) == ("cancelled", "The job was cancelled.")
    lab.see_end(trainer)

    there = lab.worker.records()["centroid"]
    assert there.status == "interrupted"
    assert there.interruption.epoch >= 1
    assert (lab.worker.directory / "models" / there.directory / there.checkpoint).is_file()
    here = lab.client.models()["centroid"]
    assert (here.status, here.files) == ("interrupted", ())
    assert client.of("alias") == []

    code, error = lab.client.do("command", job=job, command="stop").refused()
    assert (code, error["code"]) == (4, "illegal_transition")
    assert "is cancelled" in error["message"]
    code, error = lab.client.do("retry", job=job).refused()
    assert (code, error["code"]) == (4, "illegal_transition")


def test_cancel_while_the_dataset_arrives(lab, large) -> None:
    lab.worker.begin()
    hold = lab.hold()
    client = lab.client.train(lab.config(), labels=large, hold=str(hold))
    job = client.until("job")["job"]
    lab.see(lab.worker.left)
    assert lab.client.do("command", job=job, command="cancel").ended() == 0
    hold.unlink()
    assert client.done()["state"] == "cancelled"
    assert lab.worker.view(job).state == "cancelled"
    assert lab.client.models() == {}
    # Nobody will ask for the rest of it: it doesn't fill the disk.
    assert lab.worker.left() == []

    assert lab.client.train(lab.config()).done()["state"] == "completed"


def test_what_the_worker_has_is_not_sent_again_and_the_rest_not_too_fast(lab, large) -> None:
    lab.worker.begin()
    rate, size = 8_000_000, large.stat().st_size
    config = lab.config(epochs=1)
    begun = time.monotonic()
    client = lab.client.train(config, labels=large, env={"SLEAP_RTC_LIMIT_RATE": "8MB"})
    client.until(lambda line: line.get("state") == "running")
    assert time.monotonic() - begun > size / rate - 1
    end = client.done()
    assert (end["state"], end["sent"]) == ("completed", size + config.stat().st_size)

    # Another configuration.
    config = lab.config(epochs=1, pad=10)
    end = lab.client.train(config, labels=large).done()
    assert (end["state"], end["sent"]) == ("completed", config.stat().st_size)
    # Another package, in which the same content has another name.
    labels = lab.data.package
    end = lab.client.train(config, labels=labels, val_labels=str(large)).done()
    assert (end["state"], end["sent"]) == ("completed", labels.stat().st_size)
    # The same package.
    end = lab.client.train(config, labels=labels, val_labels=str(large)).done()
    assert (end["state"], end["sent"]) == ("completed", 0)


def test_cancel_right_after_a_change(lab) -> None:
    """Whoever has the job at that moment, daemon or runner, obeys."""
    lab.worker.begin()
    config = lab.config(epochs=200, steps=40)
    for state in STATES:
        client = lab.client.train(config)
        job = client.until("job")["job"]
        client.until(
            lambda line, state=state: (line["kind"], line.get("state")) == ("state", state)
        )
        assert lab.client.do("command", job=job, command="cancel").ended() == 0
        assert client.done()["state"] == "cancelled"
        assert lab.worker.states(job)[-1] == "cancelled"
    records = (*lab.worker.records().values(), *lab.client.models().values())
    assert {record.status for record in records} <= {"interrupted"}


def test_jobs_wait_in_line_and_survive_a_restart(lab) -> None:
    daemon = lab.worker.begin()
    first = lab.client.train(lab.config(epochs=200, steps=40), alias="first")
    first_job = first.until("job")["job"]
    first.until(first_epochs)
    second = lab.client.train(lab.config("centered_instance"), alias="second")
    second_job = second.until("job")["job"]
    second.until("state")
    third = lab.client.train(lab.config("single_instance"), alias="third")
    third_job = third.until("job")["job"]
    third.until("state")
    assert lab.worker.view(second_job).state == "queued"

    assert lab.client.do("command", job=third_job, command="cancel").ended() == 0
    assert third.done()["state"] == "cancelled"
    assert lab.worker.view(second_job).state == "queued"

    daemon.kill()
    lab.worker.begin()
    assert lab.worker.view(second_job).state == "queued"
    assert lab.client.do("command", job=first_job, command="stop").ended() == 0
    assert first.done()["state"] == "completed"
    assert second.done()["state"] == "completed"
    assert lab.worker.view(second_job).created_at < lab.worker.view(first_job).changed_at
    assert set(lab.client.models()) == {"centroid", "centered_instance"}


def test_two_followers_of_one_job(lab) -> None:
    lab.worker.begin()
    client = lab.client.train(lab.config(epochs=10, steps=60), alias="flies")
    job = client.until("job")["job"]
    client.until(first_epochs)
    other = lab.client.attach(job)
    friend = lab.person("friend", lab.invite("member"))
    watcher = friend.do("watch", job=job, worker="gpu-1")
    assert client.done()["state"] == "completed"
    assert other.done()["state"] == "completed"
    assert watcher.done()["state"] == "completed"
    numbers = [[line["n"] for line in p.lines if "n" in line] for p in (client, other, watcher)]
    assert numbers[0] == numbers[1] == numbers[2]
    [record] = lab.client.models().values()
    assert record.status == "completed"
    assert lab.client.left() == []
    assert friend.models() == {}

    code, error = friend.do("order", job=job, worker="gpu-1", command="cancel").refused()
    assert (code, error["code"]) == (6, "not_permitted")
    assert "laptop" in error["message"]


def test_who_reads_late_is_told_everything(lab) -> None:
    """More happens than a client keeps in memory, while it looks elsewhere."""
    lab.worker.begin()
    client = lab.client.train(lab.config(epochs=280, steps=1), nap=True)
    job = client.until("job")["job"]
    watcher = lab.client.do("watch", job=job, worker="gpu-1", nap=True)
    watcher.until("watching")
    end = time.monotonic() + 120
    while lab.worker.view(job).state != "completed":
        assert time.monotonic() < end
        time.sleep(0.1)
    events = lab.worker.view(job).number
    assert events > 300
    client.wake()
    watcher.wake()
    for program in (client, watcher):
        assert program.done()["state"] == "completed"
        assert [line["n"] for line in program.lines if "n" in line] == list(range(1, events + 1))
    [record] = lab.client.models().values()
    assert record.status == "completed"


def test_the_same_job_submitted_twice_is_one(lab) -> None:
    """As when a client is killed between sending a job and noting that it was sent."""
    lab.worker.begin()
    client = lab.client.train(lab.config(), die_at="state")
    assert client.ended() == -signal.SIGKILL
    job = client.lines[0]["job"]
    path = lab.client.home / "jobs" / f"{job}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "unsent"}))

    assert lab.client.attach(job).done()["state"] == "completed"
    assert [p.name for p in (lab.worker.directory / "jobs").iterdir()] == [job]
    assert [e for e in lab.worker.states(job) if e == "queued"] == ["queued"]

    # And the same id for something else is refused.
    other = json.loads(path.read_text()) | {"state": "unsent"}
    other["spec"]["name"] = "other"
    path.write_text(json.dumps(other))
    code, error = lab.client.attach(job).refused()
    assert (code, error["code"]) == (4, "conflict")
    assert job in error["message"]


def test_remote_tracking(lab) -> None:
    lab.worker.begin()
    configs = lab.config(epochs=3), lab.config("centered_instance", epochs=3)
    assert lab.client.train(*configs, alias="flies").done()["state"] == "completed"
    output = lab.root / "predictions"
    asked = {"model": "flies", "video": str(lab.data.video), "output": str(output)}
    client = lab.client.do("track", **asked, die_at="fetching")
    assert client.ended() == -signal.SIGKILL
    assert not output.exists()

    again = lab.client.attach(client.of("job")[0]["job"])
    assert again.done()["state"] == "completed"
    assert [p.suffix for p in output.rglob("*") if p.is_file()] == [".slp"]
    assert lab.client.left() == []
