"""Working without a network: what is known is shown, and the rest fails at once."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from sleap_rtc.auth.store import DeviceStore
from sleap_rtc.client.asking import RemoteModel, RemoteModels
from sleap_rtc.client.lastknown import LastKnown
from sleap_rtc.domain.models import Location
from sleap_rtc.domain.places import Presence, WorkerInfo
from sleap_rtc.protocol.library import ListModels

SENTENCE = "is not asked: sleap-rtc works offline."


def test_the_library_works_as_ever(cli, home, monkeypatch) -> None:
    home.model("fly")
    done = cli("list-models", "--offline")
    assert (done.code, "centroid" in done.out, done.err) == (0, True, "")
    monkeypatch.setenv("SLEAP_RTC_OFFLINE", "1")
    assert cli("list-models", "--json").code == 0
    assert cli("transfers").code == 0


def test_what_other_machines_have_may_be_old(cli, home) -> None:
    at = Location(kind="worker", name="gpu-1", last_seen=datetime(2026, 3, 1, tzinfo=UTC))
    entry = home.model("fly", locations=(at,))
    for command in (("list-models",), ("model-info", entry.id)):
        assert "may be old" in cli(*command, "--offline").err
        assert "may be old" not in cli(*command).err


def test_jobs_are_shown_as_they_were_last_seen(cli, home) -> None:
    home.job(state="running")
    done = cli("jobs", "--offline")
    assert (done.code, "running" in done.out) == (0, True)
    assert "as they were last seen" in done.err


def test_an_engine_is_not_fetched(cli, home, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("SLEAP_RTC_ENGINES", str(tmp_path / "engines"))
    done = cli("engine", "install", "sleap-nn", "--offline")
    assert done.code == 5
    assert f"The package index {SENTENCE}" in done.err


@pytest.mark.slow
def test_what_needs_others_says_so_and_what_was_told_last_is_shown(
    host, cli, home, dataset, config
) -> None:
    login = ("login", host.url, "--code", host.code)
    done = cli(*login, "--offline")
    assert (done.code, done.err.count("\n")) == (5, 2)
    assert f"{host.url} {SENTENCE}" in done.err
    assert cli(*login).code == 0
    assert cli("room", "create", "lab").code == 0
    # Nobody has asked for workers yet.
    assert cli("workers", "--offline").code == 5
    assert cli("workers").code == 0
    offline = cli("workers", "--offline", "--json")
    assert offline.document["workers"] == []
    assert offline.document["as_of"] is not None
    assert "Offline: these were the workers as of" in offline.err

    entry = home.model("fly")
    for command in (
        ("train", dataset, "--config", config, "--engine", "tiny", "--yes"),
        ("track", "--model", entry.id, dataset, "--remote"),
        ("push-model", entry.id, "--worker", "gpu-1"),
        ("pull-model", "fly", "--worker", "gpu-1"),
        ("worker", "list-models", "--worker", "gpu-1"),
        ("worker", "model-info", "fly", "--worker", "gpu-1"),
        ("room", "members"),
        ("room", "create", "other"),
        ("jobs", "--worker", "gpu-1"),
        ("worker", "start"),
    ):
        done = cli(*command, "--offline", "--json")
        assert done.code == 5, (command, done)
        assert done.document["error"]["code"] == "offline", command
        assert SENTENCE in done.document["error"]["message"]
    for command in (("room", "list"), ("room", "invite"), ("doctor",)):
        assert cli(*command, "--offline").code in (0, 1), command
    assert "nobody is asked" in cli("doctor", "--offline").out


@pytest.mark.slow
def test_a_workers_library_as_it_was_told_last(host, cli, home) -> None:
    """The answers themselves are tested in tests/client/test_lastknown.py."""
    cli("login", host.url, "--code", host.code)
    cli("room", "create", "lab")
    [room] = DeviceStore(home.root).rooms()
    known = LastKnown(home.root / "known")
    entry = home.model("fly")
    presence = Presence(
        device="d" * 64,
        connection="c",
        room=room.room,
        name="gpu-1",
        kind="worker",
        worker=WorkerInfo(),
    )
    known.keep_workers(room, [presence])
    known.keep_models(room, "gpu-1", ListModels(), 50, RemoteModels(models=(), more=2))
    told = RemoteModel(record=entry.record, alias="flies", path="/there", cut=False, files=())
    known.keep_model(room, "gpu-1", "flies", told)
    listed = cli("worker", "list-models", "--offline", "--json")
    assert (listed.document["worker"], listed.document["more"]) == ("gpu-1", 2)
    assert "these were the models of gpu-1 as of" in listed.err
    info = cli("worker", "model-info", "flies", "--offline", "--json")
    assert info.document["model"]["model"]["alias"] == "flies"
    assert info.document["as_of"] is not None
    other = cli("worker", "list-models", "fly", "--offline")
    assert other.code == 5
    assert "as it was asked for before" in other.err
