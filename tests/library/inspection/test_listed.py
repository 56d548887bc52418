"""What a record says of its files is what a look on this machine says."""

from __future__ import annotations

from pathlib import Path

import pytest

from sleap_rtc.domain.models import ModelFile
from sleap_rtc.library.inspection.listed import looked_into, looked_into_again
from sleap_rtc.testing import model_files

HASH = "0" * 64


def listed(path: str, **said: object) -> ModelFile:
    return ModelFile(path=path, size=1, blake3=HASH, **said)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "best.ckpt").write_bytes(model_files.torch_zip())
    (tmp_path / "best.npz").write_bytes(model_files.npz())
    (tmp_path / "training_log.csv").write_text("epoch\n")
    return tmp_path


def test_the_tier_is_by_content(directory):
    scanned, safe, plain = looked_into(
        [listed("best.ckpt"), listed("best.npz"), listed("training_log.csv")], directory
    )
    assert (scanned.safety, scanned.found) == ("scanned", "")
    assert (safe.safety, safe.found) == ("safe", "")
    assert plain == listed("training_log.csv")


def test_what_another_machine_said_is_replaced(directory):
    (directory / "evil.ckpt").write_bytes(model_files.torch_pickle(print))
    flagged, plain = looked_into(
        [
            listed("evil.ckpt", safety="safe"),
            listed("training_log.csv", safety="flagged", found="so they say"),
        ],
        directory,
    )
    assert flagged.safety in ("flagged", "unknown")
    assert flagged.found
    assert plain == listed("training_log.csv")


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 and then nothing"])
def test_a_file_that_cannot_be_looked_into_is_unknown(directory, content):
    if content is not None:
        (directory / "cut.ckpt").write_bytes(content)
    (file,) = looked_into([listed("cut.ckpt", safety="safe")], directory)
    assert file.safety == "unknown"
    assert 0 < len(file.found) <= 1_000


def test_who_says_that_a_file_is_clean_is_not_believed(directory):
    (directory / "evil.ckpt").write_bytes(model_files.torch_pickle(print))
    (directory / "sub").mkdir()
    (directory / "sub" / "net.ckpt").write_bytes(model_files.torch_zip())
    for said in ("safe", "scanned"):
        found = looked_into_again(listed("evil.ckpt", safety=said), directory / "evil.ckpt")
        assert found.safety == "flagged"
        inside = listed("sub/net.ckpt", safety=said)
        assert looked_into_again(inside, directory / inside.path).safety == "scanned"
    worse = listed("best.ckpt", safety="flagged", found="so they say")
    assert looked_into_again(worse, directory / "best.ckpt") == worse
    unsaid = listed("best.ckpt")
    assert looked_into_again(unsaid, directory / "best.ckpt") == unsaid
