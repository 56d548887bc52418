"""Packages that are given away."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3

from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.domain.packages import parse
from sleap_rtc.errors import Damaged, FilesMissing, NotFound, SourceChanged
from sleap_rtc.files.packing import pack
from sleap_rtc.transports.serving import ServedPackage, serve_model, serve_part


@pytest.fixture
def model(tmp_path: Path) -> tuple[ModelRecord, Path]:
    content = b"weights" * 1000
    (tmp_path / "best.ckpt").write_bytes(content)
    listed = ModelFile(path="best.ckpt", size=len(content), blake3=blake3(content).hexdigest())
    packed = pack({"best.ckpt": tmp_path / "best.ckpt"}, root=tmp_path)
    record = ModelRecord(
        id="0a1b2c3d",
        name="run",
        model_type="centroid",
        status="completed",
        source="worker-training",
        created_at=datetime.now(UTC),
        files=(listed,),
        package=packed.package.id,
    )
    return record, tmp_path


def test_a_models_files_are_its_package(model):
    record, directory = model
    served = serve_model(record, directory)
    assert parse(served.listing, expect=record.package).files[0].path == "best.ckpt"
    assert served.read(0, 0) == b"weights" * 1000
    served.close()


def test_there_is_nothing_beyond_the_end(model):
    record, directory = model
    served = serve_model(record, directory)
    for file, block in ((0, 1), (1, 0), (10**6, 0)):
        with pytest.raises(NotFound):
            served.read(file, block)


def test_a_model_without_files_is_said_to_have_none(model):
    record, directory = model
    bare = ModelRecord(
        id=record.id,
        name="run",
        model_type="centroid",
        status="training",
        source="worker-training",
        created_at=record.created_at,
    )
    with pytest.raises(FilesMissing, match="0a1b2c3d"):
        serve_model(bare, directory)


def test_a_model_whose_file_was_changed_is_not_served(model):
    record, directory = model
    (directory / "best.ckpt").write_bytes(b"other" * 1400)
    with pytest.raises(Damaged, match=rf"best\.ckpt of model {record.id} is damaged") as raised:
        serve_model(record, directory)
    assert f"repair-model {record.id}" in raised.value.hint_text


def test_a_file_that_changes_later_is_noticed_at_its_next_block(tmp_path):
    path = tmp_path / "data.bin"
    path.write_bytes(b"a" * 10)
    served = ServedPackage(pack({"data.bin": path}))
    assert served.read(0, 0) == b"a" * 10
    path.write_bytes(b"b" * 11)
    with pytest.raises(SourceChanged, match=r"data\.bin"):
        served.read(0, 0)


def test_a_part_of_a_model_is_what_is_there_of_it(tmp_path):
    files, contents = [], {"a.ckpt": b"one", "b.csv": b"two", "c.yaml": b"three", "d": b"four"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        files.append(ModelFile(path=name, size=len(content), blake3=blake3(content).hexdigest()))
    elsewhere = tmp_path.with_name("elsewhere")
    (tmp_path / "d").rename(elsewhere)
    (tmp_path / "d").symlink_to(elsewhere)
    files[3] = msgspec.structs.replace(files[3], link=str(elsewhere))
    record = ModelRecord(
        id="0a1b2c3d",
        name="run",
        model_type="centroid",
        status="completed",
        source="worker-training",
        created_at=datetime.now(UTC),
        files=tuple(files),
    )
    (tmp_path / "b.csv").write_bytes(b"TWO")
    (tmp_path / "c.yaml").unlink()
    wanted = {file.blake3 for file in files}
    served = serve_part(record, tmp_path, wanted)
    assert [file.path for file in parse(served.listing).files] == ["a.ckpt", "d"]
    assert served.read(1, 0) == b"four"
    served.close()
    for none in ({"0" * 64}, {files[1].blake3, files[2].blake3}):
        with pytest.raises(FilesMissing):
            serve_part(record, tmp_path, none)
