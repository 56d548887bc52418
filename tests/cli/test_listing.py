from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from sleap_rtc.cli.documents import ModelInfoDocument, ModelsDocument, ModelShown
from sleap_rtc.cli.listing import commands, day, when, where
from sleap_rtc.domain.models import Interruption, Location, Metrics, Training
from sleap_rtc.library.entries import Group

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GPU = Location(kind="worker", name="gpu-1", last_seen=NOW)


def test_an_empty_library_says_so(cli):
    done = cli("list-models")
    assert (done.code, done.out) == (0, "")
    assert "sleap-rtc train" in done.err
    assert cli("list-models", "--json").document == {"models": [], "more": 0}


def test_the_list(cli, home):
    home.model("a", metrics=Metrics(best_val_loss=0.5))
    second = home.model("b", created_at=NOW + timedelta(days=1), locations=(GPU,))
    home.alias("flies", second.id)
    done = cli("list-models", environment={"COLUMNS": "80"})
    head, first, last = done.out.splitlines()
    assert head.split()[:3] == ["model", "type", "status"]
    assert first.startswith("flies")
    assert "local + gpu-1" in first
    assert "0.5" in last
    assert max(map(len, done.out.splitlines())) <= 80
    assert cli("list-models", "-q").out.splitlines()[0] == "flies"


def test_filters_sorts_and_limits(cli, home):
    home.model("a", tags=("night",), metrics=Metrics(best_val_loss=0.5))
    home.model("b", model_type="single_instance", metrics=Metrics(best_val_loss=0.1))
    home.model("c", status="failed", failure="boom", files=False)

    def names(*arguments):
        found = cli("list-models", "--json", *arguments).document["models"]
        return [model["name"] for model in found]

    assert names("--sort-by", "loss") == ["b", "a", "c"]
    assert names("--sort-by", "name", "--reverse") == ["c", "b", "a"]
    assert names("--type", "centroid", "--status", "completed") == ["a"]
    assert names("--tag", "night") == ["a"]
    assert names("--search", "b") == ["b"]
    assert names("--location", "worker") == []
    done = cli("list-models", "--limit", "1")
    assert "2 more" in done.err
    assert cli("list-models", "--limit", "1", "--json").document["more"] == 2


def test_csv(cli, home):
    home.model("a", locations=(GPU,))
    (row,) = csv.DictReader(io.StringIO(cli("list-models", "--format", "csv").out))
    assert list(row) == [field.name for field in msgspec.structs.fields(ModelShown)]
    assert (row["name"], row["locations"]) == ("a", "worker:gpu-1")
    assert cli("list-models", "--format", "json").document["models"][0]["name"] == "a"


def test_the_document_is_whole(cli, home):
    home.model("a")
    plain = cli("list-models", "--json").document
    assert msgspec.to_builtins(msgspec.convert(plain, ModelsDocument)) == tuplify(plain)


def tuplify(plain):
    """Lists as tuples, as msgspec gives them."""
    if isinstance(plain, dict):
        return {key: tuplify(value) for key, value in plain.items()}
    return tuple(map(tuplify, plain)) if isinstance(plain, list) else plain


def test_everything_about_a_model(cli, home):
    model = home.model(
        "a",
        locations=(GPU,),
        metrics=Metrics(best_val_loss=0.5, best_epoch=2, epochs=4, evaluation={"val.px": 2.0}),
        training=Training(
            engine="tiny",
            engine_version="0.1.0",
            worker="gpu-1",
            device="RTX",
            dataset_name="a.slp",
            duration_s=65.0,
            hyperparameters={"max_epochs": 4},
        ),
        notes="a note",
        tags=("night",),
    )
    done = cli("model-info", model.id)
    assert done.code == 0
    words = " ".join(done.out.split())
    for text in (
        "Best val loss 0.5, in epoch 3",
        "tiny 0.1.0 on gpu-1 (RTX)",
        "Took 1 min 05 s",
        "Notes a note",
        "val.px 2",
        "max_epochs 4",
        "all as recorded",
        f"sleap-rtc track --model {model.id} VIDEO.mp4 --remote --worker gpu-1",
    ):
        assert text in words
    (shown,) = cli("model-info", model.id, "--json").document["models"]
    assert shown["record"]["notes"] == "a note"
    assert [file["state"] for file in shown["files"]] == ["ok"]
    msgspec.convert({"models": [shown]}, ModelInfoDocument)


@pytest.mark.parametrize(
    ("do", "state"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(b"X" + path.read_bytes()[1:]), "changed"),
        (lambda path: path.write_bytes(b"short"), "changed"),
        (lambda path: (path.unlink(), path.symlink_to("elsewhere")), "changed"),
    ],
    ids=["gone", "another", "short", "link"],
)
def test_files_that_are_not_as_recorded(cli, home, do, state):
    model = home.model("a")
    do(model.directory / "best.ckpt")
    (shown,) = cli("model-info", model.id, "--json").document["models"]
    assert [file["state"] for file in shown["files"]] == [state]
    assert "1 not as recorded" in cli("model-info", model.id).out


def test_a_pair(cli, home):
    one = home.model("a")
    two = home.model("b", model_type="centered_instance")
    home.alias("flies", one.id, two.id)
    done = cli("model-info", "flies")
    assert "flies:centroid" in done.out
    assert "flies:centered_instance" in done.out
    assert done.out.count("sleap-rtc track --model flies VIDEO.mp4") == 1
    assert len(cli("model-info", "flies", "--json").document["models"]) == 2


def test_a_folder_that_no_library_knows(cli, tmp_path):
    done = cli("model-info", tmp_path)
    assert done.code == 3
    assert "in no library" in done.err


def test_commands_follow_from_where_a_model_is(home):
    there = home.model(
        "a", files=False, locations=(GPU,), training=Training(engine="tiny", job="a-job")
    )
    assert commands(there) == {"bring home": "sleap-rtc jobs attach a-job --download"}
    halted = home.model(
        "b",
        files=False,
        status="interrupted",
        interruption=Interruption(epoch=3, reason="killed"),
    )
    assert commands(halted) == {"go on training": f"sleap-rtc train --resume {halted.id}"}
    pair = Group(alias="my pair", entries=(home.model("c"),))
    assert commands(pair)["track here"] == "sleap-rtc track --model 'my pair' VIDEO.mp4"


def test_where_and_when(home):
    assert where(home.model("a", files=False).record) == "nowhere"
    assert where(home.model("b", locations=(GPU,)).record) == "local + gpu-1"
    assert when(NOW) == f"{NOW.astimezone():%Y-%m-%d %H:%M}"
    assert day(NOW) == f"{NOW.astimezone():%Y-%m-%d}"
    assert day(datetime.now(UTC)).startswith("today ")


def test_where_training_stopped(cli, home):
    model = home.model(
        "a", files=False, status="interrupted", interruption=Interruption(epoch=1, reason="killed")
    )
    words = " ".join(cli("model-info", model.id).out.split())
    assert "Stopped at 1 epoch: killed" in words
