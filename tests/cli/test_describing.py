"""Everything about one model: on a page, and as a document."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import msgspec
import pytest

from sleap_rtc.cli.describing import commands, short
from sleap_rtc.cli.model_documents import ModelInfoDocument
from sleap_rtc.domain.models import Interruption, Location, Metrics, Training
from sleap_rtc.library.entries import Group

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GPU = Location(kind="worker", name="gpu-1", last_seen=NOW)


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
        "all there (--verify reads them)",
        f"sleap-rtc track --model {model.id} VIDEO.mp4 --remote --worker gpu-1",
    ):
        assert text in words
    (shown,) = cli("model-info", model.id, "--json").document["models"]
    assert shown["record"]["notes"] == "a note"
    assert [file["state"] for file in shown["files"]] == ["ok"]
    msgspec.convert({"models": [shown]}, ModelInfoDocument)


def test_sha256_is_computed_shown_and_kept(cli, home):
    model = home.model("a", training=Training(engine="sleap", engine_version="1.3.4"))
    content = (model.directory / "best.ckpt").read_bytes()
    line = f"{hashlib.sha256(content).hexdigest()}  best.ckpt"
    assert "SHA-256" not in cli("model-info", model.id).out
    done = cli("model-info", model.id, "--sha256", environment={"COLUMNS": "200"})
    assert done.code == 0
    assert line in done.out
    assert "sleap 1.3.4" in done.out  # who trained it, and not what runs it
    (shown,) = cli("model-info", model.id, "--json").document["models"]
    assert shown["record"]["files"][0]["sha256"] == line.split(maxsplit=1)[0]
    other = home.model("b")
    (other.directory / "best.ckpt").unlink()
    assert cli("model-info", other.id, "--sha256").code == 3


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
    (shown,) = cli("model-info", model.id, "--json", "--verify").document["models"]
    assert [file["state"] for file in shown["files"]] == [state]
    assert shown["verified"] is True
    assert "1 not as recorded" in cli("model-info", model.id, "--verify").out


def test_a_model_whose_files_are_all_gone_is_nowhere(cli, home):
    model = home.model("a")
    (model.directory / "best.ckpt").unlink()
    done = cli("model-info", model.id, "--json")
    (shown,) = done.document["models"]
    assert shown["model"]["local"] is False
    assert "nowhere" in cli("model-info", model.id).out


def test_without_verify_sizes_are_compared_alone(cli, home):
    model = home.model("a")
    path = model.directory / "best.ckpt"
    path.write_bytes(b"X" * path.stat().st_size)
    (shown,) = cli("model-info", model.id, "--json").document["models"]
    assert ([file["state"] for file in shown["files"]], shown["verified"]) == (["ok"], False)
    path.write_bytes(b"X")
    (shown,) = cli("model-info", model.id, "--json").document["models"]
    assert [file["state"] for file in shown["files"]] == ["changed"]


LOG = "epoch,train/loss,val/loss\n0,,0.5\n1,0.4,0.2\n2,0.3,0.1\n"


@pytest.mark.parametrize("width", [80, 160])
def test_the_losses_are_drawn(cli, home, width):
    model = home.model("a", extra={"training_log.csv": LOG.encode()})
    done = cli("model-info", model.id, environment={"COLUMNS": str(width)})
    lines = done.out.splitlines()
    assert "Validation loss (training loss dotted)" in lines
    top = next(line for line in lines if "│" in line)
    assert top.strip().startswith("0.5 │")
    assert max(len(line) for line in lines if "│" in line) <= width
    (shown,) = cli("model-info", model.id, "--json").document["models"]
    assert shown["curve"][1] == {"epoch": 1, "train_loss": 0.3, "val_loss": 0.2}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "-"),
        (True, "yes"),
        (3, "3"),
        (0.123456789, "0.1235"),
        (123456.7, "123,457"),
        (1e-05, "1e-05"),
        (float("inf"), "inf"),
        ([1, 0.5], "1, 0.5"),
        ("unet", "unet"),
    ],
)
def test_values_are_short(value, told):
    assert short(value) == told


def test_how_far_files_may_be_trusted_is_shown(cli, home):
    model = home.model("a")
    assert "Safety" in cli("model-info", model.id).out
    (shown,) = cli("model-info", model.id, "--json").document["models"]
    assert shown["safety"]["tier"] == "unknown"


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


def test_where_training_stopped(cli, home):
    model = home.model(
        "a", files=False, status="interrupted", interruption=Interruption(epoch=1, reason="killed")
    )
    words = " ".join(cli("model-info", model.id).out.split())
    assert "Stopped at 1 epoch: killed" in words
