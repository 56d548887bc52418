from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta

import msgspec

from sleap_rtc.cli.documents import ModelsDocument, ModelShown, model_shown
from sleap_rtc.cli.listing import day, when, where
from sleap_rtc.domain.models import Location, Metrics

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


def test_where_and_when(home):
    assert where(model_shown(home.model("a", files=False))) == "nowhere"
    assert where(model_shown(home.model("b", locations=(GPU,)))) == "local + gpu-1"
    assert when(NOW) == f"{NOW.astimezone():%Y-%m-%d %H:%M}"
    assert day(NOW) == f"{NOW.astimezone():%Y-%m-%d}"
    assert day(datetime.now(UTC)).startswith("today ")
