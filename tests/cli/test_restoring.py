"""``restore-model`` and ``list-models --deleted`` on a library in this process."""

from __future__ import annotations

import msgspec

from sleap_rtc.cli.care_documents import RestoredModelsDocument

WIDE = {"COLUMNS": "200"}


def restored(done) -> RestoredModelsDocument:
    return msgspec.convert(done.document, RestoredModelsDocument)


def test_what_delete_says_brings_the_model_back(cli, home):
    model = home.model("fly")
    cli("tag-model", model.id, "fly")
    said = cli("delete-model", "fly", "--files", "--yes").err
    assert f"sleap-rtc restore-model {model.id} brings it back." in said
    assert cli("model-info", "fly").code == 3
    done = cli("restore-model", model.id)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{model.id} (fly) is back with ")
    assert "is whole" in cli("repair-model", "fly").err


def test_one_that_fails_does_not_keep_the_others(cli, home):
    model = home.model("fly")
    cli("delete-model", model.id, "--files", "--yes")
    done = cli("restore-model", "nobody", model.id, "--json")
    assert done.code == 3
    document = restored(done)
    assert [one.id for one in document.models] == [model.id]
    assert [(one.name, one.error.code) for one in document.failed] == [("nobody", "unknown_model")]
    assert "nobody" in done.err


def test_the_only_one_that_fails_is_an_error(cli, home):
    done = cli("restore-model", "nobody", "--json")
    assert done.code == 3
    assert done.document["error"]["code"] == "unknown_model"


def test_what_could_not_be_given_back_is_said(cli, home):
    model, other = home.model("fly"), home.model("other")
    cli("tag-model", model.id, "fly")
    cli("delete-model", "fly", "--files", "--yes")
    cli("tag-model", other.id, "fly")
    (trash,) = (model.directory.parent / ".trash").iterdir()
    (trash / "best.ckpt").unlink()
    done = cli("restore-model", model.id, environment=WIDE)
    assert done.code == 0
    assert "A name was not given back." in done.err
    assert f"sleap-rtc repair-model {model.id}" in done.err
    (one,) = (
        each for each in cli("list-models", "--json").document["models"] if each["id"] == model.id
    )
    assert one["status"] == "missing"
