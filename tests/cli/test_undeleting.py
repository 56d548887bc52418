"""What can be brought back: ``list-models --deleted``."""

from __future__ import annotations

import msgspec
import pytest

from sleap_rtc.cli.care_documents import DeletedModelsDocument

WIDE = {"COLUMNS": "200"}


def test_deleted_models_are_listed_with_age_and_size(cli, home):
    assert "No model was deleted" in cli("list-models", "--deleted").err
    gone, kept = home.model("gone"), home.model("kept")
    cli("tag-model", kept.id, "kept")
    home.model("alive")
    cli("delete-model", gone.id, "--files", "--yes")
    cli("delete-model", "kept", "--yes")
    done = cli("list-models", "--deleted", environment=WIDE)
    first, second = done.out.splitlines()[-2:]
    assert first.split()[0] == "kept"
    assert second.split()[0] == gone.id
    assert "in the trash" in second
    assert "30 days" in second
    assert "in the trash; sleap-rtc restore-model NAME" in done.err
    document = cli("list-models", "--deleted", "--json").document
    one, two = msgspec.convert(document, DeletedModelsDocument).models
    assert (one.files, one.aliases) == ("kept", ("kept",))
    assert (two.files, two.size) == ("trash", gone.record.size)


@pytest.mark.parametrize(
    "more",
    [["word"], ["--tag", "x"], ["--source", "hub"], ["--location", "room"], ["--format", "csv"]],
)
def test_deleted_models_are_not_searched(cli, home, more):
    assert cli("list-models", "--deleted", *more).code == 2
