"""Which models a name stands for, and where predictions go. Tracking itself: tests/endtoend."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from sleap_rtc.client.approvals import Approvals
from sleap_rtc.client.tracking import Resolved, output_path, resolve_models, track_here
from sleap_rtc.domain.models import ModelFile, ModelRecord, Training
from sleap_rtc.errors import AlreadyExists, FilesMissing, NotFound, UnknownModel, UsageError
from sleap_rtc.library.registry import Registry


@pytest.fixture
def library(tmp_path):
    with Registry(tmp_path / "models", index_dir=tmp_path / "index") as registry:
        yield registry


def place(library: Registry, model_type: str, number: int) -> str:
    staged = library.incoming / f"staged-{number}"
    staged.mkdir()
    (staged / "best.npz").write_bytes(b"12345")
    record = ModelRecord(
        id=f"0a1b2c{number:02d}",
        name="run",
        model_type=model_type,
        status="completed",
        source="worker-pull",
        created_at=datetime.now(UTC),
        checkpoint="best.npz",
        files=(ModelFile(path="best.npz", size=5, blake3="0" * 64),),
        package="1" * 64,
        training=Training(engine="tiny"),
    )
    return library.place(staged, record).id


def test_a_pair_is_named_by_its_alias_or_by_both(library):
    one, two = place(library, "centroid", 1), place(library, "centered_instance", 2)
    library.set_alias("flies", one, two)
    by_alias = resolve_models(library, ["flies"])
    by_ids = resolve_models(library, [one, two])
    assert [e.id for e in by_alias.entries] == [e.id for e in by_ids.entries] == [one, two]
    assert f"flies:centroid (centroid {one}, 111111111111)" in by_alias.shown


def test_what_can_not_be_run_is_refused(library, tmp_path):
    with pytest.raises(UsageError, match="needs a model"):
        resolve_models(library, [])
    with pytest.raises(UnknownModel):
        resolve_models(library, ["nothing"])
    with pytest.raises(UsageError, match="doesn't know"):
        resolve_models(library, [str(tmp_path)])
    one = place(library, "centroid", 1)
    (library.get(one).directory / "best.npz").unlink()
    with pytest.raises(FilesMissing, match=r"best\.npz"):
        resolve_models(library, [one])


@pytest.mark.parametrize(
    ("given", "many", "expected"),
    [
        (None, False, "/v/day.mp4.predictions.slp"),
        ("/out/a.slp", False, "/out/a.slp"),
        ("/out", True, "/out/day.mp4.predictions.slp"),
    ],
)
def test_predictions_go_beside_the_video_or_where_they_shall(given, many, expected):
    path = None if given is None else Path(given)
    assert output_path(Path("/v/day.mp4"), path, many=many) == Path(expected)


def test_one_file_is_not_for_several_videos():
    with pytest.raises(UsageError, match="need a folder"):
        output_path(Path("/v/day.mp4"), Path("/out/a.slp"), many=True)


async def test_a_video_that_is_not_there_and_predictions_that_are(library, tmp_path):
    models = Resolved(entries=(library.get(place(library, "centroid", 1)),))
    approvals = Approvals(tmp_path / "trusted")
    video, output = tmp_path / "v.mp4", tmp_path / "v.slp"
    with pytest.raises(NotFound):
        await anext(track_here(models, video, output, approvals=approvals))
    video.write_bytes(b"")
    output.write_bytes(b"mine")
    with pytest.raises(AlreadyExists):
        await anext(track_here(models, video, output, approvals=approvals))
    assert output.read_bytes() == b"mine"
