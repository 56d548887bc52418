"""What is looked at before a job's trainer may see it. The rest: tests/endtoend."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from blake3 import blake3

from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.errors import InvalidLabels, NotTrusted, UnsafePath
from sleap_rtc.jobs.spec import ModelRef
from sleap_rtc.library.registry import Registry
from sleap_rtc.worker.preparing import Preparer, check_labels

synthetic = pytest.importorskip("sleap_rtc.media.synthetic", reason="needs the extra media")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    spec = synthetic.SyntheticSpec(size=(64, 64), animals=1, labelled=2, frames=1)
    return synthetic.make_dataset(tmp_path_factory.mktemp("made") / "data", spec)


async def test_labels_with_their_images_are_taken(made):
    await check_labels(made.package.parent, "labels.pkg.slp")


async def test_labels_without_their_video_are_refused_by_their_own_name(made, tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "mine.slp").write_bytes(made.labels.read_bytes())
    with pytest.raises(InvalidLabels, match=r"^mine\.slp is not a usable label file"):
        await check_labels(tmp_path, "labels/mine.slp")


async def test_what_is_no_label_file_or_not_there_is_refused(tmp_path):
    (tmp_path / "a.slp").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    with pytest.raises(InvalidLabels, match=r"a\.slp"):
        await check_labels(tmp_path, "a.slp")
    with pytest.raises(InvalidLabels, match="not in the job's package"):
        await check_labels(tmp_path, "labels/gone.slp")


async def test_a_path_that_would_leave_the_inputs_is_refused(tmp_path):
    with pytest.raises(UnsafePath):
        await check_labels(tmp_path, "../a.slp")


def test_a_strange_file_of_a_model_from_elsewhere_is_never_run(tmp_path):
    """Whatever its record calls the checkpoint, the trainer loads best.ckpt."""
    with Registry(tmp_path / "models", index_dir=tmp_path / "index") as registry:
        staged = registry.incoming / "staged"
        staged.mkdir()
        (staged / "best.ckpt").write_bytes(pickle.dumps(eval))
        data = (staged / "best.ckpt").read_bytes()
        listed = ModelFile(path="best.ckpt", size=len(data), blake3=blake3(data).hexdigest())
        record = ModelRecord(
            id="0a1b2c3d",
            name="run",
            model_type="centroid",
            status="imported",
            source="local-import",
            created_at=datetime.now(UTC),
            files=(listed,),
            package="1" * 64,
        )
        registry.place(staged, record)
        preparer = Preparer(
            root=tmp_path,
            registry=registry,
            peers=SimpleNamespace(),
            engines=dict,
            worker="gpu-1",
            device_name="cpu",
            threads=1,
        )
        with pytest.raises(NotTrusted, match=r"best\.ckpt of model 0a1b2c3d.*eval"):
            preparer._model(ModelRef(id="0a1b2c3d", package="1" * 64))
