from __future__ import annotations

import csv
import io
import time
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from sleap_rtc.cli.listing import day, when, where
from sleap_rtc.cli.model_documents import ModelsDocument, ModelShown, model_shown
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


def listed(cli, *arguments, **more):
    document = cli("list-models", "--json", *arguments, **more).document
    return [model["name"] for model in document["models"]]


def test_a_search_is_typed_as_it_is(cli, home):
    home.model("fly one", notes="seen at night", metrics=Metrics(best_val_loss=0.5))
    home.model("night", metrics=Metrics(best_val_loss=0.1), created_at=NOW - timedelta(days=1))
    home.model("old", tags=("old",))
    assert listed(cli, "nigh") == ["night", "fly one"]  # the name counts for more than the notes
    assert listed(cli, "nigh", "--sort-by", "date") == ["fly one", "night"]
    assert listed(cli, "night", "loss>0.2") == ["fly one"]
    assert listed(cli, "--search", "-tag:old") == ["fly one", "night"]
    assert listed(cli, "night", "--search", "fly") == ["fly one"]


def test_a_mistake_in_a_search_is_pointed_at(cli, home):
    done = cli("list-models", "fly", "typ:x")
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[1:3] == ["  fly typ:x", "      ^^^"]
    assert "Fields: name, alias" in done.err
    shown = cli("list-models", "typ:x", "--json").document["error"]
    assert shown["code"] == "invalid_search"


def test_a_filter_that_nothing_fits_says_what_there_is(cli, home):
    home.model("a", tags=("night", "flies"), locations=(GPU,))
    for arguments, told in (
        (("--type", "worm"), "the type 'worm'; there are: centroid."),
        (("--tag", "nite"), "the tag 'nite'; there are: flies, night."),
        (("--at", "gpu-2"), "the worker or room 'gpu-2'; there are: gpu-1."),
    ):
        done = cli("list-models", *arguments)
        assert (done.code, done.out) == (0, "")
        assert f"No model here has {told}" in done.err
    done = cli("list-models", "--type", "bottomup")  # a head that there is, and no model of it
    assert "there are" not in done.err
    assert cli("list-models", "--tag", "NIGHT", "-q").out.strip()


def test_names_are_cut_last(cli, home):
    model = home.model("a", model_type="centered_instance", locations=(GPU,))
    home.alias("a-rather-long-alias-of-25", model.id)
    done = cli("list-models", environment={"COLUMNS": "80"})
    line = done.out.splitlines()[1]
    assert line.startswith("a-rather-long-alias-of-25 ")
    assert len(line) <= 80
    wide = cli("list-models", environment={"COLUMNS": "200"}).out.splitlines()[1]
    assert "centered_instance" in wide
    assert "local + gpu-1" in wide


def test_a_room_is_told_as_one(home):
    lab = Location(kind="room", name="lab", last_seen=NOW)
    assert where(model_shown(home.model("a", files=False, locations=(lab,)))) == "room"
    assert where(model_shown(home.model("b", locations=(lab, GPU)))) == "local + room + gpu-1"


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
@pytest.mark.parametrize(
    "end", [datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)]
)
def test_times_that_others_wrote_may_be_the_last_or_the_first_there_are(
    end: datetime, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        assert day(end)
        assert when(end)
    time.tzset()


def test_what_could_run_something_is_seen_however_narrow(cli, home):
    record = home.model("a", model_type="centered_instance", locations=(GPU,)).record
    narrow = {"COLUMNS": "80"}

    def say(tier):
        with home.library as library:
            files = tuple(msgspec.structs.replace(f, safety=tier) for f in record.files)
            library.update(record.id, lambda old: msgspec.structs.replace(old, files=files))
        return cli("list-models", environment=narrow).out.splitlines()

    assert "scanned" not in say("scanned")[1]
    assert say("flagged")[0].endswith("safety")
    flagged = say("flagged")[1]
    assert flagged.endswith("flagged")
    assert len(flagged) <= 80
    assert "flagged" in cli("list-models", environment={"COLUMNS": "200"}).out
    home.model("b", files=False)
    first, second = cli("list-models", "--json", "--sort-by", "name").document["models"]
    assert (first["safety"], second["safety"]) == ("flagged", None)
