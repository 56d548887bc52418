"""Models side by side."""

from __future__ import annotations

import csv
import io

import msgspec
import pytest

from sleap_rtc.cli.model_documents import CompareDocument
from sleap_rtc.domain.models import Metrics, Training

LOG = b"epoch,train/loss,val/loss\n0,,0.5\n1,0.4,0.2\n2,0.3,0.1\n"


@pytest.fixture
def two(home):
    """Two models that differ in some things."""
    for name, loss, error, hits, batch in (("a", 0.1, 2.0, 0.5, 4), ("b", 0.3, 3.0, 0.9, 8)):
        model = home.model(
            name,
            extra={"training_log.csv": LOG},
            metrics=Metrics(
                best_val_loss=loss, evaluation={"val.mean_error_px": error, "val.oks_mAP": hits}
            ),
            training=Training(
                engine="tiny", hyperparameters={"batch_size": batch, "seed": 1, "shape": [1, 2]}
            ),
            notes=name,
        )
        home.alias(f"fly-{name}", model.id)
    return "fly-a", "fly-b"


def rows(out: str) -> dict[str, list[str]]:
    return {line.split("  ")[0]: line.split()[1:] for line in out.splitlines() if line}


def test_what_differs_is_shown_and_the_best_is_marked(cli, two):
    done = cli("compare-models", *two, environment={"COLUMNS": "80"})
    assert done.code == 0
    assert max(map(len, done.out.splitlines())) <= 80
    found = rows(done.out)
    assert found["best val loss"][2:] == ["0.1", "*", "0.3"]
    assert found["val.mean_error_px"] == ["2", "*", "3"]
    assert found["val.oks_mAP"] == ["0.5", "0.9", "*"]
    assert found["batch_size"] == ["4", "8"]
    assert found["where"] == ["local", "local"]
    assert "seed" not in found
    assert "--all shows them" in done.err
    assert "Validation loss" in done.out
    assert "AAAA" in done.out
    every = rows(cli("compare-models", *two, "--all").out)
    assert every["seed"] == ["1", "1"]


def test_many_models_stand_below_each_other(cli, home):
    names = [home.model(f"run{number}").id for number in range(7)]
    done = cli("compare-models", *names, environment={"COLUMNS": "80"})
    assert max(map(len, done.out.splitlines())) <= 80
    heads = [
        line.split()[0::2] for line in done.out.splitlines() if names[0] in line or "G " in line
    ]
    assert [head[0] for head in heads] == ["A", "E"]


def test_as_a_document_and_as_csv(cli, two):
    document = cli("compare-models", *two, "--json").document
    read = msgspec.convert(document, CompareDocument)
    line = next(line for line in read.lines if line.name == "best val loss")
    assert (line.values, line.differs, line.best) == ((0.1, 0.3), True, (0,))
    assert len(read.curves[0]) == 3
    assert cli("compare-models", *two, "--format", "json").document == document
    found = list(csv.reader(io.StringIO(cli("compare-models", *two, "--format", "csv").out)))
    assert found[0] == ["group", "name", *(model.id for model in read.models)]
    assert ["model", "best val loss", "0.1", "0.3"] in found
    every = list(
        csv.reader(io.StringIO(cli("compare-models", *two, "--all", "--format", "csv").out))
    )
    assert ["hyperparameters", "shape", "[1,2]", "[1,2]"] in every
    assert ["model", "made", *["2026-03-01T12:00:00Z"] * 2] in every


def test_a_pair_is_both_of_its_models(cli, home):
    home.alias("pair", home.model("a").id, home.model("b", model_type="centered_instance").id)
    assert len(cli("compare-models", "pair", "--json").document["models"]) == 2


def test_one_model_alone_is_refused(cli, home, tmp_path):
    model = home.model("a")
    done = cli("compare-models", model.id, model.id)
    assert (done.code, done.out) == (2, "")
    assert "2 to 26 models" in done.err
    assert cli("compare-models", model.id, tmp_path).code == 3
    assert cli("compare-models", model.id, "nobody").code == 3
